"""Label counts of a site in a file, for sites that can pool neither images nor labels.

``{"format": 1, "kind": "label-counts", "name": "hospital A", "label-counts": {"classes": ["cat", "dog"],
"num_images": 90, "singles": [40, 61], "pairs": [[0, 1, 11]], "epsilon": null, "max_labels": null}}``

Pairs are ``[class, class, images]`` by places in the list of classes, the smaller first, without those of no image.
Triples are not counted here: which to count would take another exchange of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.conditions.class_list import check_names
from fedmpt.conditions.document import TEXT, is_text, read_document, shortened, write_document
from fedmpt.conditions.labels.counts import LabelCounts, Noise
from fedmpt.types import InputError

KIND = "label-counts"
EXAMPLE = (
    '{"format": 1, "kind": "label-counts", "label-counts": {"classes": ["cat", "dog"], "num_images": 90, '
    '"singles": [40, 61], "pairs": [[0, 1, 11]], "epsilon": null, "max_labels": null}}'
)
MAX_BYTES = 64 * 2**20
"""Noise fills all pairs: enough for some 2,500 classes with it, and for any list without."""
MAX_COUNT = 2**40
"""So that sums over millions of sites are right; JSON readers that take numbers for floats have these exactly too."""
KEYS = ("classes", "num_images", "singles", "pairs", "epsilon", "max_labels")


@dataclass(frozen=True)
class SiteCounts:
    """What one site counted, and the noise that it added, None without."""

    name: str
    class_names: tuple[str, ...]
    counts: LabelCounts
    noise: Noise | None


def write_counts(path: Path, site: SiteCounts) -> None:
    """Write a file that `read_counts` reads as the same counts.

    Raises:
        InputError: if the name or a class is no text, or the file would be too large to be read.
    """
    check_site_name(site.name)
    check_names(site.class_names, places=[f"class {number}" for number in range(len(site.class_names))])
    counts, noise = site.counts, site.noise
    places = torch.triu(counts.pairs, diagonal=1).nonzero()
    images = counts.pairs[places[:, 0], places[:, 1]]
    content = {
        "classes": list(site.class_names),
        "num_images": counts.num_images,
        "singles": counts.singles.tolist(),
        "pairs": torch.cat([places, images[:, None]], 1).tolist(),
        "epsilon": None if noise is None else noise.epsilon,
        "max_labels": None if noise is None else noise.max_labels,
    }
    remedy = f"leave --epsilon out, or count fewer than {len(site.class_names)} classes"
    write_document(path, KIND, {"name": site.name, KIND: content}, remedy=remedy, indent=None, max_bytes=MAX_BYTES)


def check_site_name(name: str) -> None:
    """Raises InputError for a name that is no line of text."""
    if not is_text(name):
        raise InputError(f"--name is {shortened(name)}; expected {TEXT}")


def read_counts(path: Path) -> SiteCounts:
    """The counts of one site.

    Raises:
        InputError: if the file is missing, huge, no JSON, of another format or kind, or its numbers do not fit.
    """
    document = read_document(path, kind=KIND, example=EXAMPLE, max_bytes=MAX_BYTES)
    content = document.content
    if not isinstance(content, dict) or sorted(content) != sorted(KEYS):
        raise InputError(f"{path}: label counts must have {', '.join(KEYS)} and nothing else: {EXAMPLE}")
    class_names = content["classes"]
    if not isinstance(class_names, list):
        raise InputError(f"{path}: classes are {shortened(class_names)}; expected a list of names")
    check_names(class_names, places=[f"{path}, class {number}" for number in range(len(class_names))])
    noise = _noise(path, content)
    singles = _counts(path, "singles", content["singles"], len(class_names))
    counts = LabelCounts(
        _count(path, "num_images", content["num_images"]),
        torch.tensor(singles, dtype=torch.int64),
        _pairs(path, content["pairs"], len(class_names)),
    )
    if noise is None:
        _check_exact(path, counts)
    return SiteCounts(document.name, tuple(class_names), counts, noise)


def check_alike(sites: Sequence[SiteCounts], paths: Sequence[Path]) -> None:
    """Raises InputError for sites that have other classes than the first, or that are given twice."""
    for number, (site, path) in enumerate(zip(sites, paths, strict=True)):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise InputError(f"--counts {path} is given twice; its images would count twice")
        if site.class_names != sites[0].class_names:
            odd = sorted(set(site.class_names) ^ set(sites[0].class_names))
            what = f"{odd[0]!r} is only in one of them" if odd else "the classes are in another order"
            raise InputError(f"{path} and {paths[0]} count different classes: {what}; count the same list at all sites")


def _pairs(path: Path, value: Any, num_classes: int) -> Int64[Tensor, "C C"]:
    if not isinstance(value, list):
        raise InputError(f"{path}: pairs are {shortened(value)}; expected [[class, class, images], ...]")
    pairs = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    if not value:
        return pairs
    for number, entry in enumerate(value):
        first, second, _ = _counts(path, f"pair {number}", entry, 3)
        if not 0 <= first < second < num_classes:
            raise InputError(
                f"{path}: pair {number} is {shortened(entry)}; expected two places in the list of {num_classes} "
                "classes, the smaller first, and a number of images"
            )
    low, high, images = torch.tensor(value, dtype=torch.int64).unbind(1)
    places, times = (low * num_classes + high).unique(return_counts=True)
    if len(repeated := places[times > 1]):
        classes = divmod(int(repeated[0]), num_classes)
        raise InputError(f"{path}: the pair of classes {classes[0]} and {classes[1]} is given twice; keep one")
    pairs[low, high] = pairs[high, low] = images
    return pairs


def _check_exact(path: Path, counts: LabelCounts) -> None:
    """Raises InputError for numbers that no images have; with noise there may be such."""
    singles, pairs = counts.singles, counts.pairs
    at_most = torch.minimum(singles[:, None], singles)
    if counts.num_images < 0 or (singles < 0).any() or (pairs < 0).any():
        raise InputError(f"{path}: a number of images is negative, and there is no noise; count again at the site")
    if (singles > counts.num_images).any() or (pairs > at_most).any():
        raise InputError(
            f"{path}: a class or a pair is in more images than there are, or than show its classes; count again at "
            "the site"
        )


def _noise(path: Path, content: dict[str, Any]) -> Noise | None:
    epsilon, max_labels = content["epsilon"], content["max_labels"]
    if epsilon is None and max_labels is None:
        return None
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or type(max_labels) is not int:
        raise InputError(
            f"{path}: epsilon and max_labels are {shortened(epsilon)} and {shortened(max_labels)}; expected two "
            "numbers, or null for both"
        )
    try:
        return Noise(float(epsilon), max_labels)
    except (InputError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error


def _counts(path: Path, what: str, value: Any, length: int) -> list[int]:
    if not isinstance(value, list) or len(value) != length:
        raise InputError(f"{path}: {what} is {shortened(value)}; expected a list of {length} whole numbers")
    return [_count(path, what, number) for number in value]


def _count(path: Path, what: str, value: Any) -> int:
    """A whole number; with noise it may be negative."""
    if type(value) is not int or abs(value) > MAX_COUNT:
        raise InputError(f"{path}: {what} has {shortened(value)}; expected a whole number of images")
    return value
