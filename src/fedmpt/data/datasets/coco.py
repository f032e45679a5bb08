"""COCO's instances format (Lin et al., ECCV 2014), and COCO2014 in its own folder layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.datasets.benchmark import Noted, Part, image_data, make_split
from fedmpt.data.finding import ImageFolder
from fedmpt.data.reading import parse_json, read_text, refuse_repeated, some
from fedmpt.types import PRESENT, ImageData, InputError

LAYOUT = (
    Part(("annotations/instances_train2014.json",), "labels of train"),
    Part(("annotations/instances_val2014.json",), "labels of test"),
    Part(("train2014",), "the 82,783 images of train", is_folder=True, inside="COCO_train2014_000000000009.jpg"),
    Part(("val2014",), "the 40,504 images of test", is_folder=True, inside="COCO_val2014_000000000042.jpg"),
)
"""As the official archives unpack; there are 80 classes."""

_FIELDS: Mapping[str, Mapping[str, type]] = {
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "category_id": int},
    "categories": {"id": int, "name": str},
}
_KEPT = {*_FIELDS, *(field for fields in _FIELDS.values() for field in fields)}
_EXPECTED = "COCO instances: one JSON object with the lists images, annotations and categories"


@dataclass(frozen=True)
class Instances:
    """The labels of one instances file: ``class_names`` by category id, ``file_names`` and rows as it lists images."""

    class_names: tuple[str, ...]
    file_names: tuple[str, ...]
    labels: Int8[Tensor, "images C"]


def load_coco(path: Path, *, min_labels: int = 0) -> ImageData:
    """COCO2014 from ``path``, the folder that holds `LAYOUT`: train2014 to train, val2014 to test.

    What is present is said at `read_instances`. ``min_labels`` keeps, in both splits, only images with at least so
    many classes; the published code of FedMPT takes 5. It also leaves crowds out, which are present here.

    Raises InputError if a part of the layout or an image is missing, the two files name different classes, or as
    `read_instances`.
    """
    train_json, test_json, train_images, test_images = (part.locate(path) for part in LAYOUT)
    train, test = read_instances(train_json), read_instances(test_json)
    if train.class_names != test.class_names:
        differing = some(sorted(set(train.class_names) ^ set(test.class_names)), limit=5) or "their order"
        place = f"{test_json}: the categories differ from those of {train_json.name}"
        raise InputError(f"{place}: {differing}; both must be of one release")

    def split(name: str, found: Instances, folder: Path, source: Path) -> Noted:
        images = ImageFolder(folder)
        return make_split(name, found.file_names, found.labels, images, source=source, min_labels=min_labels)

    parts = (split("train", train, train_images, train_json), split("test", test, test_images, test_json))
    return image_data("coco", path, train.class_names, *parts)


def read_instances(json_path: Path) -> Instances:
    """What is in each image of a COCO instances file. Image files are not looked for.

    A class is present where the image has an annotation of it, a crowd included, and absent otherwise: an image
    without annotations has no class. Boxes and outlines are not looked at and take no memory.

    Raises InputError if the file is missing or no such JSON, or an entry lacks a field, has a wrong one or comes twice.
    """
    entries = _read_json(json_path)
    (image_ids, file_names), (annotated, shown), (category_ids, written_names) = (
        [_column(json_path, key, field, entries[key]) for field in fields] for key, fields in _FIELDS.items()
    )
    class_names = [name.strip() for name in written_names]
    for key, field, values in (
        ("images", "id", image_ids),
        ("images", "file_name", file_names),
        ("categories", "id", category_ids),
        ("categories", "name", class_names),
    ):
        if not values:
            raise InputError(f"{json_path}: {key} is empty; expected one entry for each of the {key}")
        if "" in values:
            raise InputError(f"{json_path}: {key}[{values.index('')}]: {field} is empty; expected a name")
        refuse_repeated(values, what=field, where=partial("{}: {}[{}]".format, json_path, key))
    by_id = sorted(zip(category_ids, class_names, strict=True))
    rows = _positions(json_path, "image_id", annotated, image_ids, "images")
    columns = _positions(json_path, "category_id", shown, [number for number, _ in by_id], "categories")
    labels = np.zeros((len(image_ids), len(by_id)), dtype=np.int8)
    labels[rows, columns] = PRESENT
    return Instances(tuple(name for _, name in by_id), tuple(file_names), torch.from_numpy(labels))


def _read_json(path: Path) -> Mapping[str, list[Any]]:
    """The three lists, each entry with the fields that are needed alone."""

    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Called when an object ends: its outline goes before the next is read. All together would take gigabytes.
        return {key: value for key, value in pairs if key in _KEPT}

    content = parse_json(read_text(path, expected=_EXPECTED), path=path, expected=_EXPECTED, object_pairs_hook=kept)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no JSON object; expected {_EXPECTED}")
    for key in _FIELDS:
        if not isinstance(content.get(key), list):
            state = "no list" if key in content else "missing"
            raise InputError(f"{path}: {key} is {state}; expected {_EXPECTED}")
    return content


def _column(path: Path, key: str, field: str, entries: Sequence[Any]) -> list[Any]:
    """One field of all entries of a list."""
    kind = _FIELDS[key][field]
    for number, entry in enumerate(entries):
        # The types exactly: to Python, true is a whole number too.
        if isinstance(entry, dict) and type(entry.get(field)) is kind:
            continue
        written = json.dumps(entry.get(field) if isinstance(entry, dict) else entry)
        written = written if len(written) <= 60 else f"{written[:57]}..."
        complaint = f"{field} is {written}, expected {'a whole number' if kind is int else 'text'}"
        if not isinstance(entry, dict):
            complaint = f"{written} is no object with {' and '.join(_FIELDS[key])}"
        elif field not in entry:
            complaint = f"{field} is missing"
        raise InputError(f"{path}: {key}[{number}]: {complaint}")
    return [entry[field] for entry in entries]


def _positions(path: Path, field: str, values: Sequence[int], known: Sequence[int], where: str) -> list[int]:
    """Where in ``known`` each of the annotations' ``values`` stands."""
    position = {value: number for number, value in enumerate(known)}
    if unknown := [number for number, value in enumerate(values) if value not in position]:
        others = f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise InputError(
            f"{path}: annotations[{unknown[0]}]: {field} {values[unknown[0]]} is not in {where}{others}; "
            "add it there or remove the annotation"
        )
    return [position[value] for value in values]
