"""PASCAL VOC 2007 (Everingham et al., IJCV 2010) in its own folder layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.datasets.benchmark import Noted, Part, image_data, make_split
from fedmpt.data.finding import ImageFolder
from fedmpt.data.reading import check_choice, closest, label_matrix, read_lines, read_names, refuse_repeated, some
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, ImageData, InputError

Difficult = Literal["unknown", "absent"]

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table",
    "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
"""As they stand in prompts. VOC's files and annotations write them without spaces."""

VOC_NAMES = tuple(name.replace(" ", "") for name in CLASS_NAMES)

_LISTS = Part(
    ("VOC2007/ImageSets/Main", "ImageSets/Main"),
    "the list of each split, trainval.txt and test.txt, and its class files",
    is_folder=True,
    inside="dog_trainval.txt",
)
_IMAGES = Part(("VOC2007/JPEGImages", "JPEGImages"), "all images", is_folder=True, inside="000005.jpg")
_ANNOTATIONS = Part(
    ("VOC2007/Annotations", "Annotations"),
    "boxes, read for a split that has no class files",
    is_folder=True,
    inside="000005.xml",
    required=False,
)

LAYOUT = (_LISTS, _IMAGES, _ANNOTATIONS)
"""As VOCdevkit unpacks. Officially there are 5,011 images in trainval and 4,952 in test, of 20 classes."""


def load_voc(path: Path, *, difficult: Difficult = "unknown") -> ImageData:
    """VOC2007 from ``path``, a VOCdevkit folder or the VOC2007 folder in it: trainval to train, test to test.

    Labels come from ImageSets/Main/CLASS_SPLIT.txt, or from Annotations for a split that has no class files.
    ``difficult`` says what a class is in an image that shows only difficult objects of it: ``"unknown"`` leaves
    it out of loss and scores, as VOC's own evaluation does, ``"absent"`` makes it a negative.

    Raises InputError if the layout, a line of a file, an annotation or an image file is wrong or missing.
    """
    check_choice("difficult", difficult, get_args(Difficult))
    lists, images = _LISTS.locate(path), ImageFolder(_IMAGES.locate(path))

    def split(name: str, voc_split: str) -> Noted:
        source = lists / f"{voc_split}.txt"
        ids = read_names(source, what="image id")
        labels = _labels(path, source, ids)
        if difficult == "absent":
            labels = labels.masked_fill(labels == UNKNOWN, ABSENT)
        return make_split(name, [f"{image}.jpg" for image in ids], labels, images, source=source)

    return image_data("voc", path, CLASS_NAMES, split("train", "trainval"), split("test", "test"))


def _labels(path: Path, source: Path, ids: Sequence[str]) -> Int8[Tensor, "images C"]:
    voc_split = source.stem
    class_files = [source.with_name(f"{voc_name}_{voc_split}.txt") for voc_name in VOC_NAMES]
    missing = [file.name for file in class_files if not file.is_file()]
    if not missing:
        return torch.stack([_class_column(file, ids) for file in class_files], dim=1)
    if len(missing) < len(class_files):
        raise InputError(
            f"{source.parent}: {len(missing)} of {len(class_files)} class files of {voc_split} are missing, first "
            f"{missing[0]}; add them, or remove the other *_{voc_split}.txt to have the labels read from Annotations"
        )
    folder = _ANNOTATIONS.find(path)
    if folder is None:
        raise InputError(
            f"{path}: Annotations is missing, and so are the class files in ImageSets/Main; one of them must exist"
        )
    return label_matrix([read_annotation(folder / f"{image}.xml", _class_name) for image in ids], VOC_NAMES)


def _class_column(path: Path, ids: Sequence[str]) -> Int8[Tensor, "images"]:
    values = {"1": PRESENT, "-1": ABSENT, "0": UNKNOWN}
    rows = [line.split() for line in read_lines(path, expected="an image id and 1, -1 or 0 a line")]
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or row[1] not in values:
            where, line = f"{path}, line {number}", " ".join(row)
            raise InputError(f"{where}: {line!r}; expected an id and 1 (present), -1 (absent) or 0 (only difficult)")
    refuse_repeated([image for image, _ in rows], what="image id", where=lambda at: f"{path}, line {at + 1}")
    labels = {image: values[value] for image, value in rows}
    if differing := sorted(labels.keys() ^ set(ids)):
        raise InputError(f"{path}: its images are not those of the split's own list: {some(differing, limit=5)}")
    return torch.tensor([labels[image] for image in ids], dtype=torch.int8)


def _class_name(word: str, where: str) -> str:
    name = word.strip()
    if name not in VOC_NAMES:
        raise InputError(f"{where}: unknown class {name!r}{closest(name, VOC_NAMES)}")
    return name


def read_annotation(path: Path, class_name: Callable[[str, str], str]) -> dict[str, int]:
    """`PRESENT` for each class that an annotation shows, `UNKNOWN` where all its objects are difficult.

    ``class_name`` makes a class of a word in the file, given the place of the word for its messages.

    Raises InputError if the file is no such XML, or as ``class_name``.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; expected an annotation in VOC's format") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected an annotation in VOC's format") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is no well-formed XML: {error}; save it again in VOC's format") from error
    if root.tag != "annotation":
        raise InputError(f"{path}: the outermost element is {root.tag[:60]!r}; expected annotation, as in VOC's format")
    labels: dict[str, int] = {}
    for number, item in enumerate(root.iter("object"), start=1):
        where = f"{path}, object {number}"
        name = class_name(item.findtext("name") or "", where)
        difficult = (item.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise InputError(f"{where}: difficult is {difficult!r}; expected 0 or 1")
        labels[name] = max(PRESENT if difficult == "0" else UNKNOWN, labels.get(name, UNKNOWN))
    return labels
