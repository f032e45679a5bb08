"""Which site labels differently from the others, by the sites' histograms of scores alone.

The global model is the common measure: what its scores say about a label at the other sites is what is expected at a
site. A site that calls sofas chairs has fewer sofas and more chairs than its scores lead to expect. A site with many
chairs does not, since its scores say that too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from fedmpt.evaluation.label_shift import agreement, difference, image_shift

LEVEL = 0.05
"""Chance of an alarm in a federation whose sites label alike, to which p-values are corrected."""
MIN_SHIFT = 0.2
"""Log-odds by which any site's images may shift scores, beside what is seen of a shift in its other labels."""
ORDINARY, MAX_UNUSUAL = 1.2, 2.0
"""Where three classes of a site are further off than the first, in standard deviations, the site is unusual as a whole:
each of its classes counts less, by the third's distance over the first number, but by no more than the second."""
MIN_RANDOM, RANDOM_FACTOR = 0.06, 0.15
"""Differences of the share of random labels that are ordinary: at any site, and a log-odd of its images' shift."""
SUSPECT = 2.5
"""Standard deviations from which a cell is compared with the others less one."""


@dataclass(frozen=True)
class ClassAtSite:
    """How many labels of a class are present at a site, and how many were expected: the nearest number that ordinary
    differences explain. ``p`` is corrected over all sites and classes, 1 at most."""

    site: str
    class_name: str
    observed: int
    expected: float
    p: float

    def __str__(self) -> str:
        """For example, ``clinic-a labels "sofa" 2.3 times as often as expected (41 images, 18 expected)``."""
        often = (
            f"{self.observed / max(self.expected, 0.01):.2g} times as often as expected" if self.observed else "never"
        )
        return f'{self.site} labels "{self.class_name}" {often} ({self.observed} images, {self.expected:.0f} expected)'


@dataclass(frozen=True)
class AgreementAtSite:
    """Whether a site's labels, over all classes, are at the images where the model expects them. ``random`` is the
    share of images, 0 to 1 and a little beyond by chance, whose labels look as if given at random; ``p`` as above."""

    site: str
    random: float
    p: float

    def __str__(self) -> str:
        """For example, ``clinic-a: labels of 31% of the images look as if given at random``."""
        return f"{self.site}: labels of {self.random:.0%} of the images look as if given at random"


@dataclass(frozen=True)
class SiteLabels:
    """Every site and class, and every site as a whole, the least likely first."""

    classes: tuple[ClassAtSite, ...]
    sites: tuple[AgreementAtSite, ...]

    @property
    def alarms(self) -> tuple[ClassAtSite | AgreementAtSite, ...]:
        """Those that ordinary differences between sites do not explain."""
        rows: tuple[ClassAtSite | AgreementAtSite, ...] = (*self.sites, *self.classes)
        return tuple(row for row in rows if row.p < LEVEL)

    def to_json(self) -> dict[str, Any]:
        return {
            "alarms": [str(row) for row in self.alarms],
            "classes": [vars(row) for row in self.classes],
            "sites": [vars(row) for row in self.sites],
        }


def site_labels(histograms: Mapping[str, Int64[Tensor, "2 C bins"]], class_names: Sequence[str]) -> SiteLabels:
    """Compare each site's labels with the others' by `ScoreSums.histograms` of all sites, by their names.

    Of two sites, either may be named for a difference. Alarms say that labels and scores differ, not who is right.

    Raises:
        ValueError: if there are fewer than two sites.
    """
    if len(histograms) < 2:
        raise ValueError("labels of one site cannot be compared; give two or more")
    counts = np.stack([table.numpy() for table in histograms.values()]).swapaxes(1, 2).astype(np.float64)
    tolerance = _tolerance(counts)
    z, expected = _differences(counts, tolerance)
    z = z / _unusual(z)[:, None]
    random, random_z = _random_shares(counts, tolerance)
    is_tested = (counts.sum((0, 3)) > 0).all(-1)
    names, present = list(histograms), counts[:, :, 1].sum(-1).astype(np.int64)
    # Half of the level is for the sites as a whole, and half for their classes (Bonferroni).
    num_sites, num_cells = 2 * len(names), 2 * len(names) * int(is_tested.sum())
    rows = [
        ClassAtSite(name, class_name, int(present[s, c]), float(expected[s, c]), min(1.0, num_cells * _tails(z[s, c])))
        for s, name in enumerate(names)
        for c, class_name in enumerate(class_names)
        if is_tested[c]
    ]
    # One tail: labels that agree better than elsewhere are none to look at.
    tails = [_tails(max(value, 0.0)) / 2 for value in random_z.tolist()]
    sites = [AgreementAtSite(name, float(random[s]), min(1.0, num_sites * tails[s])) for s, name in enumerate(names)]
    return SiteLabels(tuple(sorted(rows, key=lambda row: row.p)), tuple(sorted(sites, key=lambda row: row.p)))


def _tolerance(counts: Float64[np.ndarray, "sites C 2 bins"]) -> Float64[np.ndarray, " sites"]:
    """Log-odds by which a site's images may shift the scores of any class: by its classes' typical one.

    The median, as a site that labels a few classes differently must not excuse itself; 0.455 is that of a square of a
    standard normal number.
    """
    shape = counts.shape[:2]
    squared = image_shift(*_against_others(counts)).reshape(shape)
    typical = np.array([np.median(row[~np.isnan(row)]) if (~np.isnan(row)).any() else 0.0 for row in squared]) / 0.455
    return np.sqrt(MIN_SHIFT**2 + typical.clip(0))


def _differences(
    counts: Float64[np.ndarray, "sites C 2 bins"], tolerance: Float64[np.ndarray, " sites"]
) -> tuple[Float64[np.ndarray, "sites C"], Float64[np.ndarray, "sites C"]]:
    """z and expected number of each cell.

    A cell that stands out is compared again with the others less one, whichever makes it stand out least: what one
    single site does, such as having all chairs or dropping all sofas, says nothing about the rest.
    """
    num_sites, num_classes = counts.shape[:2]
    found = difference(*_against_others(counts), np.repeat(tolerance, num_classes))
    z, expected = (values.reshape(num_sites, num_classes).copy() for values in (found.z, found.expected))
    if num_sites == 2:
        return z, expected
    whole = counts.sum(0)
    for s, c in np.argwhere(np.abs(z) > SUSPECT):
        own, rest = counts[s, c], np.delete(counts[:, c], s, axis=0)
        fewer = whole[c] - own - rest
        again = difference(np.broadcast_to(own, fewer.shape), fewer, np.full(len(fewer), tolerance[s]))
        least = np.abs(again.z).argmin()
        if (again.z * z[s, c] <= 0).any():  # Too many for some of the others and too few for others: between them.
            z[s, c], expected[s, c] = 0.0, counts[s, c, 1].sum()
        elif abs(again.z[least]) < abs(z[s, c]):
            z[s, c], expected[s, c] = again.z[least], again.expected[least]
    return z, expected


def _unusual(z: Float64[np.ndarray, "sites C"]) -> Float64[np.ndarray, " sites"]:
    """By how much less the classes of a site count. Two classes that are confused do not excuse each other."""
    if z.shape[1] < 3:
        return np.ones(len(z))
    return (np.sort(np.abs(z))[:, -3] / ORDINARY).clip(1, MAX_UNUSUAL)


def _random_shares(
    counts: Float64[np.ndarray, "sites C 2 bins"], tolerance: Float64[np.ndarray, " sites"]
) -> tuple[Float64[np.ndarray, " sites"], Float64[np.ndarray, " sites"]]:
    """Share of labels that look random at each site, and how far it is above the other sites' median."""
    excess, size, variance = agreement(*_against_others(counts)).reshape(3, *counts.shape[:2]).sum(-1)
    share, size = excess / size.clip(1e-9), size.clip(1e-9)
    others = np.array([np.median(np.delete(share, s)) for s in range(len(share))])
    ordinary = MIN_RANDOM + RANDOM_FACTOR * tolerance
    return share, (share - others) / np.sqrt(variance / size**2 + ordinary**2)


def _against_others(
    counts: Float64[np.ndarray, "sites C 2 bins"],
) -> tuple[Float64[np.ndarray, "cells 2 bins"], Float64[np.ndarray, "cells 2 bins"]]:
    """Each cell's own counts, and those of all other sites."""
    others = counts.sum(0) - counts
    return counts.reshape(-1, *counts.shape[2:]), others.reshape(-1, *counts.shape[2:])


def _tails(z: float) -> float:
    """Chance that a standard normal number is as far from zero, on either side."""
    return math.erfc(abs(z) / math.sqrt(2))
