"""How often classes occur alone and together: counted at each client, added up at the server, with noise if asked for.

A client answers two questions: how many images it has, with each class, with each pair, and with known labels of each
class and pair (`count_labels`), and with each of the triples that the server names (`count_triples`). Without noise the
server sees these numbers exactly: a one tells it that the client has one image with just this pair, which may be enough
to point at a person.

With `Noise`, each question is epsilon-differentially private at the level of images: whatever a client sends is at most
exp(epsilon) times as likely, and at least exp(-epsilon) times, as without any one of its images. Two questions add up,
so do two images of the same person, and other labels in place of an image's count as two images. Not protected are that
a client takes part, and anything that it sends elsewhere, such as what is trained later. How (Ghosh, Roughgarden and
Sundararajan, "Universally utility-maximizing privacy mechanisms", 2009): of an image with more than ``max_labels``
classes, as many are drawn at random and the others go uncounted, which bounds what one image changes. Each number gets
two-sided geometric noise, P(z) ~ exp(-|z| epsilon / that change).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int8, Int64
from torch import Tensor

from fedmpt.conditions.document import read_document, shortened, write_document
from fedmpt.types import PRESENT, UNKNOWN, InputError

MIN_EPSILON = 1e-6
EXAMPLE = (
    '{"format": 1, "kind": "label-counts", "label-counts": {"classes": ["cat", "dog"], "num_images": 90, '
    '"singles": [40, 61], "pairs": [[0, 1, 11]], "epsilon": null, "max_labels": null}}'
)
"""Pairs are ``[class, class, images]`` by places in the list of classes, the smaller first, those of no image aside.

Where labels are unknown there is also ``"known": [[90, 70], [70, 72]]``: dog's label is known in 72 images, both are
in 70. Without it, all labels are known. Files of before have ``[90, 72]`` alone.
"""


@dataclass(frozen=True)
class Noise:
    """Differential privacy of one question to one client; of an image, at most ``max_labels`` classes are counted."""

    epsilon: float
    max_labels: int = 5

    def __post_init__(self) -> None:
        if not MIN_EPSILON <= self.epsilon < math.inf:  # Below, noise is larger than any data set. NaN is caught too.
            raise InputError(f"epsilon is {self.epsilon}; give a finite number of at least {MIN_EPSILON}, such as 1")
        if self.max_labels < 2:
            raise InputError(f"max_labels is {self.max_labels}; give 2 or more, as pairs are counted")

    @property
    def labels_rate(self) -> float:
        """Epsilon over what one image changes in `count_labels` at most: images, classes and pairs altogether."""
        return self.epsilon / (1 + self.max_labels + math.comb(self.max_labels, 2))

    @property
    def triples_rate(self) -> float:
        """The same for `count_triples`. No triple is counted of images of two classes, so they need no noise."""
        return self.epsilon / math.comb(self.max_labels, 3) if self.max_labels > 2 else math.inf


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of images: all, with each class, with each pair, and where both labels of a pair are ``known``.

    ``pairs`` is symmetric with a diagonal of zeros. ``known`` is symmetric, and has on its diagonal the images where a
    class's own label is known. With noise, numbers may be negative.
    """

    num_images: int
    singles: Int64[Tensor, "C"]
    pairs: Int64[Tensor, "C C"]
    known: Int64[Tensor, "C C"]

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            self.num_images + other.num_images,
            self.singles + other.singles,
            self.pairs + other.pairs,
            self.known + other.known,
        )


@dataclass(frozen=True)
class SiteCounts:
    """What one site counted, and the noise that it added, None without."""

    name: str
    class_names: tuple[str, ...]
    counts: LabelCounts
    noise: Noise | None


def count_labels(labels: Int8[Tensor, "images C"], *, noise: Noise | None = None) -> LabelCounts:
    """Images with each class and each pair of classes, at a client; none has a class whose label is unknown.

    With noise, unknown labels count as absent, as ``known`` images of each class are all. To count them would cost
    privacy: one image changes the numbers of all classes at once.
    """
    present = _present(labels, noise).float()  # Sums of up to 2^24 images are exact.
    num_images, pairs = len(labels), (present.T @ present).long()
    is_known = (labels.cpu() != UNKNOWN).float()
    singles, known = pairs.diagonal().clone(), (is_known.T @ is_known).long()
    if noise is not None:
        size = len(singles)
        drawn = torch.from_numpy(draw(1 + size + size * size, noise.labels_rate))
        num_images, singles = num_images + int(drawn[0]), singles + drawn[1 : size + 1]
        above = drawn[size + 1 :].reshape(size, size).triu(1)
        pairs += above + above.T  # A pair is one number, so both its places get the same noise.
        known = torch.full_like(pairs, num_images)
    return LabelCounts(num_images, singles, pairs.fill_diagonal_(0), known)


def count_triples(
    labels: Int8[Tensor, "images C"], triples: Int64[Tensor, "n 3"], *, noise: Noise | None = None
) -> Int64[Tensor, "n"]:
    """Images with all three classes of each triple, at a client. No triple may come twice: noise is for one answer."""
    columns = _present(labels, noise).T.contiguous()
    found = [int((columns[a] & columns[b] & columns[c]).sum()) for a, b, c in triples.tolist()]
    counts = torch.tensor(found, dtype=torch.int64)
    return counts if noise is None else counts + torch.from_numpy(draw(len(triples), noise.triples_rate))


def _present(labels: Int8[Tensor, "images C"], noise: Noise | None) -> Bool[Tensor, "images C"]:
    """Where a class counts: with noise, at most so many classes of an image, drawn evenly."""
    present = labels.cpu() == PRESENT
    if noise is not None:
        crowded = present.sum(1) > noise.max_labels
        full = present[crowded]
        lots = torch.from_numpy(uniform(full.numel())).reshape(full.shape).masked_fill(~full, 2)
        present[crowded] = torch.zeros_like(full).scatter(1, lots.argsort(1)[:, : noise.max_labels], True)
    return present


def draw(size: int, rate: float) -> Int64[np.ndarray, " size"]:
    """Two-sided geometric noise: P(z) ~ exp(-|z| rate)."""
    one, other = np.floor(-np.log(uniform(2 * size)) / rate).astype(np.int64).reshape(2, size)
    return one - other


def uniform(size: int) -> Float64[np.ndarray, " size"]:
    """Numbers in (0, 1] of 53 bits, from the operating system's entropy: nobody can draw them again."""
    return ((np.frombuffer(os.urandom(8 * size), dtype=np.uint64) >> np.uint64(11)) + 1.0) * 2.0**-53


def noise_margin(rates: Sequence[float], num_counts: int) -> int:
    """What the noise in a sum of counts exceeds for no more than one of ``num_counts`` sums, in expectation.

    By Chernoff's bound. ``rates`` are those of the clients that added some, as `draw` takes them; without any, it is 0.
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
    tables = cells.reshape(2, 2, -1)
    expected = (tables.sum(1, keepdim=True) * tables.sum(0)).reshape(4, -1) / cells.sum(0).clamp(min=1)
    statistic = 2 * (torch.xlogy(cells, cells) - torch.xlogy(cells, expected)).sum(0).clamp(min=0)
    return torch.where(cells[0] > expected[0], statistic, -statistic)


def write_counts(path: Path, site: SiteCounts) -> None:
    """Write a file like `EXAMPLE`; raises InputError if it cannot be written."""
    counts, noise = site.counts, site.noise
    above = counts.pairs.triu(1)
    places = above.nonzero()
    content = {
        "classes": list(site.class_names),
        "num_images": counts.num_images,
        "singles": counts.singles.tolist(),
        "pairs": torch.cat([places, above[places.unbind(1)][:, None]], dim=1).tolist(),
        "epsilon": None if noise is None else noise.epsilon,
        "max_labels": None if noise is None else noise.max_labels,
    }
    if (counts.known != counts.num_images).any():
        content["known"] = counts.known.tolist()
    write_document(path, "label-counts", {"name": site.name, "label-counts": content}, indent=None)


def read_counts(path: Path) -> SiteCounts:
    """The counts of one site; an InputError if the file is no such, or its numbers do not fit."""
    document = read_document(path, kind="label-counts", holds=dict, example=EXAMPLE)
    content = document["label-counts"]
    try:
        names = _class_names(content["classes"])
        singles = torch.tensor(content["singles"], dtype=torch.int64).reshape(len(names))
        low, high, images = torch.tensor(content["pairs"], dtype=torch.int64).reshape(-1, 3).unbind(1)
        pairs = torch.zeros(len(names), len(names), dtype=torch.int64)
        pairs[low, high] = pairs[high, low] = images
        num_images = int(content["num_images"])
        known = _known(content.get("known", [num_images] * len(names)), num_images)
        known = known.reshape(len(names), len(names))
        counts = LabelCounts(num_images, singles, pairs.fill_diagonal_(0), known)
        noise = None if content["epsilon"] is None else Noise(content["epsilon"], content["max_labels"])
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:  # An InputError is a ValueError.
        raise InputError(f"{path}: label counts cannot be used ({error}); expected a file like {EXAMPLE}") from error
    return SiteCounts(document["name"], names, counts, noise)


def _known(values: Any, num_images: int) -> Int64[Tensor, "C C"]:
    known = torch.tensor(values, dtype=torch.int64)
    if known.dim() > 1:
        return known
    # Of classes alone: whether two labels are known is then taken to be independent.
    return (known[:, None] * known // (num_images or 1)).diagonal_scatter(known)


def _class_names(values: Any) -> tuple[str, ...]:
    """Any different texts: labels are named as one likes. Whoever puts names into a prompt checks them there."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f'classes: {shortened(values)} is no list of names; write ["...", "..."]')
    if twice := next((number for number, value in enumerate(values) if value in values[:number]), None):
        raise InputError(f"classes, number {twice + 1}: {values[twice]!r} is given twice; keep one")
    return tuple(values)


def check_alike(sites: Sequence[SiteCounts], paths: Sequence[Path]) -> None:
    """Raises InputError for sites that have other classes than the first, or that are given twice."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("--counts has the same file twice; its images would count twice")
    for site, path in zip(sites, paths, strict=True):
        if site.class_names != sites[0].class_names:
            odd = sorted(set(site.class_names) ^ set(sites[0].class_names))
            what = f"{odd[0]!r} is only in one of them" if odd else "the classes are in another order"
            raise InputError(f"{path} and {paths[0]} count different classes: {what}; count the same list at all sites")
