"""Conditions of FedMPT in files: names, what they mean, and a record of how a language model came to them.

Each condition may have a ``description`` and ``cues``, words of sentences that belong to it. ``hash`` is that of the
names; a file written by hand needs none. Only the names reach prompts: all else is for people and for checks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmpt.conditions.document import check_text, find_file, listed_texts, read_document, shortened, write_document
from fedmpt.types import InputError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "conditions"
EXAMPLE = '{"format": 1, "kind": "conditions", "conditions": [{"name": "object pose"}, {"name": "season"}]}'
MAX_SENTENCE = 1000
"""Characters of a description."""


@dataclass(frozen=True)
class Described:
    """What a model wrote about a combination of classes: no sentence at all where it found none plausible."""

    classes: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """An aspect of scenes that explains why labels come together; ``cues`` are words of sentences that belong to it."""

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

    @property
    def content_hash(self) -> str:
        """It stays when a description, a cue or the provenance is edited."""
        return names_hash(self.names)

    def to_json(self) -> dict[str, Any]:
        """What a file holds beside its head."""
        listed = [{**asdict(each), "cues": list(each.cues)} for each in self.conditions]
        return {"name": self.name, "hash": self.content_hash, "conditions": listed, "provenance": self.provenance}


def names_hash(names: Sequence[str]) -> str:
    """SHA-256 of the names in their order, in hexadecimal digits: clients with the same have the same conditions."""
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def shipped_conditions() -> tuple[str, ...]:
    """Names of the sets that come with the package, the one for any classes first."""
    return tuple(sorted((path.stem for path in FOLDER.glob("*.json")), key=lambda name: (name != "generic", name)))


def find_conditions(spec: str) -> ConditionSet:
    """A shipped set by its name, or the set in a file by its path; an InputError if there is neither."""
    return read_conditions(find_file(spec, FOLDER, shipped_conditions(), option="conditions", example=EXAMPLE))


def looks_like_a_set(word: str) -> bool:
    """Whether a word that stands alone is a shipped set or looks like a file, not like the name of a condition."""
    return word in shipped_conditions() or word.casefold().endswith(".json") or os.path.basename(word) != word


def resolved_names(words: tuple[str, ...], *, given_hash: str = "") -> tuple[tuple[str, ...], str]:
    """What ``--conditions`` says, names or a set: the names, and their hash if one was given or they are of a set.

    Raises:
        InputError: if there is no such set, its file is wrong, or the names have another hash than the one given.
    """
    if given_hash == names_hash(words):  # They are no set, even if they look like one: they were resolved before.
        return words, given_hash
    is_set = len(words) == 1 and looks_like_a_set(words[0])
    names = find_conditions(words[0]).names if is_set else words
    digest = names_hash(names)
    if given_hash not in ("", digest):
        raise InputError(
            f"--conditions {shortened(words)}: their names, {shortened(names)}, have the hash {digest}, not the "
            f"{given_hash} of --conditions-hash or of the run to be continued; give the conditions that it is of"
        )
    return names, digest if is_set else given_hash


def read_conditions(path: Path) -> ConditionSet:
    """The conditions in a file; an InputError if names are not different, or not those that its hash is of."""
    found = read_document(path, kind="conditions", holds=list, example=EXAMPLE)
    conditions = []
    for number, entry in enumerate(found["conditions"], start=1):
        where = f"{path}: condition {number}"
        if not isinstance(entry, dict) or not {"name"} <= entry.keys() <= {"name", "description", "cues"}:
            expected = '{"name": "object pose", "description": "How things are held.", "cues": ["standing"]}'
            raise InputError(f"{where} is {shortened(entry)}; expected one like {expected}")
        check_text(f"{where}: name", entry["name"])
        if (description := entry.get("description", "")) != "":
            check_text(f"{where}: description", description, longest=MAX_SENTENCE)
        cues = listed_texts(f"{where}, cues", entry.get("cues", []))
        conditions.append(Condition(entry["name"], description, cues))
    read = ConditionSet(found["name"], tuple(conditions), found["provenance"])
    listed_texts(f"{path}: names of conditions", list(read.names))
    if found.get("hash", read.content_hash) != read.content_hash:
        raise InputError(
            f"{path}: hash is {shortened(found['hash'])}, its names have {read.content_hash}: they were edited; "
            "restore it from a copy or, if you changed the names on purpose, delete the line with the hash"
        )
    return read


def write_conditions(path: Path, conditions: ConditionSet) -> None:
    """Write a file that `read_conditions` reads as the same set; raises InputError if it cannot be written."""
    write_document(path, "conditions", conditions.to_json())


def sentences_of(conditions: ConditionSet) -> tuple[Described, ...]:
    """What the model wrote about each combination of classes, from the provenance; nothing where none is kept."""
    listed = conditions.provenance.get("sentences", [])
    return tuple(Described(tuple(entry["classes"]), tuple(entry["sentences"])) for entry in listed)
