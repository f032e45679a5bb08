"""Which names of conditions can be used: short, plain, different from each other, and without a class in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from fedmpt.conditions.pipeline.reading import cleaned, quoted
from fedmpt.conditions.words import IDLE_WORDS, runs_of, words_of

MAX_WORDS, MAX_NAME = 4, 40
"""Words and characters of a name."""
COMMON_WORDS = frozenset(
    words_of(
        "a an and as at by for from in is of on or the to with image photo picture scene view frame object thing item "
        "subject type kind setting context place location area region space ground air light lighting weather season "
        "time day night color colour size scale distance depth angle position pose shape texture material motion "
        "action activity event use purpose function number count group density layout arrangement order style quality "
        "indoor outdoor inside outside front back side top bottom near far big small large little high low long short "
        "open closed dense sparse bare public private natural social human general"
    )
)
"""Words of the names of several words that classes have ("traffic light", "dense residential area") which a condition
may use all the same: they say what is seen, how or where, not which thing. Whole names of classes never may."""
_PLACEHOLDERS = re.compile(
    r"(?:condition|factor|name|reason|cause|label|class|example|none|other|misc|miscellaneous|unknown|null|todo|n ?a)"
    r"(?: \w)?"
)
_TRAILING = re.compile(r"\s*\([^()]*\)\s*$")


def normal_name(text: str) -> str:
    """A name as it will stand in prompts: one line in lower case, without markup, remarks in brackets, or ``&``."""
    name = _TRAILING.sub("", cleaned(text)).replace("_", " ").replace("&", " and ").lower()
    return cleaned(name).rstrip(".:")


class NameRules:
    """What the names of conditions must be for certain classes."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._classes = {words_of(name): name for name in reversed(class_names)}
        self._words: dict[str, str] = {}
        for name in reversed(class_names):
            words = words_of(name)
            self._words |= {word: name for word in words if len(words) > 1 and word not in COMMON_WORDS}

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
        if (found := self.class_in(name)) is not None:
            return f"it names the label {quoted(found)}"
        return None

    def is_class(self, text: str) -> bool:
        """Whether a text is the name of a class."""
        return words_of(text) in self._classes

    def class_in(self, name: str) -> str | None:
        """A class whose name, or whose own word, stands in this name."""
        words = words_of(name)
        whole = (self._classes[run] for run in runs_of(words) if run in self._classes)
        parts = (self._words[word] for word in words if word in self._words)
        return next(whole, None) or next(parts, None)


def overlapping(name: str, others: Sequence[str]) -> str | None:
    """The first of the other names that has the same words, or all or some of them and no others; None if none has.

    Case, plurals and hyphens do not matter, and neither do words such as "object" and "of" unless there are no others.
    """
    own = _content(name)
    return next((other for other in others if own <= _content(other) or _content(other) <= own), None)


def _content(name: str) -> set[str]:
    words = set(words_of(name))
    return words - set(IDLE_WORDS) or words
