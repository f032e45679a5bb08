"""What all formats of own data are read into, and the options they are read by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args
from unicodedata import normalize

import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.own.vocabulary import Vocabulary, read_classes
from fedmpt.data.reading import align, check_choice
from fedmpt.types import InputError, Split

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
class Options:
    """How a folder is read.

    ``classes`` is a text file of class names, one a line, in the order they are to have; without it they are those of
    the labels, sorted. ``separator`` is what separates labels in a cell: one symbol, or ``comma``, ``semicolon``,
    ``space``, ``bar``; by itself it is ``|`` or ``;``, whichever is in use. Without a given split ``test_share`` of
    the images, in (0, 1], are held out by a hash of ``seed`` and their path below the folder; with 1 there is nothing
    to train on. ``links`` is about links out of the folder. Raises InputError if an option is out of its range.
    """

    format: Format = "auto"
    classes: Path | None = None
    separator: str = "auto"
    test_share: float = 0.2
    seed: int = 0
    links: Links = "refuse"

    def __post_init__(self) -> None:
        check_choice("format", self.format, get_args(Format))
        check_choice("links", self.links, get_args(Links))
        if not 0 < self.test_share <= 1:
            raise InputError(f"test_share is {self.test_share}; it must be in (0, 1]: the share of images for the test")

    @cached_property
    def class_names(self) -> tuple[str, ...] | None:
        """The names in the file ``classes``; None without one."""
        return None if self.classes is None else read_classes(self.classes)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """One for all files that are read by these options, so that they agree on the names of classes."""
        return Vocabulary(self.class_names, source=self.classes)


@dataclass(frozen=True)
class Source:
    """A file, or a folder of annotations, that lists images; ``bases`` are the folders that may hold them."""

    path: Path
    split: SplitName | None
    bases: tuple[Path, ...]


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
    """All images of a folder, found, and the split that each is given for, if any."""

    root: Path
    images: Split
    splits: tuple[SplitName | None, ...]
    class_names: tuple[str, ...]
    unlisted: int
    notes: tuple[str, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Paths of the images below the folder, with slashes, in composed Unicode: the same on every machine."""
        return tuple(normalize("NFC", file.relative_to(self.root).as_posix()) for file in self.images.files)

    def split(self, name: str, rows: Sequence[int], class_names: Sequence[str], *, unlisted: int) -> Split:
        """Some of the images, with labels of ``class_names``; ``unlisted`` for those that the folder does not name."""
        part = self.images.take(rows, name=name)
        return replace(part, labels=align(part.labels, self.class_names, class_names, unlisted=unlisted))


def join(name: str, parts: Sequence[Split]) -> Split:
    """Images of several parts, one part after the other; columns are empty where a part has none."""
    columns = dict.fromkeys(column for part in parts for column in part.columns)
    return Split(
        name=name,
        files=tuple(file for part in parts for file in part.files),
        labels=torch.cat([part.labels for part in parts]),
        columns={
            column: tuple(word for part in parts for word in part.columns.get(column, ("",) * len(part)))
            for column in columns
        },
    )
