"""Names of classes from a file: one a line, or a JSON list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmpt.conditions.document import TEXT, is_text, shortened
from fedmpt.files import read_json
from fedmpt.types import InputError

MAX_BYTES = 8 * 2**20


def read_class_list(path: Path) -> tuple[str, ...]:
    """Names in the order of the file; blank lines, and lines that begin with ``#``, are passed over.

    A file that begins with ``[``, or whose name ends in ``.json``, is a JSON list.

    Raises:
        InputError: if there is no such file, it is huge or no text, has fewer than two names, one twice, or one that
            cannot stand in a prompt.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} is no file; give one with a class name a line, or a JSON list of names")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path} has {size} bytes, more than {MAX_BYTES}; expected a short list of class names")
    found = _from_json(path) if _is_json(path) else _from_lines(path)
    check_names([name for _, name in found], places=[place for place, _ in found])
    return tuple(name for _, name in found)


def check_names(names: Sequence[object], *, places: Sequence[str]) -> None:
    """Raises InputError for names, each from one of ``places``, that are too few, not different or no text."""
    first: dict[object, str] = {}
    for place, name in zip(places, names, strict=True):
        if not is_text(name):
            raise InputError(f"{place}: class name {shortened(name)}; expected {TEXT}")
        if name in first:
            raise InputError(f"{place}: class {name!r} stands in {first[name]} already; keep one")
        first[name] = place
    if len(names) < 2:
        raise InputError(f"{places[0] if places else 'class list'}: at least two classes are needed, got {len(names)}")


def _is_json(path: Path) -> bool:
    if path.suffix.lower() == ".json":
        return True
    try:
        with path.open("rb") as file:
            start = file.read(1000)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    return start.lstrip().startswith(b"[")


def _from_json(path: Path) -> list[tuple[str, Any]]:
    value = read_json(path)
    if not isinstance(value, list):
        raise InputError(f'{path}: {shortened(value)} is no list; write ["cat", "dog"]')
    return [(f"{path}, name {number}", name) for number, name in enumerate(value, start=1)]


def _from_lines(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(f"{path}, line {number}", line) for number, line in lines if line and not line.startswith("#")]
