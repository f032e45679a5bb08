"""A small VOCdevkit whose pictures show their classes as coloured blocks, large enough to be divided among clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

COLOURS = {"dog": (220, 40, 40), "cat": (40, 200, 60), "person": (50, 60, 220), "tvmonitor": (230, 220, 50)}

Objects = tuple[str, ...]

LABEL_SETS: tuple[Objects, ...] = (
    ("dog",),
    ("cat",),
    ("person",),
    ("tvmonitor",),
    ("dog", "person"),
    ("cat", "tvmonitor"),
    ("person", "tvmonitor"),
    ("dog", "cat", "person"),
)


def write_tiny_voc(folder: Path, *, label_sets: Sequence[Objects] = LABEL_SETS, repeats: int = 3) -> Path:
    """Write ``repeats`` training images and one test image for each label set; returns the VOCdevkit folder."""
    root = folder / "VOC2007"
    for name in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    for split, first, sets in (("trainval", 0, list(label_sets) * repeats), ("test", 500, list(label_sets))):
        names = [f"{first + number:06d}" for number in range(len(sets))]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, (name, objects) in enumerate(zip(names, sets, strict=True)):
            picture(objects, shade=8 * (number // len(label_sets))).save(root / "JPEGImages" / f"{name}.jpg")
            write_annotation(root, name, objects)
    return folder


def picture(objects: Sequence[str], *, shade: int = 0) -> Image.Image:
    """One vertical stripe for each object on grey; ``shade`` makes pictures of the same objects differ."""
    image = Image.new("RGB", (40, 32), (100 + shade, 100, 100))
    for place, name in enumerate(objects):
        image.paste(COLOURS[name], (4 + 12 * place, 4, 14 + 12 * place, 28))
    return image


def write_annotation(root: Path, image: str, objects: Sequence[str]) -> None:
    items = "".join(f"<object><name>{name}</name><difficult>0</difficult></object>" for name in objects)
    (root / "Annotations" / f"{image}.xml").write_text(f"<annotation>{items}</annotation>")
