"""MLRSNet (Qi et al., ISPRS 2020): aerial images of 46 kinds of scenes with labels of what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.datasets.benchmark import Noted, Part, image_data, make_split, read_label_table
from fedmpt.data.finding import ImageFolder
from fedmpt.data.reading import some
from fedmpt.types import ImageData, InputError

_LABELS = Part(
    ("Labels", "labels"), "a table for each of 46 scenes, a column a class", is_folder=True, inside="airplane.csv"
)
_IMAGES = Part(
    ("Images", "images"), "109,161 images, a folder a scene", is_folder=True, inside="airplane/airplane_00001.jpg"
)

LAYOUT = (_LABELS, _IMAGES)
"""As in the authors' repository (github.com/cugbrs/MLRSNet): tables have the header ``image`` and 60 classes, and
lines ``airplane_00001.jpg,1,1,0,...``. How the archives of the images unpack could not be looked up."""

_SPELLINGS = {"habor": "harbor"}
"""Where the tables misspell a class, as it stands in prompts."""


def load_mlrsnet(path: Path, *, test_share: float = 0.2, seed: int = 0, min_labels: int = 0) -> ImageData:
    """MLRSNet from ``path``, the folder that holds `LAYOUT`, with a part of each scene held out as test.

    There is no official list of a split. Here the images of a scene are ordered by a hash of ``seed`` and their names,
    and the first ``test_share`` of them, between 0 and 1, are test: the same on every machine, whatever the order of
    the tables. The authors of the data set tested on half of it, at random. ``min_labels`` keeps, in both splits, only
    images with at least so many classes; the published code of FedMPT takes 7. It splits by scenes, not images.

    The column ``scene`` says of each image in which folder it is.

    Raises InputError if an option, a part of the layout, a line or an image is wrong or missing.
    """
    if not 0 < test_share < 1:
        raise InputError(f"test_share is {test_share}; it must lie between 0 and 1")
    source, folder = _LABELS.locate(path), _IMAGES.locate(path)
    class_names, tables = _tables(source)
    members = [(scene, name) for scene, (names, _) in tables.items() for name in names]
    is_test = [row for scene, (names, _) in tables.items() for row in _held_out(scene, names, test_share, seed)]
    if not any(is_test):
        raise InputError(f"{source}: no scene has more than one image, so none can be held out as test")
    labels, images = torch.cat([rows for _, rows in tables.values()]), ImageFolder(folder)

    def split(name: str) -> Noted:
        rows = [row for row, held_out in enumerate(is_test) if held_out == (name == "test")]
        files, scenes = ["/".join(members[row]) for row in rows], [members[row][0] for row in rows]
        return make_split(
            name, files, labels[rows], images, source=source, min_labels=min_labels, columns={"scene": scenes}
        )

    scenes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    without = [scene for scene in scenes if scene not in tables]
    note = f"{len(without)} folders of images have no table and are left out: {some(without, limit=5)}"
    return image_data("mlrsnet", path, class_names, split("train"), split("test"), notes=[note] if without else [])


def _tables(folder: Path) -> tuple[list[str], dict[str, tuple[list[str], Int8[Tensor, "images C"]]]]:
    """The classes; and of each scene the names of its images and their labels, with columns in one order."""
    first: list[str] = []
    tables: dict[str, tuple[list[str], Int8[Tensor, "images C"]]] = {}
    # Hidden files are what macOS leaves in archives.
    for path in sorted(path for path in folder.glob("*.csv") if not path.name.startswith(".")):
        columns, names, labels = read_label_table(path)
        first = first or columns
        if differing := sorted(set(first) ^ set(columns)):
            raise InputError(
                f"{path}, line 1: other classes than in {next(iter(tables))}.csv: {some(differing, limit=5)}; "
                "all tables must be of one release"
            )
        tables[path.stem] = names, labels[:, [columns.index(column) for column in first]]
    if not tables:
        raise InputError(f"{folder} has no tables; expected one for each scene, such as airplane.csv")
    return [_SPELLINGS.get(column, column) for column in first], tables


def _held_out(scene: str, names: Sequence[str], test_share: float, seed: int) -> list[bool]:
    """Which images are test. A scene of more than one image has at least one in each split."""
    num_test = min(max(round(test_share * len(names)), 1), len(names) - 1)
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{scene}/{name}".encode()).digest())
    held_out = set(order[:num_test])
    return [name in held_out for name in names]
