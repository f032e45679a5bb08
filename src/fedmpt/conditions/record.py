"""Conditions of FedMPT in files: names, what they mean, and a record of how a language model came to them.

``{"format": 1, "kind": "conditions", "conditions": [{"name": "object pose"}, {"name": "lighting and weather"}]}``

Each condition may also have a ``description`` and ``cues``, words of sentences that belong to it. ``hash`` is that of
the names; a file written by hand needs none. Sets come with the package (`shipped_conditions`). Only the names reach
prompts: all else is for people and for checks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fedmpt.conditions.document import MAX_TEXT, TEXT, Document, is_text, read_document, shortened, write_document
from fedmpt.types import InputError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "conditions"
FIRST = "generic"
"""The shipped set for any classes; `shipped_conditions` begins with it."""
EXAMPLE = (
    '{"format": 1, "kind": "conditions", "conditions": [{"name": "object pose"}, {"name": "lighting and weather"}]}'
)
MAX_CONDITIONS = 64
"""Each has prompts of its own for every class."""
MAX_CUES = 256
"""Of one condition."""
MAX_SENTENCE = 1000
"""Characters of a description or of one of the model's sentences."""
MAX_BYTES = 64 * 2**20
"""Of a file: sentences about 5,000 classes take a few MB."""


@dataclass(frozen=True)
class Condition:
    """An aspect of scenes that explains why labels come together.

    ``name`` stands in prompts. ``description`` may be empty. ``cues`` are words of sentences that belong to it, such
    as "night" and "sunny".
    """

    name: str
    description: str = ""
    cues: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConditionSet:
    """Conditions that are used together, in their order, and where they came from."""

    name: str
    conditions: tuple[Condition, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(condition.name for condition in self.conditions)

    @cached_property
    def content_hash(self) -> str:
        """`names_hash` of the names: it stays when a description, a cue or the provenance is edited."""
        return names_hash(self.names)


@dataclass(frozen=True)
class Described:
    """What a model wrote about a combination of classes: no sentence at all where it found none plausible."""

    classes: tuple[str, ...]
    sentences: tuple[str, ...]


def names_hash(names: Sequence[str]) -> str:
    """SHA-256 of the names in their order, in hexadecimal digits: clients with the same have the same conditions."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def shipped_conditions() -> tuple[str, ...]:
    """Names of the sets that come with the package, the one for any classes first."""
    names = sorted(path.stem for path in FOLDER.glob("*.json"))
    return tuple(sorted(names, key=lambda name: name != FIRST))


def find_conditions(spec: str) -> ConditionSet:
    """A shipped set by its name, or the set in a file by its path; a shipped name goes before a file of that name.

    Raises:
        InputError: if there is neither, or the file is wrong.
    """
    if spec in shipped_conditions():
        return read_conditions(FOLDER / f"{spec}.json")
    path = Path(os.path.expanduser(spec))
    if not os.path.isfile(path):
        raise InputError(
            f"conditions {shortened(spec)}: no such file and no shipped set; the sets are "
            f"{', '.join(shipped_conditions())}, paths are relative to the folder that the command runs in, and a file "
            f"looks like {EXAMPLE} (a single condition whose name has a slash has to stand in one)"
        )
    return read_conditions(path)


def resolved_names(words: tuple[str, ...], *, given_hash: str = "") -> tuple[tuple[str, ...], str]:
    """What ``--conditions`` says: the names, and their hash if one was given or they come from a set.

    ``words`` are the names or, where there is exactly one and it is a shipped set, ends in ``.json`` or has a slash,
    the set that has them. Names of the given hash are taken as they stand, so that resolving twice changes nothing.

    Raises:
        InputError: if there is no such set, its file is wrong, or the names have another hash than the one given.
    """
    if given_hash == names_hash(words):
        return words, given_hash
    is_set = len(words) == 1 and _looks_like_a_set(words[0])
    names = find_conditions(words[0]).names if is_set else words
    digest = names_hash(names)
    if given_hash not in ("", digest):
        raise InputError(
            f"--conditions {shortened(words)}: the hash of their names, {shortened(names)}, is {digest}, not "
            f"{given_hash}, which --conditions-hash or the run to be continued says; give the conditions that it "
            "is of, or start anew without it"
        )
    return names, digest if is_set else given_hash


def _looks_like_a_set(word: str) -> bool:
    """Whether a word that stands alone is a shipped set or looks like a file, not like the name of a condition."""
    return word in shipped_conditions() or word.casefold().endswith(".json") or os.path.basename(word) != word


def read_conditions(path: Path) -> ConditionSet:
    """The conditions in a file. Its sentences are looked at by `sentences_of` only.

    Raises:
        InputError: if it is missing, huge, no JSON or of another format or kind; if names are not different lines of
            text, or a description or cue is no line of text; or if the names are not those that its hash is of.
    """
    document = read_document(path, kind="conditions", example=EXAMPLE, optional=("hash",), max_bytes=MAX_BYTES)
    return _checked(str(path), document)


def write_conditions(path: Path, conditions: ConditionSet) -> None:
    """Write a file that `read_conditions` reads as the same set, indented for people; its folder is made.

    The same set gives the same bytes. What is there is replaced at once or not at all.

    Raises:
        InputError: if the set, its sentences or its provenance could not be read back, or the file cannot be written.
    """
    listed = [
        {"name": each.name, "description": each.description, "cues": list(each.cues)} for each in conditions.conditions
    ]
    if not is_text(conditions.name):
        raise InputError(f"{path}: name is {shortened(conditions.name)}; expected {TEXT}")
    _checked(str(path), Document(conditions.name, conditions.provenance, listed))
    sentences_of(conditions)
    content = {
        "name": conditions.name,
        "hash": conditions.content_hash,
        "conditions": listed,
        "provenance": conditions.provenance,
    }
    write_document(path, "conditions", content, remedy="give it fewer sentences", max_bytes=MAX_BYTES)


def sentences_of(conditions: ConditionSet) -> tuple[Described, ...]:
    """What the model wrote about each combination of classes, from the provenance; none if nothing is kept there.

    Raises:
        InputError: if what is kept is not a list of ``{"classes": [...], "sentences": [...]}`` with lines of text.
    """
    where = f"conditions {conditions.name!r}: provenance, sentences"
    listed = conditions.provenance.get("sentences", [])
    if not isinstance(listed, list):
        raise InputError(f"{where}: {shortened(listed)} is no list; delete it, or restore it from a copy")
    return tuple(_described(f"{where}, entry {number}", entry) for number, entry in enumerate(listed, start=1))


def _described(where: str, entry: Any) -> Described:
    if not isinstance(entry, dict) or not entry.keys() >= {"classes", "sentences"}:
        raise InputError(f'{where}: {shortened(entry)}; expected {{"classes": [...], "sentences": [...]}}')
    classes = _texts(f"{where}, classes", entry["classes"], longest=MAX_TEXT)
    if not classes:
        raise InputError(f"{where}: it names no classes; give those that its sentences are about")
    return Described(classes, _texts(f"{where}, sentences", entry["sentences"], longest=MAX_SENTENCE))


def _checked(where: str, document: Document) -> ConditionSet:
    """The set in a document whose head is right."""
    listed = document.content
    if not isinstance(listed, list):
        raise InputError(f"{where}: conditions are {shortened(listed)}; expected a list, like {EXAMPLE}")
    if not 1 <= len(listed) <= MAX_CONDITIONS:
        raise InputError(f"{where}: it has {len(listed)} conditions; give 1 to {MAX_CONDITIONS}, like {EXAMPLE}")
    conditions = tuple(_condition(f"{where}: condition {number}", entry) for number, entry in enumerate(listed, 1))
    if repeated := _repeated([condition.name for condition in conditions]):
        raise InputError(f"{where}: condition {repeated!r} is given twice; keep one")
    found = ConditionSet(document.name, conditions, document.provenance)
    if (given := document.extra.get("hash", found.content_hash)) != found.content_hash:
        raise InputError(
            f"{where}: hash is {shortened(given)}, its names have {found.content_hash}: they were edited, or a line "
            "was lost; restore it from a copy or, if you changed the names on purpose, delete the line with the hash"
        )
    return found


def _condition(where: str, entry: Any) -> Condition:
    known = ("name", "description", "cues")
    if not isinstance(entry, dict) or "name" not in entry:
        raise InputError(f'{where} is {shortened(entry)}; expected one like {{"name": "object pose"}}')
    if unknown := [key for key in entry if key not in known]:
        raise InputError(f"{where}: unknown key {shortened(unknown[0])}; known are: {', '.join(known)}")
    name, description = entry["name"], entry.get("description", "")
    if not is_text(name):
        raise InputError(f"{where}: name is {shortened(name)}; expected {TEXT}")
    where = f"{where} ({shortened(name)})"
    if description != "" and not is_text(description, longest=MAX_SENTENCE):
        raise InputError(
            f"{where}: description is {shortened(description)}; expected one line of at most {MAX_SENTENCE} printable "
            "characters, or none"
        )
    cues = _texts(f"{where}, cues", entry.get("cues", []), longest=MAX_TEXT)
    if len(cues) > MAX_CUES:
        raise InputError(f"{where} has {len(cues)} cues; give at most {MAX_CUES}")
    if repeated := _repeated(cues):
        raise InputError(f"{where}: cue {repeated!r} is given twice; keep one")
    return Condition(name, description, cues)


def _texts(where: str, value: Any, *, longest: int) -> tuple[str, ...]:
    """A list of lines of text, checked."""
    if not isinstance(value, list):
        raise InputError(f'{where}: {shortened(value)} is no list; write ["...", "..."]')
    for number, text in enumerate(value, start=1):
        if not is_text(text, longest=longest):
            expected = f"one line of 1 to {longest} printable characters"
            raise InputError(f"{where}: number {number} is {shortened(text)}; expected {expected}")
    return tuple(value)


def _repeated(texts: Sequence[str]) -> str | None:
    """The first text that stood there before, but for case and spaces."""
    seen: set[str] = set()
    for text in texts:
        if (same := " ".join(text.casefold().split())) in seen:
            return text
        seen.add(same)
    return None
