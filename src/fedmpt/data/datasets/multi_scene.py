"""MultiScene-Clean (Hua et al., IEEE TGRS 2022): aerial images of several scenes each, labels checked by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedmpt.data.datasets.benchmark import Noted, Part, image_data, make_split, read_label_table
from fedmpt.data.finding import ImageFolder
from fedmpt.data.reading import check_choice, refuse_repeated
from fedmpt.types import ImageData, InputError

CLASS_NAMES = (
    "apron", "baseball field", "basketball field", "beach", "bridge", "cemetery", "commercial", "farmland", "woodland",
    "golf course", "greenhouse", "helipad", "lake or pond", "oil field", "orchard", "parking lot", "park", "pier",
    "port", "quarry", "railway", "residential", "river", "roundabout", "runway", "soccer", "solar panel",
    "sparse shrub", "stadium", "storage tank", "tennis court", "train station", "wastewater plant", "wind turbine",
    "works", "sea",
)  # fmt: skip
"""As they stand in prompts, in the order of the authors' code."""

# The authors' code writes classes as one word, and these with a slip or a word less.
_OTHER_SPELLINGS = {
    "LakePond": "lake or pond",
    "OilFiled": "oil field",
    "SolarPannel": "solar panel",
    "WindTrubine": "wind turbine",
}

_TRAIN = Part(("Tra.csv", "train.csv"), "labels of the 7,000 images of train, one column a class")
_TEST = Part(("Test.csv", "test.csv"), "labels of the 7,000 images of test, one column a class")
_IMAGES = Part(("images",), "all images, named in the tables without .jpg", is_folder=True, inside="NAME.jpg")

LAYOUT = (_TRAIN, _TEST, _IMAGES)
"""As the authors' code (github.com/Hua-YS/Multi-Scene-Recognition) reads it, from a folder MultiScene-Clean.

What the header says could not be looked up, so both class names and any other header of 36 columns are understood.
"""


def load_multi_scene(path: Path) -> ImageData:
    """MultiScene-Clean from ``path``, the folder that holds `LAYOUT`: Tra.csv to train, Test.csv to test.

    Columns go by their names in the header, in any order. A header without a single class name says nothing: then
    the 36 columns are taken in the order of `CLASS_NAMES`, and the notes say so.

    Raises InputError if a part of the layout, a line, a column or an image is wrong or missing.
    """
    images = ImageFolder(_IMAGES.locate(path))
    train, test = (_split(name, part.locate(path), images) for name, part in (("train", _TRAIN), ("test", _TEST)))
    return image_data("multi-scene", path, CLASS_NAMES, train, test)


def _split(name: str, path: Path, images: ImageFolder) -> Noted:
    columns, names, labels = read_label_table(path)
    order, notes = _order(columns, path)
    files = [image if image.lower().endswith((".jpg", ".jpeg", ".png")) else f"{image}.jpg" for image in names]
    return make_split(name, files, labels[:, order], images, source=path)[0], notes


def _order(columns: Sequence[str], path: Path) -> tuple[list[int], tuple[str, ...]]:
    """The column of each class."""
    known = {_letters(name): name for name in CLASS_NAMES}
    known |= {_letters(written): name for written, name in _OTHER_SPELLINGS.items()}
    named = [known.get(_letters(column)) for column in columns]
    if len(named) == len(CLASS_NAMES) and not any(named):
        note = f"{path.name}: the header names no class; columns are taken in the order of the authors' code"
        return list(range(len(named))), (note,)
    for column, name in zip(columns, named, strict=True):
        check_choice(f"{path}, line 1: class", name or column, CLASS_NAMES)
    refuse_repeated(named, what="class", where=lambda number: f"{path}, line 1, column {number + 2}")
    if lacking := [name for name in CLASS_NAMES if name not in named]:
        raise InputError(f"{path}, line 1: {len(lacking)} classes have no column, first {lacking[0]!r}")
    return [named.index(name) for name in CLASS_NAMES], ()


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
