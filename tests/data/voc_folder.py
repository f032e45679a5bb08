"""A small VOCdevkit, drawn and written by code, for tests of readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

VOC_NAMES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip

Objects = Sequence[tuple[str, int]]
"""Class as VOC writes it, and its difficult flag."""

TRAINVAL: Mapping[str, Objects] = {
    "000005": [("dog", 0), ("dog", 1), ("diningtable", 1)],
    "000007": [("person", 0), ("tvmonitor", 0)],
    "000009": [],
}
TEST: Mapping[str, Objects] = {"000001": [("pottedplant", 1), ("cat", 0)], "000002": [("train", 0)]}


def write_voc(folder: Path) -> Path:
    """Write lists, class files, annotations and pictures of `TRAINVAL` and `TEST`; returns the VOC2007 folder."""
    root = folder / "VOCdevkit" / "VOC2007"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    for split, images in (("trainval", TRAINVAL), ("test", TEST)):
        write_lines(root, f"{split}.txt", list(images))
        for voc_name in VOC_NAMES:
            lines = [f"{image} {value(objects, voc_name):2d}" for image, objects in images.items()]
            write_lines(root, f"{voc_name}_{split}.txt", lines)
        for number, (image, objects) in enumerate(images.items()):
            Image.new("RGB", (20, 16), (40 * number, 90, 200)).save(root / "JPEGImages" / f"{image}.jpg")
            write_annotation(root, image, objects)
    return root


def write_lines(root: Path, name: str, lines: Sequence[str]) -> None:
    (root / "ImageSets" / "Main" / name).write_text("\n".join([*lines, ""]))


def write_annotation(root: Path, image: str, objects: Objects) -> None:
    items = "".join(f"<object><name>{name}</name><difficult>{flag}</difficult></object>" for name, flag in objects)
    (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{items}</annotation>")


def value(objects: Objects, voc_name: str) -> int:
    """As VOC writes it: 1 present, -1 absent, 0 only difficult."""
    flags = [flag for name, flag in objects if name == voc_name]
    return -1 if not flags else int(not all(flags))


def remove_class_files(root: Path, split: str) -> None:
    for voc_name in VOC_NAMES:
        (root / "ImageSets" / "Main" / f"{voc_name}_{split}.txt").unlink()
