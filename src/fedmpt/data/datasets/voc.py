"""PASCAL VOC 2007 (Everingham et al., IJCV 2010) in its own folder layout."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.reading import Part, closest
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, ImageData, InputError, Split

Difficult = Literal["unknown", "absent"]

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table",
    "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
"""As they stand in prompts. VOC's files and annotations write them without spaces."""

VOC_NAMES = tuple(name.replace(" ", "") for name in CLASS_NAMES)

LAYOUT = (
    Part(
        ("VOC2007/ImageSets/Main", "ImageSets/Main"),
        "the list of each split, trainval.txt and test.txt, and its class files",
        is_folder=True,
        inside="dog_trainval.txt",
    ),
    Part(("VOC2007/JPEGImages", "JPEGImages"), "all images", is_folder=True, inside="000005.jpg"),
    Part(
        ("VOC2007/Annotations", "Annotations"),
        "boxes, read for a split that has no class files",
        is_folder=True,
        inside="000005.xml",
        required=False,
    ),
)
"""As VOCdevkit unpacks. Officially there are 5,011 images in trainval and 4,952 in test, of 20 classes."""

_LAYOUT = "VOC2007/ImageSets/Main, VOC2007/JPEGImages and, where class files are missing, VOC2007/Annotations"


def load_voc(path: Path, *, difficult: Difficult = "unknown") -> ImageData:
    """VOC2007 from ``path``, a VOCdevkit folder or the VOC2007 folder in it: trainval to train, test to test.

    Labels come from ImageSets/Main/CLASS_SPLIT.txt, or from Annotations for a split that has no class files.
    ``difficult`` says what a class is in an image that shows only difficult objects of it: ``"unknown"`` leaves
    it out of loss and scores, as VOC's own evaluation does, ``"absent"`` makes it a negative.

    Raises:
        InputError: if the layout, a line of a file, an annotation or an image file is wrong or missing.
    """
    if difficult not in get_args(Difficult):
        raise InputError(f"difficult is {difficult!r}; it may be: {', '.join(get_args(Difficult))}")
    root = _voc2007(path)
    only_difficult = UNKNOWN if difficult == "unknown" else ABSENT
    train = _load_split(root, "trainval", name="train", only_difficult=only_difficult)
    test = _load_split(root, "test", name="test", only_difficult=only_difficult)
    if both := sorted(set(train.files) & set(test.files)):
        raise InputError(
            f"{root}: {len(both)} images are in trainval.txt and test.txt, first {both[0].stem}; take them out of one"
        )
    return ImageData(name="voc", class_names=CLASS_NAMES, train=train, test=test)


def _voc2007(path: Path) -> Path:
    for root in (path / "VOC2007", path):
        if (root / "ImageSets" / "Main").is_dir() and (root / "JPEGImages").is_dir():
            return root
    state = "has another layout" if path.is_dir() else "is no folder"
    raise InputError(f"{path} {state}; expected a VOCdevkit folder with {_LAYOUT}, or the VOC2007 folder itself")


def _load_split(root: Path, voc_split: str, *, name: str, only_difficult: int) -> Split:
    sets = root / "ImageSets" / "Main"
    ids = _read_ids(sets / f"{voc_split}.txt")
    files = _image_files(root / "JPEGImages", ids, sets / f"{voc_split}.txt")
    class_files = [sets / f"{voc_name}_{voc_split}.txt" for voc_name in VOC_NAMES]
    missing = [file.name for file in class_files if not file.is_file()]
    if len(missing) == len(class_files):
        labels = _labels_from_annotations(root / "Annotations", ids, only_difficult=only_difficult)
    elif missing:
        raise InputError(
            f"{sets}: {len(missing)} of {len(class_files)} class files of {voc_split} are missing, first {missing[0]}; "
            f"add them, or remove the other *_{voc_split}.txt to have the labels read from Annotations"
        )
    else:
        labels = _labels_from_class_files(class_files, ids, only_difficult=only_difficult)
    return Split(name=name, files=files, labels=labels)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; expected {_LAYOUT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}; restore it from the VOC archive") from error


def _read_ids(path: Path) -> dict[str, int]:
    """Row of each image id, in the order of the file."""
    ids: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 1 or "/" in words[0] or "\\" in words[0]:
            raise InputError(f"{path}, line {number}: {line!r} is no image id; expected one id such as 000005")
        if words[0] in ids:
            raise InputError(f"{path}, line {number}: image id {words[0]!r} is listed twice; remove one of the lines")
        ids[words[0]] = len(ids)
    if not ids:
        raise InputError(f"{path} lists no images; expected one image id a line")
    return ids


def _image_files(folder: Path, ids: Mapping[str, int], source: Path) -> tuple[Path, ...]:
    # One listing: asking the file system for each image is slow on network disks.
    present = set(os.listdir(folder))
    missing = [f"{image}.jpg" for image in ids if f"{image}.jpg" not in present]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(ids)} images listed in {source} are missing, first {missing[0]}; "
            "unpack the images again or take their ids out of the lists"
        )
    return tuple(folder / f"{image}.jpg" for image in ids)


def _labels_from_class_files(
    class_files: Sequence[Path], ids: Mapping[str, int], *, only_difficult: int
) -> Int8[Tensor, "images C"]:
    labels = torch.empty(len(ids), len(class_files), dtype=torch.int8)
    for column, path in enumerate(class_files):
        labels[:, column] = torch.tensor(_class_column(path, ids, only_difficult=only_difficult), dtype=torch.int8)
    return labels


def _class_column(path: Path, ids: Mapping[str, int], *, only_difficult: int) -> list[int]:
    values = {"1": PRESENT, "-1": ABSENT, "0": only_difficult}
    column: list[int | None] = [None] * len(ids)
    for number, line in enumerate(_read_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) != 2:
            raise InputError(f"{where}: {line!r} is malformed; expected an image id and 1, -1 or 0")
        image, value = words
        if image not in ids:
            raise InputError(f"{where}: image id {image!r} is not in the split's own list; remove it or add it there")
        if value not in values:
            raise InputError(f"{where}: value {value!r}; expected 1 (present), -1 (absent) or 0 (only difficult)")
        if column[ids[image]] is not None:
            raise InputError(f"{where}: image id {image!r} is listed twice; remove one of the lines")
        column[ids[image]] = values[value]
    complete = [value for value in column if value is not None]
    if len(complete) < len(ids):
        first = next(image for image, row in ids.items() if column[row] is None)
        raise InputError(
            f"{path}: {len(ids) - len(complete)} images of the split have no line, first {first!r}; add them"
        )
    return complete


def _labels_from_annotations(folder: Path, ids: Mapping[str, int], *, only_difficult: int) -> Int8[Tensor, "images C"]:
    if not folder.is_dir():
        raise InputError(f"{folder} is missing, and so are the class files in ImageSets/Main; one of them must exist")
    present = set(os.listdir(folder))
    missing = [f"{image}.xml" for image in ids if f"{image}.xml" not in present]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(ids)} annotations are missing, first {missing[0]}; unpack them again"
        )
    rows = [_annotation_row(folder / f"{image}.xml", only_difficult=only_difficult) for image in ids]
    return torch.tensor(rows, dtype=torch.int8)


def _annotation_row(path: Path, *, only_difficult: int) -> list[int]:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise InputError(f"{path} is no well-formed XML: {error}; restore it from the VOC archive") from error
    row = [ABSENT] * len(VOC_NAMES)
    for number, item in enumerate(root.iter("object"), start=1):
        where = f"{path}, object {number}"
        column = _class_index(where, (item.findtext("name") or "").strip())
        difficult = (item.findtext("difficult") or "0").strip()
        if difficult not in ("0", "1"):
            raise InputError(f"{where}: difficult is {difficult!r}; expected 0 or 1")
        if difficult == "0":
            row[column] = PRESENT
        elif row[column] != PRESENT:
            row[column] = only_difficult
    return row


def _class_index(where: str, name: str) -> int:
    if name not in VOC_NAMES:
        hint = closest(name, VOC_NAMES) or f"; expected one of: {', '.join(VOC_NAMES)}"
        raise InputError(f"{where}: unknown class {name!r}{hint}")
    return VOC_NAMES.index(name)
