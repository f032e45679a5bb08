"""Texts from elsewhere, a language model or a file: made one line, cleaned, and quoted."""

from __future__ import annotations

import json
import re
import unicodedata

_NUMBERED = re.compile(r"[*_#(\s]{0,6}\d{1,3}\s?[.):\]]+([\s*_].*)")
_BULLET = re.compile(r"\s*[-*+•—·\N{EN DASH}]\s+(.*)")
_MARKUP = " \t*_`#\"'“”„«»,;|\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"


def printable(text: str) -> str:
    """A text in one line: what does not print becomes a space, and runs of spaces become one."""
    normal = unicodedata.normalize("NFC", text)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in normal).split())


def cleaned(text: str) -> str:
    """One line without numbering, bullets, quotes and emphasis around it."""
    line = printable(text)
    for pattern in (_BULLET, _NUMBERED):
        if match := pattern.fullmatch(line):
            line = match[1]
    return line.strip(_MARKUP)


def quoted(text: str, longest: int = 60) -> str:
    """A text from elsewhere as a JSON string, cut short: it cannot be taken for a part of what is said around it."""
    short = text if len(text) <= longest else f"{text[:longest]}..."
    return json.dumps(short, ensure_ascii=not short.isprintable())
