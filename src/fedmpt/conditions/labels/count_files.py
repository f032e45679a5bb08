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

import torch

from fedmpt.conditions.class_list import checked_names
from fedmpt.conditions.document import read_document, write_document
from fedmpt.conditions.labels.counts import LabelCounts, Noise
from fedmpt.types import InputError

KIND = "label-counts"
EXAMPLE = (
    '{"format": 1, "kind": "label-counts", "label-counts": {"classes": ["cat", "dog"], "num_images": 90, '
    '"singles": [40, 61], "pairs": [[0, 1, 11]], "epsilon": null, "max_labels": null}}'
)


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
        InputError: if it cannot be written.
    """
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
    write_document(path, KIND, {"name": site.name, KIND: content}, indent=None)


def read_counts(path: Path) -> SiteCounts:
    """The counts of one site.

    Raises:
        InputError: if the file cannot be read or is of another format or kind, or its numbers do not fit.
    """
    document = read_document(path, kind=KIND, example=EXAMPLE)
    content = document[KIND]
    try:
        names = ((f"class {number}", name) for number, name in enumerate(content["classes"]))
        class_names = checked_names(str(path), names)
        singles = torch.tensor(content["singles"], dtype=torch.int64).reshape(len(class_names))
        low, high, images = torch.tensor(content["pairs"], dtype=torch.int64).reshape(-1, 3).unbind(1)
        pairs = torch.zeros(len(class_names), len(class_names), dtype=torch.int64)
        pairs[low, high] = pairs[high, low] = images
        counts = LabelCounts(int(content["num_images"]), singles, pairs.fill_diagonal_(0))
        noise = None if content["epsilon"] is None else Noise(content["epsilon"], content["max_labels"])
    except KeyError as error:
        raise InputError(f"{path}: label counts lack {error}; expected a file like {EXAMPLE}") from error
    except (TypeError, ValueError, IndexError, RuntimeError) as error:  # An InputError is a ValueError.
        raise InputError(f"{path}: label counts cannot be used ({error}); expected a file like {EXAMPLE}") from error
    return SiteCounts(document["name"], class_names, counts, noise)


def check_alike(sites: Sequence[SiteCounts], paths: Sequence[Path]) -> None:
    """Raises InputError for sites that have other classes than the first, or that are given twice."""
    for number, (site, path) in enumerate(zip(sites, paths, strict=True)):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise InputError(f"--counts {path} is given twice; its images would count twice")
        if site.class_names != sites[0].class_names:
            odd = sorted(set(site.class_names) ^ set(sites[0].class_names))
            what = f"{odd[0]!r} is only in one of them" if odd else "the classes are in another order"
            raise InputError(f"{path} and {paths[0]} count different classes: {what}; count the same list at all sites")
