"""Names of classes from a file: one a line, or a JSON list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedmpt.conditions.document import check_text, shortened
from fedmpt.files import read_json
from fedmpt.types import InputError


def read_class_list(path: Path) -> tuple[str, ...]:
    """Names in the order of the file; blank lines, and lines that begin with ``#``, are passed over.

    A file that begins with ``[``, or whose name ends in ``.json``, is a JSON list.

    Raises:
        InputError: if it cannot be read, has fewer than two names, one twice, or one that cannot stand in a prompt.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"{path} is no file that can be read ({error.strerror}); give one with a class name a line"
        raise InputError(message) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if path.suffix.lower() == ".json" or text.lstrip().startswith("["):
        listed = read_json(path)
        if not isinstance(listed, list):
            raise InputError(f'{path}: {shortened(listed)} is no list; write ["cat", "dog"]')
        return checked_names(str(path), ((f"name {number}", name) for number, name in enumerate(listed, start=1)))
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    names = ((f"line {number}", line) for number, line in lines if line and not line.startswith("#"))
    return checked_names(str(path), names)


def checked_names(source: str, found: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """Names, each with its place in ``source``; an InputError if they are fewer than two, no text or not different."""
    first: dict[str, str] = {}
    for place, name in found:
        check_text(f"{source}, {place}: class name", name)
        if name in first:
            raise InputError(f"{source}, {place}: class {name!r} stands in {first[name]} already; keep one")
        first[name] = place
    if len(first) < 2:
        raise InputError(f"{source}: at least two classes are needed, got {len(first)}")
    return tuple(first)
