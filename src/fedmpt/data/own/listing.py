"""What all formats of own data are read into, and the options they are read by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT

Format = Literal["auto", "csv", "coco", "voc", "imagefolder"]
Links = Literal["refuse", "follow"]
SplitName = Literal["train", "test", "validation"]

SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""Words of files and folders for each part, in lower case."""

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""By which pictures are told from other files where no list names them."""


@dataclass(frozen=True)
class Source:
    """A file, or a folder of annotations, that lists images; ``bases`` are the folders that may hold them."""

    path: Path
    split: SplitName | None
    bases: tuple[Path, ...]


@dataclass(frozen=True)
class Options:
    """How a folder is read; ``classes`` are the names from ``classes_file``, and None where there is no such file."""

    format: Format = "auto"
    classes: tuple[str, ...] | None = None
    classes_file: Path | None = None
    separator: str = "auto"
    test_share: float = 0.2
    seed: int = 0
    links: Links = "refuse"


@dataclass(frozen=True)
class Entries:
    """Images and labels as one file lists them; the images are not looked for yet.

    ``places`` name file and line of each image. ``unlisted`` is what an image's label is for a class that is not in
    ``class_names``: absent where a file lists all that an image shows, unknown where it tells which classes were
    looked for.
    """

    image_names: tuple[str, ...]
    places: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: Int8[Tensor, "images C"]
    unlisted: int
    splits: tuple[SplitName, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """All images of a folder, found. ``keys`` are their paths below the folder, the same on every machine."""

    root: Path
    files: tuple[Path, ...]
    keys: tuple[str, ...]
    splits: tuple[SplitName | None, ...]
    class_names: tuple[str, ...]
    labels: Int8[Tensor, "images C"]
    unlisted: int
    columns: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def label_matrix(names_of_images: Sequence[Iterable[str]]) -> tuple[tuple[str, ...], Int8[Tensor, "images C"]]:
    """Sorted class names, and a row for each image: present where the image has the class, else absent."""
    class_names = tuple(sorted({name for names in names_of_images for name in names}))
    column_of = {name: column for column, name in enumerate(class_names)}
    pairs = [(row, column_of[name]) for row, names in enumerate(names_of_images) for name in names]
    labels = np.full((len(names_of_images), len(class_names)), ABSENT, dtype=np.int8)
    if pairs:
        rows, columns = np.array(pairs).T
        labels[rows, columns] = PRESENT
    return class_names, torch.from_numpy(labels)


def align(
    labels: Int8[Tensor, "images K"], class_names: Sequence[str], wanted: Sequence[str], *, unlisted: int
) -> Int8[Tensor, "images C"]:
    """Columns of the classes ``wanted``, in that order; ``unlisted`` where ``class_names`` lack one."""
    aligned = torch.full((len(labels), len(wanted)), unlisted, dtype=torch.int8)
    column_of = {name: column for column, name in enumerate(class_names)}
    both = [(column, column_of[name]) for column, name in enumerate(wanted) if name in column_of]
    if both:
        to, of = (list(columns) for columns in zip(*both, strict=True))
        aligned[:, to] = labels[:, of]
    return aligned


def some(words: Iterable[str], *, limit: int = 10) -> str:
    """The first words, and how many more there are."""
    listed = list(words)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def quoted(word: str) -> str:
    """As Python writes it; the middle of a long one left out."""
    written = repr(word)
    return written if len(written) <= 100 else f"{written[:60]}...{written[-30:]}"
