"""Names of classes as files write them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from fedmpt.data.reading import closest, quoted, read_lines, refuse_repeated
from fedmpt.types import InputError

# What programs write where there is nothing. As the name of a class it is almost always a mistake.
_MISSING = frozenset(("nan", "null", "none", "n/a", "<na>", "#n/a"))

# Joiners are part of words in Persian and in Indian scripts, and of emoji.
_JOINERS = frozenset("\u200c\u200d")


def clean_name(word: str) -> str:
    """In composed Unicode (NFC), without white space around, with single spaces within."""
    return unicodedata.normalize("NFC", " ".join(word.split()))


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a text file, one a line, in its order.

    Raises InputError if the file cannot be read, has no names, an empty line among them, or a name twice.
    """
    lines = read_lines(path, expected="the names of the classes, one a line")
    places = [f"{path}, line {number}" for number in range(1, len(lines) + 1)]
    if "" in lines:
        raise InputError(f"{places[lines.index('')]} is empty; expected the name of a class")
    vocabulary = Vocabulary(None)
    names = [vocabulary.name(line, where=where, may_be_missing=True) for line, where in zip(lines, places, strict=True)]
    refuse_repeated(names, what="class", where=places.__getitem__)
    return tuple(names)


class Vocabulary:
    """Turns words of files into names of classes: of those given, or any where none are given.

    ``source`` is the file that the given names come from.
    """

    def __init__(self, given: Sequence[str] | None, *, source: Path | None = None) -> None:
        self._given = None if given is None else dict.fromkeys(given)
        self._source = source
        self._known: dict[str, str] = {}
        self._by_folded: dict[str, tuple[str, str]] = {}

    def name(self, word: str, *, where: str, may_be_missing: bool = False) -> str:
        """The class that ``word`` means; ``where`` names file and line for messages.

        Raises InputError if it is not among the given classes; and where none are given, if it is empty, holds what
        cannot be seen, differs from an earlier one in case only, or stands for a missing value.
        """
        if word not in self._known:
            name = clean_name(word)
            if self._given is None:
                self._check_new(name, where=where, may_be_missing=may_be_missing)
            elif name not in self._given:
                raise InputError(f"{where}: class {quoted(name)} is not in {self._source}{closest(name, self._given)}")
            self._known[word] = name
        return self._known[word]

    def unique(self, words: Sequence[str], *, where: str) -> dict[str, str]:
        """Each word by the class that it means, sorted by class.

        Raises InputError as `name`, or if two words are one class.
        """
        by_name: dict[str, str] = {}
        for word in words:
            name = self.name(word, where=where)
            if name in by_name:
                raise InputError(f"{where}: {by_name[name]!r} and {word!r} are one class; keep one of them")
            by_name[name] = word
        return dict(sorted(by_name.items()))

    def _check_new(self, name: str, *, where: str, may_be_missing: bool) -> None:
        if not name:
            raise InputError(f"{where}: {quoted(name)} is no name of a class")
        hidden = [letter for letter in name if unicodedata.category(letter)[0] == "C" and letter not in _JOINERS]
        if hidden:
            raise InputError(
                f"{where}: class {quoted(name)} holds an invisible character, U+{ord(hidden[0]):04X}; remove it"
            )
        if name.casefold() in _MISSING and not may_be_missing:
            raise InputError(
                f"{where}: label {name!r} stands for a missing value; leave it empty where an image has no labels, "
                "or name the class in a file for classes="
            )
        earlier, first_place = self._by_folded.setdefault(name.casefold(), (name, where))
        if earlier != name:
            raise InputError(
                f"{where}: class {quoted(name)} is written {quoted(earlier)} in {first_place}; "
                "write it the same way everywhere"
            )
