"""Random whole numbers that are the same on every machine and with every version of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt64

Item = TypeVar("Item")

_BLOCK = 64


class Draws:
    """A stream of whole numbers fixed by ``identity``, non-negative integers.

    It takes PCG64's raw output, which NumPy promises to keep; what its Generator makes of that may change between
    versions. Nothing here rounds, but for a probability of `chance` to 64 bits.
    """

    def __init__(self, *identity: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(identity))
        self._ready: list[int] = []

    def below(self, bound: int) -> int:
        """Uniform in 0 .. ``bound`` - 1."""
        # Of 2^64 numbers, some results get one more than others: a bias of bound / 2^64.
        return self._next() * bound >> 64

    def between(self, low: int, high: int) -> int:
        """Uniform in ``low`` .. ``high``, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with this probability, in [0, 1]."""
        return self._next() < int(probability * 2**64)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of ``items``, each as likely."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[Item], weights: Sequence[int]) -> Item:
        """One of ``items``, as likely as its weight."""
        rest = self.below(sum(weights))
        for item, weight in zip(items, weights, strict=True):
            rest -= weight
            if rest < 0:
                return item
        raise AssertionError("unreachable: the drawn number is below the sum of the weights")

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All of ``items`` in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(len(rest))]

    def array(self, *shape: int, bound: int) -> UInt64[np.ndarray, "*shape"]:
        """Uniform in 0 .. ``bound`` - 1, for ``bound`` up to 2^32."""
        count = int(np.prod(shape))
        return ((self._bits.random_raw(count) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).reshape(shape)

    def _next(self) -> int:
        if not self._ready:
            self._ready = self._bits.random_raw(_BLOCK).tolist()
        return self._ready.pop()
