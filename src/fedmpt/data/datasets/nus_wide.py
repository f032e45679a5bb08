"""NUS-WIDE (Chua et al., CIVR 2009) in its own folder layout."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.datasets.benchmark import Missing, Noted, Part, image_data, make_split
from fedmpt.data.finding import ImageFolder
from fedmpt.data.reading import check_choice, read_lines, read_names
from fedmpt.types import ImageData, InputError

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

    Raises InputError if a part of the layout, a line or an image is wrong or missing.
    """
    check_choice("missing", missing, get_args(Missing))
    concepts = read_names(_CONCEPTS.locate(path), what="class")
    folder, images = _LABELS.locate(path), ImageFolder(_IMAGES.locate(path))

    def split(name: str) -> Noted:
        source = _LISTS[name].locate(path)
        names = read_names(source, what="image")
        files = [folder / f"Labels_{concept}_{name.capitalize()}.txt" for concept in concepts]
        labels = torch.stack([_column(file, len(names), source=source) for file in files], dim=1)
        return make_split(name, names, labels, images, source=source, min_labels=min_labels, missing=missing)

    return image_data("nus-wide", path, concepts, split("train"), split("test"))


def _column(path: Path, num_images: int, *, source: Path) -> Int8[Tensor, "images"]:
    """The labels of one class."""
    lines = read_lines(path, expected=f"1 or 0 for each line of {source}")
    if odd := set(lines) - {"0", "1"}:
        number = next(number for number, line in enumerate(lines, start=1) if line in odd)
        raise InputError(f"{path}, line {number}: {lines[number - 1]!r}, expected 1 (present) or 0 (absent)")
    if len(lines) != num_images:
        raise InputError(f"{path}: {len(lines)} lines, but {source} has {num_images}; both must be of one release")
    return torch.from_numpy(np.array(lines, dtype=np.int8))
