"""COCO's instances format (Lin et al., ECCV 2014), and COCO2014 in its own folder layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.data.reading import ImageFolder, Part, read_text, rows_with_labels
from fedmpt.types import PRESENT, ImageData, InputError, Split

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
_EXPECTED = "COCO instances: one JSON object with the lists images, annotations and categories"
_TYPE_NAMES = {int: "a whole number", str: "text"}
_SPACE = re.compile(r"[ \t\n\r]*")

Columns = tuple[list[Any], list[Any]]
"""The two fields of one list, in the order of `_FIELDS`."""


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

    Raises:
        InputError: if a part of the layout or an image is missing, the two files name different classes, or as
            `read_instances`.
    """
    train_json, test_json, train_images, test_images = (part.locate(path) for part in LAYOUT)
    train, test = read_instances(train_json), read_instances(test_json)
    if train.class_names != test.class_names:
        differing = sorted(set(train.class_names) ^ set(test.class_names)) or ["their order"]
        raise InputError(
            f"{test_json}: the categories differ from those of {train_json.name}: {', '.join(differing[:5])}; "
            "both must be of one release"
        )
    train_split, train_notes = _split("train", train, train_images, source=train_json, min_labels=min_labels)
    test_split, test_notes = _split("test", test, test_images, source=test_json, min_labels=min_labels)
    return ImageData("coco", train.class_names, train_split, test_split, notes=train_notes + test_notes)


def _split(
    name: str, found: Instances, folder: Path, *, source: Path, min_labels: int
) -> tuple[Split, tuple[str, ...]]:
    rows, notes = rows_with_labels(found.labels, min_labels=min_labels, split=name, where=str(source))
    files = ImageFolder(folder, follow_links=True).all([found.file_names[row] for row in rows], where=str(source))
    return Split(name, files, found.labels[rows]), notes


def read_instances(json_path: Path) -> Instances:
    """What is in each image of a COCO instances file. Image files are not looked for.

    A class is present where the image has an annotation of it, a crowd included, and absent otherwise: an image
    without annotations has no class. Boxes and outlines are not looked at and take no memory.

    Raises:
        InputError: if the file is missing or no such JSON, or an entry lacks a field, has a wrong one or comes twice.
    """
    columns = _read_columns(json_path)
    image_ids, file_names = columns["images"]
    category_ids, written_names = columns["categories"]
    class_names = [name.strip() for name in written_names]
    for key, field, values in (
        ("images", "id", image_ids),
        ("images", "file_name", file_names),
        ("categories", "id", category_ids),
        ("categories", "name", class_names),
    ):
        _refuse_empty_and_repeated(json_path, key, field, values)
    by_id = sorted(range(len(category_ids)), key=category_ids.__getitem__)
    annotated, shown = columns["annotations"]
    rows = _positions(json_path, "image_id", annotated, image_ids, "images")
    classes = _positions(json_path, "category_id", shown, [category_ids[entry] for entry in by_id], "categories")
    labels = np.zeros((len(image_ids), len(by_id)), dtype=np.int8)
    labels[rows, classes] = PRESENT
    return Instances(tuple(class_names[entry] for entry in by_id), tuple(file_names), torch.from_numpy(labels))


def _read_columns(path: Path) -> Mapping[str, Columns]:
    scanner = _Scanner(read_text(path, expected=_EXPECTED))
    columns: dict[str, Columns] = {}
    try:
        if scanner.peek() != "{":
            raise InputError(f"{path} is no JSON object; expected {_EXPECTED}")
        for key in scanner.members():
            if key in columns:
                raise InputError(f"{path}: {key} is given twice; keep one")
            if key in _FIELDS:
                columns[key] = _read_list(path, key, scanner)
            else:
                scanner.value()
        scanner.finish()
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); expected {_EXPECTED}"
        ) from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # Numbers of thousands of digits, brackets nested as deep.
        raise InputError(f"{path}: JSON that cannot be read ({error}); expected {_EXPECTED}") from error
    for key in _FIELDS:
        if key not in columns:
            raise InputError(f"{path}: {key} is missing; expected {_EXPECTED}")
    return columns


def _read_list(path: Path, key: str, scanner: _Scanner) -> Columns:
    if scanner.peek() != "[":
        raise InputError(f"{path}: {key} is no list; expected {_EXPECTED}")
    (first, first_type), (second, second_type) = _FIELDS[key].items()
    firsts: list[Any] = []
    seconds: list[Any] = []
    for number, entry in enumerate(scanner.elements()):
        # The types exactly: to Python, true is a whole number too.
        if (
            type(entry) is not dict
            or type(entry.get(first)) is not first_type
            or type(entry.get(second)) is not second_type
        ):
            raise InputError(f"{path}: {key}[{number}]: {_complaint(entry, key)}")
        firsts.append(entry[first])
        seconds.append(entry[second])
    return firsts, seconds


def _complaint(entry: Any, key: str) -> str:
    """What is wrong with an entry that is refused."""
    if type(entry) is not dict:
        return f"{_shorten(entry)} is no object with {' and '.join(_FIELDS[key])}"
    for field, kind in _FIELDS[key].items():
        if field not in entry:
            return f"{field} is missing"
        if type(entry[field]) is not kind:
            return f"{field} is {_shorten(entry[field])}, expected {_TYPE_NAMES[kind]}"
    raise AssertionError(f"nothing is wrong with {entry}")


def _shorten(value: Any) -> str:
    """As the file writes it, as far as that helps."""
    written = json.dumps(value, ensure_ascii=True)
    return written if len(written) <= 60 else f"{written[:57]}..."


def _refuse_empty_and_repeated(path: Path, key: str, field: str, values: Sequence[Any]) -> None:
    if not values:
        raise InputError(f"{path}: {key} is empty; expected one entry for each of the {key}")
    if field in ("file_name", "name"):
        for number, value in enumerate(values):
            if not value.isprintable() or not value.strip():
                raise InputError(
                    f"{path}: {key}[{number}]: {field} {_shorten(value)} is no name; write visible letters"
                )
    if len(set(values)) == len(values):
        return
    seen: dict[Any, int] = {}
    for number, value in enumerate(values):
        if value in seen:
            raise InputError(
                f"{path}: {key}[{number}]: {field} {_shorten(value)} is that of {key}[{seen[value]}] too; remove one"
            )
        seen[value] = number


def _positions(
    path: Path, field: str, values: Sequence[int], known: Sequence[int], where: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where in ``known`` each of the annotations' ``values`` stands."""
    position = {value: number for number, value in enumerate(known)}
    found = np.fromiter((position.get(value, -1) for value in values), dtype=np.int64, count=len(values))
    if unknown := np.flatnonzero(found < 0).tolist():
        first, others = unknown[0], len(unknown) - 1
        raise InputError(
            f"{path}: annotations[{first}]: {field} {_shorten(values[first])} is not in {where}"
            f"{f', nor are {others} others' if others else ''}; add it there or remove the annotation"
        )
    return found


class _RepeatedKeyError(ValueError):
    """Which of two values of one key counts is anyone's guess."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _RepeatedKeyError("An object with the same key twice")
    return made


class _Scanner:
    """Walks through JSON text without building all of it: COCO's outlines would take gigabytes as Python numbers.

    Raises `json.JSONDecodeError` where the text is not JSON.
    """

    def __init__(self, text: str) -> None:
        self._decode = json.JSONDecoder(object_pairs_hook=_object).raw_decode
        self._text = text
        self._at = 0

    def peek(self) -> str:
        """The next symbol, or nothing at the end."""
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # It matches nothing at least.
        return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value as a whole."""
        self.peek()
        try:
            value, self._at = self._decode(self._text, self._at)
        except _RepeatedKeyError as error:
            raise json.JSONDecodeError(str(error), self._text, self._at) from None
        return value

    def elements(self) -> Iterator[Any]:
        """The values of the list that comes next."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; after each one the caller takes its value."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", self._text, self._at)
            key = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def finish(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise json.JSONDecodeError("Extra data", self._text, self._at)

    def _take(self, symbols: str) -> str:
        symbol = self.peek()
        if not symbol or symbol not in symbols:
            expected = " or ".join(repr(one) for one in symbols)
            raise json.JSONDecodeError(f"Expecting {expected}", self._text, self._at)
        self._at += 1
        return symbol
