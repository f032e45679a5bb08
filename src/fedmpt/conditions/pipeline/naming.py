"""Texts of a language model: made one line and quoted, and which of them can be names of conditions.

Names are short, plain, different from each other, and have no class in them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from fedmpt.conditions.words import IDLE_WORDS, runs_of, words_of

MAX_WORDS, MAX_NAME = 4, 40
"""Words and characters of a name."""
_PLACEHOLDERS = re.compile(r"(condition|factor|name|label|class|example|none|other|abstract|universal|separate)( \w)?")
"""Words of the request, which a model may repeat, among them."""
_REMARK = re.compile(r"\s*\([^()]*\)\s*$")
_BULLET = re.compile(r"^[-*+•—·\N{EN DASH}]\s+")
_NUMBER = re.compile(r"^[*_#(\s]{0,6}\d{1,3}\s?[.):\]]+(?=[\s*_])")
_MARKUP = " \t*_`#\"'“”„«»,;|\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"


def printable(text: str) -> str:
    """A text in one line: what does not print becomes a space, and runs of spaces become one."""
    normal = unicodedata.normalize("NFC", text)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in normal).split())


def cleaned(text: str) -> str:
    """One line without numbering, bullets, quotes and emphasis around it."""
    return _NUMBER.sub("", _BULLET.sub("", printable(text))).strip(_MARKUP)


def quoted(text: str, longest: int = 60) -> str:
    """A text from elsewhere as a JSON string, cut short: it cannot be taken for a part of what is said around it."""
    short = text if len(text) <= longest else f"{text[:longest]}..."
    return json.dumps(short, ensure_ascii=not short.isprintable())


def normal_name(text: str) -> str:
    """A name as it will stand in prompts: one line in lower case, without markup, remarks in brackets, or ``&``."""
    name = _REMARK.sub("", cleaned(text)).replace("_", " ").replace("&", " and ").lower()
    return cleaned(name).rstrip(".:")


class NameRules:
    """What the names of conditions must be for certain classes."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.classes = {words_of(name): name for name in reversed(class_names)}

    def fault(self, name: str) -> str | None:
        """What is wrong with a name, in words for the model and for people; None if nothing is."""
        words = words_of(name)
        if not any(letter.isalpha() for letter in name):
            return "it is empty"
        if len(name) > MAX_NAME or len(re.split(r"[\s/-]+", name)) > MAX_WORDS:
            return f"it is longer than {MAX_WORDS} words or {MAX_NAME} characters"
        if not all(letter in " -/" or unicodedata.category(letter)[0] in "LMN" for letter in name):
            return "it has other characters than letters, digits, spaces, hyphens and slashes"
        if _PLACEHOLDERS.fullmatch(" ".join(words)):
            return "it says nothing"
        found = next((self.classes[run] for run in runs_of(words) if run in self.classes), None)
        return None if found is None else f"it names the label {quoted(found)}"


def overlapping(name: str, others: Sequence[str]) -> str | None:
    """The first of the other names that has the same words, or all or some of them and no others; None if none has.

    Case, plurals and hyphens do not matter, and neither do words such as "object" and "of" unless there are no others.
    """
    own = _content(name)
    return next((other for other in others if own <= _content(other) or _content(other) <= own), None)


def _content(name: str) -> set[str]:
    words = set(words_of(name))
    return words - set(IDLE_WORDS) or words
