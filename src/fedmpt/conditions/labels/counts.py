"""How often classes occur alone and together: counted at each client, added up at the server, with noise if asked for.

A client answers two questions: how many images it has, with each class and with each pair (`count_labels`), and with
each of the triples that the server names (`count_triples`). Without noise the server sees these numbers exactly, for
each client: a one tells it that the client has one image with just this pair, which may be enough to point at a person.

With `Noise`, each question is epsilon-differentially private at the level of images: for any one image of a client,
whatever the client sends is at most exp(epsilon) times as likely, and at least exp(-epsilon) times, as it would be
without that image. This holds against everybody, the server first, and whatever they know otherwise. Two questions add
up. It protects labels of one image:

- other labels in its place count as two images, one gone and one added;
- m images of the same person are protected together by m times epsilon only;
- not that a client takes part, nor anything that it sends elsewhere: what is trained later needs protection of its own.

How (Ghosh, Roughgarden and Sundararajan, "Universally utility-maximizing privacy mechanisms", 2009): of an image with
more than ``max_labels`` classes, as many are drawn at random and the others go uncounted, which bounds what one image
changes. Each number gets two-sided geometric noise, P(z) ~ exp(-|z| epsilon / that change), from the operating system's
entropy, by uniform numbers of 53 bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64, UInt64
from scipy.sparse import csr_array
from torch import Tensor

from fedmpt.types import PRESENT, InputError

MIN_EPSILON, MOST_LABELS = 1e-6, 1000
"""Of `Noise`: beyond these, noise would be larger than any data set."""


@dataclass(frozen=True)
class Noise:
    """Differential privacy of one question to one client; ``max_labels`` are the classes counted of an image at most.

    Raises:
        InputError: if a value cannot be used.
    """

    epsilon: float
    max_labels: int = 5

    def __post_init__(self) -> None:
        if not MIN_EPSILON <= self.epsilon < math.inf:  # True of NaN as well.
            raise InputError(f"epsilon is {self.epsilon}; give a finite number of at least {MIN_EPSILON}, such as 1")
        if not 2 <= self.max_labels <= MOST_LABELS:
            raise InputError(f"max_labels is {self.max_labels}; give 2 to {MOST_LABELS}, as pairs are counted")

    @property
    def labels_rate(self) -> float:
        """Epsilon over what one image changes in `count_labels` at most: images, classes and pairs altogether."""
        return self.epsilon / (1 + self.max_labels + math.comb(self.max_labels, 2))

    @property
    def triples_rate(self) -> float:
        """The same for `count_triples`. No triple is counted of images of two classes, so they need no noise."""
        return self.epsilon / math.comb(self.max_labels, 3) if self.max_labels > 2 else math.inf


def draw(size: int, rate: float) -> Int64[np.ndarray, " size"]:
    """Two-sided geometric noise: P(z) ~ exp(-|z| rate)."""
    # In (0, 1], so that the logarithms are finite.
    uniform = ((random_bits(2 * size) >> np.uint64(11)).astype(np.float64) + 1) * 2.0**-53
    one, other = np.floor(-np.log(uniform) / rate).astype(np.int64).reshape(2, size)
    return one - other


def random_bits(size: int) -> UInt64[np.ndarray, " size"]:
    """Numbers of 64 bits that nobody can draw again."""
    return np.frombuffer(os.urandom(8 * size), dtype=np.uint64)


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of images; ``pairs`` is symmetric with a diagonal of zeros. With noise they may be negative."""

    num_images: int
    singles: Int64[Tensor, "C"]
    pairs: Int64[Tensor, "C C"]


def count_labels(labels: Int8[Tensor, "images C"], *, noise: Noise | None = None) -> LabelCounts:
    """Images with each class and each pair of classes, at a client. Unknown labels count as absent."""
    present = _present(labels, noise)
    num_images, pairs = len(labels), torch.from_numpy((present.T @ present).toarray())
    singles = pairs.diagonal().clone()
    if noise is not None:
        num_images += int(draw(1, noise.labels_rate)[0])
        singles += torch.from_numpy(draw(len(singles), noise.labels_rate))
        for row in range(len(singles) - 1):  # A pair is one number, so both its places get the same noise.
            drawn = torch.from_numpy(draw(len(singles) - row - 1, noise.labels_rate))
            pairs[row, row + 1 :] += drawn
            pairs[row + 1 :, row] += drawn
    return LabelCounts(num_images, singles, pairs.fill_diagonal_(0))


def sum_counts(parts: Iterable[LabelCounts]) -> LabelCounts:
    """Counts over all clients, at the server. ``parts`` may be made one by one; they stay as they are.

    Raises:
        InputError: if there are none, or they are of different classes.
    """
    total = None
    for part in parts:
        if total is None:
            total = part
        elif len(part.singles) != len(total.singles):
            numbers = f"{len(total.singles)} classes and another {len(part.singles)}"
            raise InputError(f"one client counts {numbers}; all must have the same list of classes")
        else:
            singles, pairs = total.singles + part.singles, total.pairs + part.pairs
            total = LabelCounts(total.num_images + part.num_images, singles, pairs)
    if total is None or not len(total.singles):
        raise InputError("there is nothing to count: no client, or no class")
    return total


def count_triples(
    labels: Int8[Tensor, "images C"], triples: Int64[Tensor, "n 3"], *, noise: Noise | None = None
) -> Int64[Tensor, "n"]:
    """Images with all three classes of each triple, at a client. Unknown labels count as absent.

    ``triples`` are different sets of three different classes: noise is enough only for what is asked once.
    """
    columns = _present(labels, noise).T.astype(bool).toarray(order="C")
    found = (np.count_nonzero(columns[a] & columns[b] & columns[c]) for a, b, c in triples.tolist())
    counts = np.fromiter(found, dtype=np.int64)
    if noise is not None:
        counts += draw(len(triples), noise.triples_rate)
    return torch.from_numpy(counts)


def noise_margin(rates: Sequence[float], num_counts: int) -> int:
    """What the noise in a sum of counts exceeds for no more than one of ``num_counts`` sums, in expectation.

    By Chernoff's bound, with the moment generating function of the noise. ``rates`` are those of the clients that added
    some, as `draw` takes them; without any, the margin is 0.
    """
    if not rates:
        return 0
    at, each = np.linspace(0, min(rates), 1000)[1:-1], np.array(rates)[:, None]
    logarithms = 2 * np.log(-np.expm1(-each)) - np.log(-np.expm1(at - each)) - np.log(-np.expm1(-at - each))
    return math.ceil(((math.log(max(num_counts, 1)) + logarithms.sum(0)) / at).min())


def association(
    both: Int64[Tensor, "n"], first: Int64[Tensor, "n"], second: Int64[Tensor, "n"], total: Int64[Tensor, "n"]
) -> Float64[Tensor, "n"]:
    """How surely two classes go together: signed G^2 of the 2 x 2 table that the counts of images make.

    The log-likelihood ratio against independence, 2 sum O ln(O / E), positive where the two occur together more often
    than independence lets expect. Unlike Pearson's residual it does not put pairs of rare classes first (Dunning,
    "Accurate methods for the statistics of surprise and coincidence", 1993). Cells that noise made negative are empty.
    """
    cells = torch.stack([both, first - both, second - both, total - first - second + both]).double().clamp(min=0)
    yes_yes, yes_no, no_yes, no_no = cells
    rows, columns = (yes_yes + yes_no, no_yes + no_no), (yes_yes + no_yes, yes_no + no_no)
    everything = rows[0] + rows[1]
    expected = torch.stack([row * column for row in rows for column in columns]) / everything.clamp(min=1)
    statistic = 2 * (torch.xlogy(cells, cells) - torch.xlogy(cells, expected)).sum(0).clamp(min=0)
    return torch.where(yes_yes > expected[0], statistic, -statistic)


def _present(labels: Int8[Tensor, "images C"], noise: Noise | None) -> csr_array:
    """Ones where a class counts: with noise, at most so many classes of an image, drawn evenly."""
    present = (labels.cpu() == PRESENT).numpy()
    if noise is not None:
        crowded = np.flatnonzero(present.sum(1) > noise.max_labels)
        lots = random_bits(len(crowded) * present.shape[1]).reshape(-1, max(present.shape[1], 1))
        kept = np.where(present[crowded], lots, np.uint64(2**64 - 1)).argsort(1)[:, : noise.max_labels]
        present[crowded] = False
        present[crowded[:, None], kept] = True
    return csr_array(present).astype(np.int64)
