"""Pairs of classes that images show together: found by lift, and counted.

A pair is a *context* a (a cat) and a *target* b (a chair). `fedmpt.evaluation.context_shift` measures how a model finds
b with a and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, ImageData, InputError, Pair

NUM_PAIRS, MIN_JOINT, MIN_TEST = 10, 15, 5
MAX_CANDIDATES = 30
"""Pairs whose test images sites count, for `NUM_PAIRS` that have enough."""
MIN_CONTEXT_ONLY = 15


@dataclass(frozen=True)
class BiasedPair:
    """A context a and a target b, class indices, with counts of images in which both labels are known.

    ``lift`` is P(a and b) / (P(a) P(b)) in training. ``num_train_context`` and ``num_train_target`` are training images
    with a and with b, ``num_train_joint`` those with both. In the test set, ``num_exclusive`` show b alone,
    ``num_cooccurring`` both and ``num_context_only`` a alone.
    """

    context: int
    target: int
    lift: float
    num_train_context: int
    num_train_target: int
    num_train_joint: int
    num_exclusive: int
    num_cooccurring: int
    num_context_only: int


@dataclass(frozen=True)
class BiasedPairs:
    """Pairs of a data set, and their counts.

    ``num_biased`` pairs had lift above 1 and joint images enough, and ``num_measurable`` of them test images enough:
    where ``per_pair`` is short, they say why.
    """

    per_pair: tuple[BiasedPair, ...]
    num_biased: int
    num_measurable: int

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """As `fedmpt.evaluation.context_shift` takes them."""
        return tuple((pair.context, pair.target) for pair in self.per_pair)

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON holds it; pairs are keyed ``"cat -> chair"``."""
        named = {f"{class_names[pair.context]} -> {class_names[pair.target]}": vars(pair) for pair in self.per_pair}
        return {"num_biased": self.num_biased, "num_measurable": self.num_measurable, "per_pair": named}


def measured_pairs(data: ImageData, test: Int8[Tensor, "test C"]) -> BiasedPairs:
    """The pairs that a run's context shift is measured on: those whose tie was cut, else the most biased ones.

    ``test`` are the labels of the test images that could be read.
    """
    if data.pairs:
        return count_pairs(data.train.labels, test, data.pairs)
    return biased_pairs(data.train.labels, test)


def biased_pairs(
    train: Int8[Tensor, "train C"],
    test: Int8[Tensor, "test K"],
    *,
    num_pairs: int = NUM_PAIRS,
    min_joint: int = MIN_JOINT,
    min_test: int = MIN_TEST,
) -> BiasedPairs:
    """The ``num_pairs`` pairs of largest lift in the labels ``train`` with ``min_joint`` joint images at least.

    ``min_test`` is the least number of test images of each of the three kinds. Equal lifts are ordered by joint
    images, more first, then by class index. An image where the label of either class is unknown takes no part in the
    pair.

    Raises:
        InputError: if an option is less than 1, or the two sets of labels have not the same classes.
    """
    options = {"num_pairs": num_pairs, "min_joint": min_joint, "min_test": min_test}
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if train.shape[1] != test.shape[1]:
        raise InputError(f"training labels have {train.shape[1]} classes and test labels {test.shape[1]}; give one set")
    trained, tested = _Counts.of(train), _Counts.of(test)
    is_biased = (trained.lift > 1) & (trained.joint >= min_joint)
    is_measurable = is_biased & (tested.smallest >= min_test)
    found = trained.by_lift(is_measurable)
    return BiasedPairs(
        per_pair=tuple(_counted(trained, tested, pair) for pair in found[:num_pairs]),
        num_biased=int(np.triu(is_biased, k=1).sum()),
        num_measurable=len(found),
    )


def count_pairs(train: Int8[Tensor, "train C"], test: Int8[Tensor, "test C"], pairs: Sequence[Pair]) -> BiasedPairs:
    """The given pairs, as `biased_pairs` describes them."""
    trained, tested = _Counts.of(train), _Counts.of(test)
    biased = [pair for pair in pairs if trained.lift[pair] > 1 and trained.joint[pair] >= MIN_JOINT]
    return BiasedPairs(
        per_pair=tuple(_counted(trained, tested, pair) for pair in pairs),
        num_biased=len(biased),
        num_measurable=sum(bool(tested.smallest[pair] >= MIN_TEST) for pair in biased),
    )


def candidate_pairs(
    singles: Int64[Tensor, "C"], pairs: Int64[Tensor, "C C"], known: Int64[Tensor, "C C"]
) -> BiasedPairs:
    """The `MAX_CANDIDATES` pairs of largest lift by counts of training labels: of images with each class, with each two
    classes, and with known labels of each two classes. Test images are not counted yet, so their numbers are 0.

    Where no label is unknown, order and counts are those of `biased_pairs`. Otherwise a class is taken to be as
    frequent where the other one's label is known too as it is elsewhere.
    """
    trained = _Counts.summed(singles, pairs, known)
    is_biased = (trained.lift > 1) & (trained.joint >= MIN_JOINT)
    nothing = _Counts(*[np.zeros_like(trained.joint)] * 3)
    found = trained.by_lift(is_biased)
    per_pair = tuple(_counted(trained, nothing, pair) for pair in found[:MAX_CANDIDATES])
    return BiasedPairs(per_pair, num_biased=len(found), num_measurable=0)


def measurable(candidates: BiasedPairs, kinds: Int64[Tensor, "pairs 3"]) -> tuple[BiasedPairs, list[int]]:
    """The candidates that are measured as `biased_pairs` measures them, and their places among the candidates.

    ``kinds`` are numbers of test images: with the target alone, with both, with the context alone. ``num_measurable``
    is the number among the candidates alone.
    """
    places = (kinds.amin(-1) >= MIN_TEST).nonzero().flatten().tolist()
    counted = [(candidates.per_pair[place], kinds[place].tolist()) for place in places[:NUM_PAIRS]]
    per_pair = tuple(
        replace(pair, num_exclusive=alone, num_cooccurring=both, num_context_only=context_only)
        for pair, (alone, both, context_only) in counted
    )
    return replace(candidates, per_pair=per_pair, num_measurable=len(places)), places[:NUM_PAIRS]


def tied_pairs(
    labels: Int8[Tensor, "images C"],
    *,
    num_pairs: int,
    min_joint: int = MIN_JOINT,
    min_context_only: int = MIN_CONTEXT_ONLY,
) -> tuple[Pair, ...]:
    """The ``num_pairs`` pairs of largest lift, above 1, with images enough: joint ones, and ones with a alone."""
    counts = _Counts.of(labels)
    context_only = np.minimum(counts.alone, counts.alone.T)  # The context is the rarer class.
    is_tied = (counts.lift > 1) & (counts.joint >= min_joint) & (context_only >= min_context_only)
    return tuple(counts.by_lift(is_tied)[:num_pairs])


@dataclass(frozen=True)
class _Counts:
    """Images in which the classes of row and column are both known: all, with the row's class, with both."""

    known: Int64[np.ndarray, "C C"]
    shown: Int64[np.ndarray, "C C"]
    joint: Int64[np.ndarray, "C C"]

    @classmethod
    def of(cls, labels: Int8[Tensor, "n C"]) -> _Counts:
        # Exact: fp32 holds whole numbers up to 16 million.
        present, known = (labels == PRESENT).float(), ((labels == PRESENT) | (labels == ABSENT)).float()
        tables = [known.T @ known, present.T @ known, present.T @ present]
        return cls(*(table.round().to(torch.int64).numpy() for table in tables))

    @classmethod
    def summed(cls, singles: Int64[Tensor, "C"], pairs: Int64[Tensor, "C C"], known: Int64[Tensor, "C C"]) -> _Counts:
        """See `candidate_pairs`. Numbers that have to be guessed are whole all the same."""
        both, one = known.numpy(), known.diagonal().numpy()[:, None]
        return cls(both, singles.numpy()[:, None] * both // np.maximum(one, 1), pairs.numpy())

    @property
    def alone(self) -> Int64[np.ndarray, "C C"]:
        """Images with the row's class and without the column's."""
        return self.shown - self.joint

    @property
    def smallest(self) -> Int64[np.ndarray, "C C"]:
        """Of the images of three kinds, a alone, b alone, both, the number of the rarest kind."""
        return np.minimum(np.minimum(self.alone, self.alone.T), self.joint)

    @cached_property
    def lift(self) -> Float[np.ndarray, "C C"]:
        """0 where a class never occurs. Equal ratios give equal numbers: one division of exact products."""
        chance = (self.shown * self.shown.T).astype(np.float64)
        together = (self.joint * self.known).astype(np.float64)
        return np.divide(together, chance, out=np.zeros_like(chance), where=chance > 0)

    def by_lift(self, allowed: Bool[np.ndarray, "C C"]) -> list[Pair]:
        """Context and target of all pairs that are ``allowed``, once each, largest lift first."""
        rows, columns = np.nonzero(np.triu(allowed, k=1))
        order = np.lexsort((columns, rows, -self.joint[rows, columns], -self.lift[rows, columns]))
        return [self._directed(int(a), int(b)) for a, b in zip(rows[order], columns[order], strict=True)]

    def _directed(self, a: int, b: int) -> Pair:
        # Lift has no direction, so a pair is measured once. The context is the class that says more about the other,
        # P(b | a) >= P(a | b): the rarer one, since there it pays a model most to answer b without looking at b.
        return (b, a) if self.shown[a, b] > self.shown[b, a] else (a, b)


def _counted(trained: _Counts, tested: _Counts, pair: Pair) -> BiasedPair:
    a, b = pair
    train_counts = (int(trained.shown[a, b]), int(trained.shown[b, a]), int(trained.joint[a, b]))
    test_counts = (int(tested.alone[b, a]), int(tested.joint[a, b]), int(tested.alone[a, b]))
    return BiasedPair(a, b, float(trained.lift[a, b]), *train_counts, *test_counts)
