"""Small folders of users' own data, and what was read from one in a form that is easy to compare."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fedmpt.data import own
from fedmpt.types import ImageData, Split


def load_folder(path: Path, **options: Any) -> ImageData:
    return own.load_folder(path, own.Options(**options))


def load_clients(path: Path, **options: Any) -> ImageData:
    return own.load_clients(path, own.ClientsOptions(**options))


def write_images(root: Path, *names: str) -> None:
    """A picture a name, each of another colour, so that no two files are the same."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in root.rglob("*.[pj]*g"))
        Image.new("RGB", (8, 6), (40 * number % 256, 7 * number % 256, 200)).save(path)


def write(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_csv(root: Path, *lines: str, name: str = "labels.csv") -> Path:
    return write(root, name, "".join(f"{line}\n" for line in lines))


def write_jsonl(root: Path, *rows: Mapping[str, Any], name: str = "metadata.jsonl") -> Path:
    return write(root, name, "".join(f"{json.dumps(row)}\n" for row in rows))


def write_coco(
    root: Path, images: Mapping[str, Sequence[str]], *, categories: Iterable[str], name: str = "annotations.json"
) -> Path:
    """An instances file of images with the categories that each shows."""
    ids = {category: 7 + 3 * number for number, category in enumerate(categories)}
    shown = [(number, category) for number, names in enumerate(images.values()) for category in names]
    content = {
        "images": [{"id": number, "file_name": file} for number, file in enumerate(images)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": ids[category], "bbox": [0, 0, 2, 2]}
            for number, (image, category) in enumerate(shown)
        ],
        "categories": [{"id": number, "name": category} for category, number in ids.items()],
    }
    return write(root, name, json.dumps(content))


def write_voc_annotation(root: Path, stem: str, *objects: tuple[str, int], folder: str = "Annotations") -> Path:
    items = "".join(f"<object><name>{name}</name><difficult>{flag}</difficult></object>" for name, flag in objects)
    return write(root, f"{folder}/{stem}.xml", f"<annotation><filename>{stem}.jpg</filename>{items}</annotation>")


def read_labels(split: Split, class_names: Sequence[str], root: Path) -> dict[str, dict[str, int]]:
    """Label by class, by path of the image below ``root``."""
    return {
        file.relative_to(root).as_posix(): dict(zip(class_names, row, strict=True))
        for file, row in zip(split.files, split.labels.tolist(), strict=True)
    }


def both(data: ImageData, root: Path) -> dict[str, dict[str, int]]:
    """`read_labels` of train and test together."""
    train, test = (read_labels(split, data.class_names, root) for split in (data.train, data.test))
    assert not train.keys() & test.keys()
    return train | test


def names(split: Split, root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in split.files]
