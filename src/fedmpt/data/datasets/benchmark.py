"""What benchmark sets share: the layout of their folder, tables of 1 and 0, and splits of what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.finding import ImageFolder
from fedmpt.data.reading import read_table, refuse_repeated
from fedmpt.types import ABSENT, PRESENT, ImageData, InputError, Split

Missing = Literal["error", "skip"]

_BITS = {"1": PRESENT, "1.0": PRESENT, "0": ABSENT, "0.0": ABSENT}
_EXPECTED = "a header, then lines of an image's name and columns with 1 or 0"


@dataclass(frozen=True)
class Part:
    """A file or folder that belongs to the layout of a data set.

    ``paths`` are where it may be below the data set's folder, its usual place first. ``inside`` is an example of a
    path below it.
    """

    paths: tuple[str, ...]
    what: str
    is_folder: bool = False
    inside: str = ""
    required: bool = True

    def find(self, root: Path) -> Path | None:
        """Where it is, or None."""
        found = (root / path for path in self.paths)
        return next((path for path in found if (path.is_dir() if self.is_folder else path.is_file())), None)

    def locate(self, root: Path) -> Path:
        """Where it is. Raises InputError if it is nowhere."""
        if not root.is_dir():
            raise InputError(f"{root} is no folder; expected one with {self.paths[0]} in it, {self.what}")
        path = self.find(root)
        if path is None:
            kind = "folder" if self.is_folder else "file"
            raise InputError(f"{root} has no {kind} {' or '.join(self.paths)}; expected {self.what} there")
        return path


Noted = tuple[Split, tuple[str, ...]]
"""A split, and notes on images that are left out of it."""

LabelTable = tuple[list[str], list[str], Int8[Tensor, "images C"]]
"""The classes in the table's own words, the names of the images, and a row for each image."""


def read_label_table(path: Path) -> LabelTable:
    """A CSV file with a header, the name of an image in the first column, and 1 or 0 in all others.

    Raises InputError as `read_table`, or if the header names no class, an image is named twice, or a cell is neither.
    """
    table = read_table(path, expected=_EXPECTED)
    images, *columns = table.columns
    if not columns or "" in columns:
        raise InputError(f"{path}, line 1: the header must name each class; expected {_EXPECTED}")
    names = [name.strip() for name in table.columns[images]]
    refuse_repeated(names, what="image", where=table.where)
    return columns, names, table.labels(columns, _BITS, expected="1 (present) or 0 (absent)")


def make_split(
    name: str,
    names: Sequence[str],
    labels: Int8[Tensor, "images C"],
    images: ImageFolder,
    *,
    source: Path,
    min_labels: int = 0,
    missing: Missing | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Noted:
    """The images ``names`` that ``source`` lists, as a split, and notes on those that are left out.

    ``min_labels`` keeps only images with at least so many classes. With ``missing="skip"`` images that are not there
    are left out.

    Raises InputError if ``min_labels`` is negative, no image is left, or one is missing.
    """
    where = str(source)
    if min_labels < 0:
        raise InputError(f"min_labels is {min_labels}; it must not be negative, and 0 keeps all images")
    num_present = (labels == PRESENT).sum(dim=1)
    rows: list[int] = (num_present >= min_labels).nonzero().flatten().tolist()
    if not rows:
        most = int(num_present.max())
        raise InputError(f"{where}: no image has {min_labels} labels, the most is {most}; choose a smaller min_labels")
    notes: tuple[str, ...] = ()
    if few := len(labels) - len(rows):
        notes = (f"{name}: {few} of {len(labels)} images have fewer than {min_labels} labels; left out",)
    if missing == "skip":
        there = [row for row in rows if images.find(names[row], where=where)]
        gone = sorted(set(rows) - set(there))
        if gone and there:
            notes += (f"{name}: {len(gone)} of {len(rows)} images are missing, first {names[gone[0]]!r}; left out",)
            rows = there
    remedy = "unpack the images there, or take them out of the list"
    if missing == "error":
        remedy += ", or leave them out with missing=skip"
    files = images.all([names[row] for row in rows], places=[where] * len(rows), remedy=remedy)
    kept = {column: tuple(words[row] for row in rows) for column, words in (columns or {}).items()}
    return Split(name, files, labels[rows], kept), notes


def image_data(
    name: str, root: Path, class_names: Sequence[str], *splits: Noted, notes: Sequence[str] = ()
) -> ImageData:
    """The data set of a train and a test split, each with its notes. Raises InputError if an image is in both."""
    (train, train_notes), (test, test_notes) = splits
    if both := sorted(set(train.files) & set(test.files)):
        raise InputError(
            f"{root}: {len(both)} images are both in train and in test, first {both[0].name!r}; take them out of one"
        )
    return ImageData(name, tuple(class_names), train, test, notes=(*train_notes, *test_notes, *notes))
