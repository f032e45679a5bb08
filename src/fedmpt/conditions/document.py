"""The files in which texts come: lists of classes, and JSON that is versioned and says where it came from.

``{"format": 1, "kind": KIND, "name": "voc2007", "provenance": {...}, KIND: ...}``; name and provenance may be left out.
What is wrong in a file is an InputError that names the file, the place and the value.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.files import read_json, write_atomically
from fedmpt.types import InputError

FORMAT = 1
MAX_TEXT = 200
"""Characters of one text or name. CLIP's prompts end at 77 tokens."""
shortened = reprlib.repr
"""A value from a file, for messages: it may be long."""


def find_file(spec: str, folder: Path, shipped: Sequence[str], *, option: str, example: str) -> Path:
    """The file of this name in ``folder``, which has those that are ``shipped``, or else the one at this path."""
    path = folder / f"{spec}.json" if spec in shipped else Path(os.path.expanduser(spec))
    if not os.path.isfile(path):  # Unlike Path.is_file, it takes names that no file can have.
        sets = f"no such file and no shipped set; the sets are {', '.join(shipped)}"
        raise InputError(f"{option} {shortened(spec)}: {sets}, and a file looks like {example}")
    return path


def read_document(path: Path, *, kind: str, holds: type, example: str) -> dict[str, Any]:
    """A file of ``kind`` that holds a list or an object, with ``name`` (the file's unless given) and ``provenance``."""
    value = read_json(path)
    found = {"name": path.stem, "provenance": {}, **value} if isinstance(value, dict) else {}
    for key, right in (
        ("format", found.get("format") == FORMAT),
        ("kind", found.get("kind") == kind),
        (kind, isinstance(found.get(kind), holds) and found[kind]),
        ("name", is_text(found.get("name"))),
        ("provenance", isinstance(found.get("provenance"), dict)),
    ):
        if not right:
            given = f"is {shortened(found[key])}" if key in found else "is missing"
            raise InputError(f"{path}: {key} {given}; expected a file like {example}")
    return found


def write_document(path: Path, kind: str, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write a document of ``kind`` with these keys beside its head; its folder is made. All is written or nothing."""
    whole = {"format": FORMAT, "kind": kind, **content}
    text = json.dumps(whole, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(errors="backslashreplace"))  # Half a surrogate pair: as JSON escapes it.
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def read_class_list(path: Path) -> tuple[str, ...]:
    """Names of classes: a JSON list, or one a line; blank lines, and lines that begin with ``#``, are passed over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no file of text ({error}); give one with a class name a line") from error
    if path.suffix.lower() == ".json" or text.lstrip().startswith("["):
        names = listed_texts(f"{path}", read_json(path))
    else:
        lines = ((f"{path}, line {number}", line.strip()) for number, line in enumerate(text.split("\n"), start=1))
        names = different_texts((where, line) for where, line in lines if line and not line.startswith("#"))
    if len(names) < 2:
        raise InputError(f"{path}: at least two classes are needed, got {len(names)}")
    return names


def listed_texts(where: str, values: Any) -> tuple[str, ...]:
    """A list of different texts; else an InputError."""
    if not isinstance(values, list):
        raise InputError(f'{where}: {shortened(values)} is no list; write ["...", "..."]')
    return different_texts((f"{where}, number {number}", value) for number, value in enumerate(values, start=1))


def different_texts(found: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """Texts, each with where it stands; an InputError for one that is no text, or that stands twice."""
    texts: dict[str, None] = {}
    for where, text in found:
        check_text(where, text)
        if text in texts:
            raise InputError(f"{where}: {text!r} is given twice; keep one")
        texts[text] = None
    return tuple(texts)


def check_text(where: str, value: Any, *, longest: int = MAX_TEXT) -> None:
    """Raises InputError for what is no text, naming ``where`` it stands."""
    if not is_text(value, longest=longest):
        raise InputError(f"{where} is {shortened(value)}; expected one line of 1 to {longest} printable characters")


def is_text(value: Any, *, longest: int = MAX_TEXT) -> bool:
    """Whether a value can stand in a prompt: one line, not blank, not absurdly long, without control characters."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= longest and value.isprintable()
