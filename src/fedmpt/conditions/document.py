"""The JSON files in which texts come: versioned, of one kind, with a note of where they came from.

``{"format": 1, "kind": KIND, "name": "voc2007", "provenance": {...}, KIND: ...}``; name and provenance may be left out,
and so may keys that only one kind knows.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmpt.files import read_json, write_atomically
from fedmpt.types import InputError

FORMAT = 1
MAX_BYTES = 8 * 2**20
"""The largest shipped list has 20 KB; something as large as this is no list of texts."""
MAX_TEXT = 200
"""Characters of one text or name. CLIP's prompts end at 77 tokens."""
TEXT = f"one line of 1 to {MAX_TEXT} printable characters"
"""What `is_text` asks for, in messages."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


@dataclass(frozen=True)
class Document:
    """A file whose head was found right: ``content`` is what stands under its kind, not looked at yet.

    ``extra`` holds those of the kind's own optional keys that are given, not looked at either.
    """

    name: str
    provenance: Mapping[str, Any]
    content: Any
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_document(
    path: Path, *, kind: str, example: str, optional: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> Document:
    """The document of ``kind`` in a file; ``example`` shows a whole one in messages.

    ``optional`` are keys that this kind may have beside those of all.

    Raises:
        InputError: if there is no such file, it is huge or no JSON, a key is given twice, or the head is not that of a
            document of this format and kind.
    """
    value = _parsed(path, example=example, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected one JSON object, like {example}")
    _check_head(path, value, kind=kind, example=example, optional=optional)
    name, provenance = value.get("name", path.stem), value.get("provenance", {})
    if not is_text(name):
        raise InputError(f"{path}: name is {shortened(name)}; expected {TEXT}")
    if not isinstance(provenance, dict):
        raise InputError(
            f"{path}: provenance is {shortened(provenance)}; expected an object that says who made the texts, when, how"
        )
    return Document(name, provenance, value[kind], {key: value[key] for key in optional if key in value})


def write_document(
    path: Path,
    kind: str,
    content: Mapping[str, Any],
    *,
    remedy: str,
    indent: int | None = 2,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Write a document of ``kind`` with these keys beside its head; its folder is made. All is written or nothing.

    Letters stay as they are, for people; half a surrogate pair becomes the escape that JSON has for it.

    Raises:
        InputError: if it holds what JSON does not, would be too large to be read (``remedy`` says what to do then), or
            cannot be written.
    """
    try:
        text = json.dumps(
            {"format": FORMAT, "kind": kind, **content}, indent=indent, allow_nan=False, ensure_ascii=False
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: provenance cannot be written as JSON ({error})") from error
    whole = (text + "\n").encode(errors="backslashreplace")
    if len(whole) > max_bytes:
        raise InputError(f"{path} would have {len(whole)} bytes, more than {max_bytes}; {remedy}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, whole)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def is_text(value: Any, *, longest: int = MAX_TEXT) -> bool:
    """Whether a value can stand in a prompt: one line, not blank, not absurdly long, without control characters."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= longest and value.isprintable()


def shortened(value: Any) -> str:
    """A value from a file, for messages: it may be long, or nested too deep for `repr`."""
    return _SHORT.repr(value)


def _parsed(path: Path, *, example: str, max_bytes: int) -> Any:
    if not os.path.isfile(path):  # Unlike Path.is_file, it takes names that no file can have.
        raise InputError(f"{path} is no file; expected one like {example}")
    if (size := path.stat().st_size) > max_bytes:
        raise InputError(f"{path} has {size} bytes, more than {max_bytes}; expected a short file like {example}")
    read_json(path)  # Says what is wrong with a file that is no JSON.

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:  # JSON takes the last one and loses the others.
                raise InputError(f"{path}: {shortened(key)} is given twice; keep one")
            found[key] = value
        return found

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except RecursionError as error:  # `unique` needs a little more of the stack than reading did.
        raise InputError(f"{path}: JSON that cannot be read ({error})") from error


def _check_head(path: Path, value: Mapping[str, Any], *, kind: str, example: str, optional: Sequence[str]) -> None:
    known = ("format", "kind", "name", "provenance", *optional, kind)
    if "kind" in value and value["kind"] != kind:
        raise InputError(f"{path}: kind is {shortened(value['kind'])}, expected {kind!r}; give a file like {example}")
    if lacking := [key for key in ("format", "kind", kind) if key not in value]:
        raise InputError(f"{path}: {lacking[0]!r} is missing; expected a file like {example}")
    if type(value["format"]) is not int or value["format"] != FORMAT:  # In Python, `True` equals 1.
        raise InputError(f"{path}: format is {shortened(value['format'])}; this version reads format {FORMAT}")
    if unknown := [key for key in value if key not in known]:
        raise InputError(f"{path}: unknown key {shortened(unknown[0])}; known are: {', '.join(known)}")
