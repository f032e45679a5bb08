"""The JSON files in which texts come: versioned, of one kind, with a note of where they came from.

``{"format": 1, "kind": KIND, "name": "voc2007", "provenance": {...}, KIND: ...}``; name and provenance may be left out.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmpt.files import read_json, write_atomically
from fedmpt.types import InputError

FORMAT = 1
MAX_TEXT = 200
"""Characters of one text or name. CLIP's prompts end at 77 tokens."""
TEXT = f"one line of 1 to {MAX_TEXT} printable characters"
"""What `is_text` asks for, in messages."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


def find_file(spec: str, folder: Path, shipped: Sequence[str], *, option: str, example: str) -> Path:
    """The file of this name in ``folder``, which has those that are ``shipped``, or else the one at this path.

    Raises:
        InputError: if there is neither, naming the ``option`` and how a file looks.
    """
    if spec in shipped:
        return folder / f"{spec}.json"
    path = Path(os.path.expanduser(spec))
    if not os.path.isfile(path):  # Unlike Path.is_file, it takes names that no file can have.
        raise InputError(
            f"{option} {shortened(spec)}: no such file and no shipped set; the sets are {', '.join(shipped)}, paths "
            f"are relative to the folder that the command runs in, and a file looks like {example}"
        )
    return path


def read_document(path: Path, *, kind: str, example: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """A file of ``kind``, its head checked, with ``name`` (the file's unless given) and ``provenance``.

    ``optional`` are keys that this kind may have beside those of all; ``example`` shows a whole file in messages.

    Raises:
        InputError: if it cannot be read, is no JSON, or the head is not that of a document of this format and kind.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; expected one like {example}")
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected one JSON object, like {example}")
    for key, expected in (("format", FORMAT), ("kind", kind)):
        if value.get(key) != expected:
            given = f"is {shortened(value[key])}, expected {expected!r}" if key in value else "is missing"
            raise InputError(f"{path}: {key} {given}; give a file like {example}")
    known = ("format", "kind", "name", "provenance", *optional, kind)
    if kind not in value:
        raise InputError(f"{path}: {kind} is missing; give a file like {example}")
    if unknown := value.keys() - set(known):
        raise InputError(f"{path}: unknown key {shortened(min(unknown))}; known are: {', '.join(known)}")
    found = {"name": path.stem, "provenance": {}, **value}
    check_text(f"{path}: name", found["name"])
    if not isinstance(found["provenance"], dict):
        raise InputError(f"{path}: provenance is {shortened(found['provenance'])}; expected an object")
    return found


def write_document(path: Path, kind: str, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write a document of ``kind`` with these keys beside its head; its folder is made. All is written or nothing.

    Raises:
        InputError: if it cannot be written.
    """
    whole = {"format": FORMAT, "kind": kind, **content}
    text = json.dumps(whole, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(errors="backslashreplace"))  # Half a surrogate pair: as JSON escapes it.
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another place") from error


def is_text(value: Any, *, longest: int = MAX_TEXT) -> bool:
    """Whether a value can stand in a prompt: one line, not blank, not absurdly long, without control characters."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= longest and value.isprintable()


def check_text(where: str, value: Any, *, longest: int = MAX_TEXT) -> None:
    """Raises InputError for what is no text, naming ``where`` it stands."""
    if not is_text(value, longest=longest):
        raise InputError(f"{where} is {shortened(value)}; expected one line of 1 to {longest} printable characters")


def checked_texts(where: str, values: Any) -> tuple[str, ...]:
    """A list of texts that are different, case and spaces aside; else an InputError."""
    if not isinstance(values, list):
        raise InputError(f'{where}: {shortened(values)} is no list; write ["...", "..."]')
    seen: set[str] = set()
    for number, value in enumerate(values, start=1):
        check_text(f"{where}: number {number}", value)
        if (same := " ".join(value.casefold().split())) in seen:
            raise InputError(f"{where}: {value!r} is given twice; keep one")
        seen.add(same)
    return tuple(values)


def shortened(value: Any) -> str:
    """A value from a file, for messages: it may be long, or nested too deep for `repr`."""
    return _SHORT.repr(value)
