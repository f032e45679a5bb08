"""NUS-WIDE (Chua et al., CIVR 2009) in its own folder layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.reading import ImageFolder, Part, read_text, rows_with_labels
from fedmpt.types import ABSENT, PRESENT, ImageData, InputError, Split

Missing = Literal["error", "skip"]

_CONCEPTS = Part(("ConceptsList/Concepts81.txt", "Concepts81.txt"), "the 81 classes, one a line")
_LISTS = {
    "train": Part(("ImageList/TrainImagelist.txt", "TrainImagelist.txt"), "the 161,789 images of train, one a line"),
    "test": Part(("ImageList/TestImagelist.txt", "TestImagelist.txt"), "the 107,859 images of test, one a line"),
}
_LABELS = Part(
    ("Groundtruth/TrainTestLabels", "TrainTestLabels"),
    "1 or 0 for each line of a list, one file a class and split",
    is_folder=True,
    inside="Labels_airport_Train.txt",
)
_IMAGES = Part(("Flickr", "images"), "all images", is_folder=True, inside="actor/0001_2124494179.jpg")

LAYOUT = (_CONCEPTS, *_LISTS.values(), _LABELS, _IMAGES)
"""As the official archives unpack, and as many keep it."""


def load_nus_wide(path: Path, *, min_labels: int = 0, missing: Missing = "error") -> ImageData:
    """NUS-WIDE from ``path``, the folder that holds `LAYOUT`, with its official lists for train and test.

    ``min_labels`` keeps, in both splits, only images with at least so many classes; the published code of FedMPT
    takes 5. Some photos are gone from Flickr for good: ``missing="skip"`` leaves out those that are not on disk and
    says in the notes how many, ``"error"`` refuses to go on without them.

    Raises:
        InputError: if a part of the layout, a line or an image is wrong or missing.
    """
    if missing not in get_args(Missing):
        raise InputError(f"missing is {missing!r}; it may be: {', '.join(get_args(Missing))}")
    concepts = _concepts(_CONCEPTS.locate(path))
    names = {split: _lines(part.locate(path), what="image") for split, part in _LISTS.items()}
    if both := sorted(set(names["train"]) & set(names["test"])):
        raise InputError(
            f"{_LISTS['test'].locate(path)}: {len(both)} images are in the list of train too, first {both[0]!r}; "
            "take them out of one"
        )
    train, train_notes = _split(path, "train", names["train"], concepts, min_labels=min_labels, missing=missing)
    test, test_notes = _split(path, "test", names["test"], concepts, min_labels=min_labels, missing=missing)
    return ImageData("nus-wide", tuple(concepts), train, test, notes=train_notes + test_notes)


def _concepts(path: Path) -> list[str]:
    concepts = _lines(path, what="class")
    for number, name in enumerate(concepts, start=1):
        # Names of files are made of these.
        if not name.isprintable() or "/" in name or "\\" in name:
            raise InputError(f"{path}, line {number}: {name!r} is no name of a class; restore the official file")
    return concepts


def _lines(path: Path, *, what: str) -> list[str]:
    """The words of a list. Labels belong to images by the number of the line, so none but the last may be empty."""
    lines = _without_empty_end(read_text(path, expected=f"one {what} a line"))
    if not lines:
        raise InputError(f"{path} is empty; expected one {what} a line")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line:
            raise InputError(f"{path}, line {number}: empty; expected one {what} a line")
        if seen.setdefault(line, number) != number:
            raise InputError(f"{path}, line {number}: {line!r} is on line {seen[line]} too; restore the official file")
    return lines


def _without_empty_end(text: str) -> list[str]:
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _split(
    root: Path, split: str, names: Sequence[str], concepts: Sequence[str], *, min_labels: int, missing: Missing
) -> tuple[Split, tuple[str, ...]]:
    source = _LISTS[split].locate(root)
    folder = _LABELS.locate(root)
    labels = torch.empty(len(names), len(concepts), dtype=torch.int8)
    for column, concept in enumerate(concepts):
        path = folder / f"Labels_{concept}_{split.capitalize()}.txt"
        labels[:, column] = _column(path, len(names), source=source)
    rows, notes = rows_with_labels(labels, min_labels=min_labels, split=split, where=str(source))
    images = ImageFolder(_IMAGES.locate(root), follow_links=True)
    found = [images.find(names[row].replace("\\", "/"), where=str(source)) for row in rows]
    gone = [names[row] for row, file in zip(rows, found, strict=True) if file is None]
    if gone and (missing == "error" or len(gone) == len(rows)):
        remedy = "" if len(gone) == len(rows) else ", or leave them out with missing=skip"
        raise InputError(
            f"{source}: {len(gone)} of {len(rows)} images are missing below {images.root}, first {gone[0]!r}; "
            f"unpack the images there{remedy}"
        )
    if gone:
        notes = (*notes, f"{split}: {len(gone)} of {len(rows)} images are missing, first {gone[0]!r}; left out")
        rows = [row for row, file in zip(rows, found, strict=True) if file is not None]
    return Split(split, tuple(file for file in found if file is not None), labels[rows]), notes


def _column(path: Path, num_images: int, *, source: Path) -> Int8[Tensor, "images"]:
    """The labels of one class."""
    text = read_text(path, expected=f"1 or 0 for each line of {source}").replace("\r\n", "\n").rstrip("\n")
    # One check of the whole instead of one for each of 22 million lines, where all is as it should be.
    symbols = np.frombuffer(text.encode(), dtype=np.uint8)
    values, ends = symbols[0::2], symbols[1::2]
    if len(values) == num_images and len(ends) == num_images - 1:
        is_present = values == ord("1")
        if bool((is_present | (values == ord("0"))).all()) and bool((ends == ord("\n")).all()):
            return torch.from_numpy(is_present.astype(np.int8))
    lines = _without_empty_end(text)
    for number, line in enumerate(lines, start=1):
        if line not in ("0", "1"):
            raise InputError(f"{path}, line {number}: {line!r}, expected 1 (present) or 0 (absent)")
    if len(lines) != num_images:
        raise InputError(f"{path}: {len(lines)} lines, but {source} has {num_images}; both must be of one release")
    return torch.tensor([PRESENT if line == "1" else ABSENT for line in lines], dtype=torch.int8)
