"""How often classes occur alone and together: counted at each client, added up at the server, with noise if asked for.

What a client sends, in two questions (`fedmpt.conditions.labels.combinations` asks them):

1. `count_labels`: its number of images, and of images with each class and with each pair of classes;
2. `count_triples`: its number of images with each of the triples that the server names.

Without noise the server sees these numbers exactly, for each client. A one tells it that the client has one image with
just this pair, which may be enough to point at a person. Only with secure aggregation, which is not part of this, would
it see no more than sums.

With `Noise`, each question is epsilon-differentially private at the level of images: for any one image of a client,
whatever the client sends is at most exp(epsilon) times as likely, and at least exp(-epsilon) times, as it would be
without that image. This holds against everybody, the server first, and whatever they know otherwise. Two questions add
up. It protects labels of one image:

- other labels in its place count as two images, one gone and one added;
- m images of the same person are protected together by m times epsilon only;
- not that a client takes part, nor anything that it sends elsewhere: what is trained later needs protection of its own;
- the pictures themselves never leave a client, so nothing is said of them here.

How (Ghosh, Roughgarden and Sundararajan, "Universally utility-maximizing privacy mechanisms", 2009): of an image with
more than ``max_labels`` = k classes, k are drawn at random and the others go uncounted. So an image more or less
changes the numbers of the first question by 1 + k + k (k - 1) / 2 altogether, and those of the second by
k (k - 1) (k - 2) / 6. Each number gets two-sided geometric noise, P(z) ~ exp(-|z| epsilon / that change), from the
operating system's entropy. It is drawn from uniform numbers of 53 bits, so probabilities are right up to that.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int8, Int64
from torch import Tensor

from fedmpt.types import PRESENT, InputError

CHUNK = 2**24
"""Labels that are looked at at once. As a chunk has fewer images than this, sums of it are exact in float32."""
DENSE = 1 / 128
"""From this share of all pairs on, in the mean over images, multiplying matrices is faster than listing pairs."""
MIN_EPSILON = 1e-6
"""With less, noise would be larger than any data set."""
MOST_LABELS = 1000
"""Of `Noise`. With many more, noise would be larger than any number that is counted with."""


@dataclass(frozen=True)
class Noise:
    """Differential privacy of one question to one client.

    Attributes:
        epsilon: of this question; those of several questions add up.
        max_labels: classes of an image that are counted at most, 2 to 1,000. More need more noise.
        generator: for tests only: what somebody can draw again, they can take off again.

    Raises:
        InputError: if a value cannot be used.
    """

    epsilon: float
    max_labels: int = 5
    generator: np.random.Generator | None = None

    def __post_init__(self) -> None:
        if not MIN_EPSILON <= self.epsilon < math.inf:  # True of NaN as well.
            raise InputError(f"epsilon is {self.epsilon}; give a finite number of at least {MIN_EPSILON}, such as 1")
        if not 2 <= self.max_labels <= MOST_LABELS:
            given = self.max_labels if self.max_labels < 2 else "too large"  # Of any number of digits.
            raise InputError(f"max_labels is {given}; give 2 to {MOST_LABELS}, as pairs of classes are counted")

    @property
    def labels_change(self) -> int:
        """What one image changes in `count_labels` at most: images, classes and pairs altogether."""
        return 1 + self.max_labels + math.comb(self.max_labels, 2)

    @property
    def triples_change(self) -> int:
        """What one image changes in `count_triples` at most, over all triples."""
        return math.comb(self.max_labels, 3)

    def draw(self, size: int, change: int) -> Int64[np.ndarray, " size"]:
        """Noise for counts of which one image changes ``change`` altogether."""
        scale = change / self.epsilon
        return _geometric(size, scale, self.generator) - _geometric(size, scale, self.generator)


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of images; ``pairs`` is symmetric with a diagonal of zeros. With noise they may be negative."""

    num_images: int
    singles: Int64[Tensor, "C"]
    pairs: Int64[Tensor, "C C"]


def count_labels(labels: Int8[Tensor, "images C"], *, noise: Noise | None = None) -> LabelCounts:
    """Images with each class and each pair of classes, at a client. Unknown labels count as absent.

    Time grows with the pairs in the images, memory with C^2: 200 MB for 5,000 classes.
    """
    num_images, num_classes = labels.shape
    singles, pairs = torch.zeros(num_classes, dtype=torch.int64), torch.zeros(num_classes**2, dtype=torch.int64)
    for present in _chunks(labels, noise):
        rows, classes = present.nonzero().unbind(1)
        singles += classes.bincount(minlength=num_classes)
        in_image = rows.bincount(minlength=len(present))
        if (in_image**2).sum().item() > DENSE * num_classes**2 * len(present):
            values = present.float()
            pairs += (values.T @ values).long().flatten()
        else:
            _list_pairs(pairs, classes, in_image)
    pairs[:: num_classes + 1] = 0  # The diagonal.
    counts = LabelCounts(num_images, singles, pairs.view(num_classes, num_classes))
    return counts if noise is None else _noisy(counts, noise)


def sum_counts(parts: Iterable[LabelCounts]) -> LabelCounts:
    """Counts over all clients, at the server. ``parts`` may be made one by one; they stay as they are.

    Raises:
        InputError: if there are none, or they are of different classes.
    """
    num_images, singles, pairs = 0, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64)
    for part in parts:
        if not len(singles):
            singles, pairs = torch.zeros_like(part.singles), torch.zeros_like(part.pairs)
        if part.singles.shape != singles.shape:
            raise InputError(
                f"one client counts {len(singles)} classes and another {len(part.singles)}; "
                "all must have the same list of classes"
            )
        num_images += part.num_images
        singles += part.singles
        pairs += part.pairs
        del part  # Before the next is made: it may have 200 MB.
    if not len(singles):
        raise InputError("there is nothing to count: no client, or no class")
    return LabelCounts(num_images, singles, pairs)


def count_triples(
    labels: Int8[Tensor, "images C"], triples: Int64[Tensor, "n 3"], *, noise: Noise | None = None
) -> Int64[Tensor, "n"]:
    """Images with all three classes of each triple, at a client. Unknown labels count as absent.

    ``triples`` are different sets of three different classes: noise is enough only for what is asked once.
    """
    counts = np.zeros(len(triples), dtype=np.int64)
    used, columns = triples.unique(return_inverse=True)
    for present in _chunks(labels, noise):
        bits = np.packbits(present[:, used].T.numpy(), axis=1)  # One row a class, eight images a byte.
        step = max(1, CHUNK // max(bits.shape[1], 1))
        for start in range(0, len(triples), step):
            first, second, third = columns[start : start + step].T.numpy()
            counts[start : start + step] += _BITS[bits[first] & bits[second] & bits[third]].sum(1, dtype=np.int64)
    if noise is not None and len(triples) and noise.triples_change:
        counts += noise.draw(len(triples), noise.triples_change)
    return torch.from_numpy(counts)


def noise_margin(noises: Sequence[tuple[Noise, int]], num_counts: int) -> float:
    """What the noise in a sum of counts exceeds for no more than one of ``num_counts`` sums, in expectation.

    By Chernoff's bound, with the moment generating function of the noise. Each of ``noises`` comes with what one image
    changes, as in `Noise.draw`; without any, the margin is 0.
    """
    if not noises:
        return 0.0
    rates = np.array([noise.epsilon / change for noise, change in noises])
    at = np.linspace(0, rates.min(), 1000)[1:-1]
    logarithm = np.zeros_like(at)
    for rate, times in zip(*np.unique(rates, return_counts=True), strict=True):
        of_one = 2 * np.log(-np.expm1(-rate)) - np.log(-np.expm1(at - rate)) - np.log(-np.expm1(-at - rate))
        logarithm += times * of_one
    return float(((math.log(max(num_counts, 1)) + logarithm) / at).min())


_BITS = np.array([value.bit_count() for value in range(256)], dtype=np.uint8)
"""Bits that are set in a byte."""


def _chunks(labels: Int8[Tensor, "images C"], noise: Noise | None) -> Iterator[Bool[Tensor, "rows C"]]:
    """Which classes of some images count, image by image."""
    for part in labels.cpu().split(max(1, CHUNK // max(labels.shape[1], 1))):
        present = part == PRESENT
        yield present if noise is None else _capped(present, noise)


def _capped(present: Bool[Tensor, "rows C"], noise: Noise) -> Bool[Tensor, "rows C"]:
    """At most ``noise.max_labels`` classes of each image, drawn evenly and for each image by itself."""
    crowded = (present.sum(1) > noise.max_labels).nonzero().squeeze(1)
    rows, classes = present[crowded].nonzero().numpy().T
    order = np.lexsort((_random_bits(len(rows), noise.generator), rows))
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)  # Within the image: `rows` are sorted.
    kept = torch.from_numpy(order[rank < noise.max_labels])
    rows, classes = torch.from_numpy(rows.copy()), torch.from_numpy(classes.copy())
    present[crowded] = False
    present[crowded[rows[kept]], classes[kept]] = True
    return present


def _list_pairs(pairs: Int64[Tensor, "CC"], classes: Int64[Tensor, "n"], in_image: Int64[Tensor, "rows"]) -> None:
    """Add each pair of each image, in both orders. ``classes`` are those of one image after the other."""
    num_classes = math.isqrt(len(pairs))
    before = torch.arange(len(classes)) - (in_image.cumsum(0) - in_image).repeat_interleave(in_image)
    later = torch.arange(len(classes)).repeat_interleave(before)  # Each class, once for every one before it.
    step = torch.arange(len(later)) - (before.cumsum(0) - before).repeat_interleave(before)
    earlier = later - before[later] + step
    ones = torch.ones_like(later)
    for first, second in ((earlier, later), (later, earlier)):
        pairs.scatter_add_(0, classes[first] * num_classes + classes[second], ones)


def _noisy(counts: LabelCounts, noise: Noise) -> LabelCounts:
    """Changes ``counts.singles`` and ``counts.pairs`` in place."""
    change, num_classes = noise.labels_change, len(counts.singles)
    num_images = counts.num_images + int(noise.draw(1, change)[0])
    counts.singles.add_(torch.from_numpy(noise.draw(num_classes, change)))
    for row in range(num_classes - 1):  # A pair is one number, so both its places get the same noise.
        drawn = torch.from_numpy(noise.draw(num_classes - row - 1, change))
        counts.pairs[row, row + 1 :] += drawn
        counts.pairs[row + 1 :, row] += drawn
    return LabelCounts(num_images, counts.singles, counts.pairs)


def _random_bits(size: int, generator: np.random.Generator | None) -> np.ndarray:
    """Numbers of 64 bits."""
    if generator is None:
        return np.frombuffer(os.urandom(8 * size), dtype=np.uint64)
    return generator.integers(0, 2**64, size, dtype=np.uint64)


def _geometric(size: int, scale: float, generator: np.random.Generator | None) -> Int64[np.ndarray, " size"]:
    """P(at least g) = exp(-g / scale)."""
    uniform = ((_random_bits(size, generator) >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53  # In (0, 1].
    return np.floor(-np.log(uniform) * scale).astype(np.int64)


def association(
    both: Int64[Tensor, "n"], first: Int64[Tensor, "n"], second: Int64[Tensor, "n"], total: Int64[Tensor, "n"]
) -> Float64[Tensor, "n"]:
    """How surely two classes go together: signed G^2 of the 2 x 2 table that the counts of images make.

    G^2 = 2 sum O ln(O / E) is the log-likelihood ratio against independence, positive here where the two occur together
    more often than independence lets expect, else negative. Pearson's residual (O - E) / sqrt(E) would put pairs of
    rare classes first, five images where 0.01 are expected, and its distribution does not hold for such small
    expectations; G^2 weighs evidence (Dunning, "Accurate methods for the statistics of surprise and coincidence",
    1993). Cells that noise made negative count as empty.
    """
    cells = torch.stack([both, first - both, second - both, total - first - second + both]).double().clamp(min=0)
    yes_yes, yes_no, no_yes, no_no = cells
    rows, columns = (yes_yes + yes_no, no_yes + no_no), (yes_yes + no_yes, yes_no + no_no)
    everything = rows[0] + rows[1]
    expected = torch.stack([row * column for row in rows for column in columns]) / everything.clamp(min=1)
    statistic = 2 * (torch.xlogy(cells, cells) - torch.xlogy(cells, expected)).sum(0).clamp(min=0)
    return torch.where(yes_yes > expected[0], statistic, -statistic)
