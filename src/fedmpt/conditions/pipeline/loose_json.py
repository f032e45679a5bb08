"""JSON as language models write it: text around it, trailing commas, single quotes, comments, or cut off.

Nothing is evaluated. Every value is text, a list, a dict or None: numbers stay as they are written, since no answer
needs one, and so digits by the thousand do no harm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 12
"""Answers need three levels."""
MAX_VALUES = 20_000
"""In one text, those that were read in vain included. Answers need hundreds."""

MAX_VAIN = 2_000_000
"""Characters that were read in vain. A text that begins anew at every bracket would be read as often as it has some."""

_OPENING = re.compile(r"[{\[]")
_SPACE = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z))*+", re.DOTALL)
_DOUBLE = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
# An apostrophe ends a text only where the JSON could go on: 'the dog's bowl'.
_SINGLE = re.compile(r"'((?:[^'\\]|\\.|'(?!\s{0,20}(?:[,\]}:]|\Z)))*+)'", re.DOTALL)
_CURLY = re.compile(
    "\N{LEFT DOUBLE QUOTATION MARK}([^\N{RIGHT DOUBLE QUOTATION MARK}]*)\N{RIGHT DOUBLE QUOTATION MARK}"
)
_QUOTED: Mapping[str, re.Pattern[str]] = {'"': _DOUBLE, "'": _SINGLE, "\N{LEFT DOUBLE QUOTATION MARK}": _CURLY}
_NUMBER = re.compile(r"[-+]?\d[\d.eE+-]*")
_NOTHING = re.compile(r"(?:null|None|true|True|false|False|\.\.\.|…)(?!\w)")
_ELLIPSIS = re.compile(r"\.\.\.|…")
_BARE_KEY = re.compile(r"\w{1,40}(?=\s{0,20}:)")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_CUT = object()
"""Instead of a value that the text ends in."""


class LooseJSONError(ValueError):
    """There is JSON, and it must not be used: its text says why."""


class _MismatchError(Exception):
    """What begins with a bracket is no JSON."""


@dataclass(frozen=True)
class Found:
    """An object or list from a text. ``complete`` is False where the text ended first: it has its whole items only."""

    value: dict[str, Any] | list[Any]
    complete: bool


def find_values(text: str) -> list[Found]:
    """The outermost objects and lists in a text, in their order.

    Raises:
        LooseJSONError: if there is too much of it, nested too deep, or an object has a key twice.
    """
    found, position, reader, in_vain = [], 0, _Reader(text), 0
    while start := _OPENING.search(text, position):
        try:
            value, position = reader.read(start.start())
        except _MismatchError:
            position = start.end()
            in_vain += reader.at - position
            if in_vain > MAX_VAIN:
                raise LooseJSONError("it has too many brackets that begin no JSON") from None
        else:
            found.append(Found(value, not reader.cut))
    return found


class _Reader:
    """Reads values of a text by recursive descent.

    ``cut`` says whether the last one ended with the text, ``at`` how far reading came.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.cut = False
        self.at = 0
        self._values = 0

    def read(self, start: int) -> tuple[Any, int]:
        """The value that begins at ``start``, and where it ends."""
        self.at, self.cut = start, False
        return self._value(depth=1), self.at

    def _value(self, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise LooseJSONError(f"it has more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise LooseJSONError(f"it is nested more than {MAX_DEPTH} deep")
        character = self._next()
        if character in ("{", "["):
            self.at += 1
            return self._object(depth) if character == "{" else self._list(depth)
        return self._scalar(character)

    def _scalar(self, character: str) -> Any:
        """A text, None for what says nothing, or `_CUT`."""
        if character in _QUOTED:
            if match := _QUOTED[character].match(self.text, self.at):
                self.at = match.end()
                return _unescaped(match.group(1))
            return self._end()
        if match := _NOTHING.match(self.text, self.at):
            self.at = match.end()
            return None
        if match := _NUMBER.match(self.text, self.at):
            self.at = match.end()
            return self._end() if self.at == len(self.text) else match.group()
        if not character or (len(self.text) - self.at < len("false") and self.text[self.at :].isalpha()):
            return self._end()
        raise _MismatchError

    def _list(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while self._next() != "]":
            item = self._value(depth + 1)
            if self._is_whole(item):
                items.append(item)
            if not self._goes_on("]"):
                return items
        self.at += 1
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        pairs: dict[str, Any] = {}
        while self._next() != "}":
            if match := _ELLIPSIS.match(self.text, self.at):
                self.at = match.end()
                if self._goes_on("}"):
                    continue
                return pairs
            key = self._key()
            if key is _CUT:
                return pairs
            if self._next() not in (":", ""):
                raise _MismatchError
            self.at += 1
            value = self._value(depth + 1)
            if key in pairs:
                raise LooseJSONError(f"the key {key[:40]!r} stands twice in one object")
            if self._is_whole(value):
                pairs[key] = value
            if not self._goes_on("}"):
                return pairs
        self.at += 1
        return pairs

    def _key(self) -> Any:
        if match := _BARE_KEY.match(self.text, self.at):
            self.at = match.end()
            return match.group()
        if self._next() not in ("", *_QUOTED):
            raise _MismatchError
        return self._scalar(self._next())

    def _goes_on(self, closing: str) -> bool:
        """Whether there is more to read after an item: a comma is skipped; False if the text ended."""
        if self.cut:
            return False
        character = self._next()
        if character == ",":
            self.at += 1
        elif character != closing:
            if character:
                raise _MismatchError
            self._end()
            return False
        if self._next():
            return True
        self._end()
        return False

    def _is_whole(self, value: Any) -> bool:
        """Whether there is something of a value: a list that was cut off before its first item is no empty list."""
        return value is not _CUT and not (self.cut and value in ([], {}))

    def _next(self) -> str:
        """The next character that is no space or comment, empty at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def _end(self) -> object:
        self.cut, self.at = True, len(self.text)
        return _CUT


def _unescaped(body: str) -> str:
    """A text without backslashes. Half a surrogate pair becomes the replacement character."""
    if "\\" not in body:
        return body
    text = _ESCAPE.sub(_meaning, body)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _meaning(match: re.Match[str]) -> str:
    code = match.group(1)
    return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, code)
