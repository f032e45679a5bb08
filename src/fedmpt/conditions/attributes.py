"""Short visual descriptions of classes, such as "long white whiskers": FedMVP reads them.

Six lists come with the package, four phrases a class, for the classes of the benchmarks. A language model wrote them;
each file says so under ``provenance``. Others are read from a user's file:

``{"format": 1, "kind": "attributes", "attributes": {"cat": ["pointed ears", "long whiskers"]}}``
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from fedmpt.conditions.document import TEXT, is_text, read_document, shortened
from fedmpt.types import InputError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "attributes"
FROM_THE_GROUND = ("voc2007", "coco2014", "nus-wide", "scenes")
FROM_ABOVE = ("multi-scene-clean", "mlrsnet")
"""The shipped lists. A forest looks different from above, so these two are not searched for other people's classes."""
EXAMPLE = '{"format": 1, "kind": "attributes", "attributes": {"cat": ["pointed ears", "long whiskers"]}}'
MAX_ATTRIBUTES = 64
"""Of one class. Each is a prompt to encode."""


@dataclass(frozen=True)
class AttributeList:
    """The attributes of classes, as one file gives them; ``where`` names the file in messages.

    ``content_hash`` is of classes and texts alone: it stays when a file is laid out anew, its classes are put in
    another order or its provenance is written out.
    """

    where: str
    provenance: Mapping[str, Any]
    attributes: Mapping[str, tuple[str, ...]]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 in hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.attributes, sort_keys=True).encode()).hexdigest()

    def find(self, class_name: str) -> str | None:
        """The class of this name or, failing that, of one that differs in case, spaces, ``_`` or ``-`` only.

        Raises:
            InputError: if there are several such.
        """
        if class_name in self.attributes:
            return class_name
        found = self._by_letters.get(_letters(class_name), [])
        if len(found) > 1:
            raise InputError(
                f"{self.where}: class {class_name!r} may be {found[0]!r} or {found[1]!r}; write it as there"
            )
        return found[0] if found else None

    @cached_property
    def _by_letters(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.attributes:
            found.setdefault(_letters(name), []).append(name)
        return found


@dataclass(frozen=True)
class FoundAttributes:
    """What `find_attributes` found: ``attributes`` of each class, which may differ in number.

    ``sources`` are the lists that were used, by shipped name or path, with their hashes: for records.
    """

    attributes: tuple[tuple[str, ...], ...]
    sources: Mapping[str, str]


def find_attributes(spec: str, class_names: Sequence[str]) -> FoundAttributes:
    """The attributes of each class from what ``spec`` names.

    ``spec`` is the name of a shipped list (`shipped_attributes`), the path of a JSON file, or empty. Then a shipped
    list of just these classes is taken or, failing that, those of things seen from the ground are searched: the first
    that has all classes; if none has all, each class comes from the first that knows it. Within a list, a name as
    written goes before one that differs in case, spaces, ``_`` or ``-``. Beware of words with two meanings: ``mouse``
    is COCO's computer mouse.

    Raises:
        InputError: if the file is wrong, a class has no attributes, or, with an empty ``spec``, a list of things seen
            from above has all classes too: which view it is must be said.
    """
    assert class_names
    if not spec:
        return _found(_among_shipped(class_names))
    listed = _named(spec)
    choices = _in_list(listed, class_names)
    if missing := _missing(class_names, choices):
        raise InputError(f"{listed.where}: no attributes for {_some(missing)}; {_remedy(missing[0])}")
    return _found(choices)


def shipped_attributes() -> tuple[str, ...]:
    """Names of the lists that come with the package."""
    return (*FROM_THE_GROUND, *FROM_ABOVE)


def read_attributes(path: Path) -> AttributeList:
    """The attributes in a file.

    Raises:
        InputError: if it is missing, huge, no JSON or of another format or kind, or if a class has no attributes, too
            many, one twice, or one that is no short line of text.
    """
    document = read_document(path, kind="attributes", example=EXAMPLE)
    if not isinstance(document.content, dict) or not document.content:
        raise InputError(
            f"{path}: attributes are {shortened(document.content)}; expected a list for each class: {EXAMPLE}"
        )
    attributes = {name: _texts(path, name, value) for name, value in document.content.items()}
    return AttributeList(str(path), document.provenance, attributes)


def _texts(path: Path, class_name: str, value: Any) -> tuple[str, ...]:
    """The attributes of one class, checked."""
    where = f"{path}: class {shortened(class_name)}"
    if not is_text(class_name):
        raise InputError(f"{where}: a name must be {TEXT}")
    if not isinstance(value, list):
        raise InputError(f'{where}: {shortened(value)} is no list; write its attributes as ["...", "..."]')
    if not 1 <= len(value) <= MAX_ATTRIBUTES:
        raise InputError(f"{where} has {len(value)} attributes; give 1 to {MAX_ATTRIBUTES}")
    seen: set[str] = set()
    for number, text in enumerate(value, start=1):
        if not is_text(text):
            raise InputError(f"{where}: attribute {number} is {shortened(text)}; expected {TEXT}")
        if (same := " ".join(text.casefold().split())) in seen:
            raise InputError(f"{where}: attribute {text!r} is given twice; keep one")
        seen.add(same)
    return tuple(value)


def _named(spec: str) -> AttributeList:
    if spec in shipped_attributes():
        return _shipped(spec)
    path = Path(os.path.expanduser(spec))
    if not os.path.isfile(path):
        raise InputError(
            f"--attributes {spec!r}: no such file and no shipped list; the lists are "
            f"{', '.join(shipped_attributes())}, paths are relative to the folder that the command runs in (train "
            f"with a full path to predict from elsewhere), and a file looks like {EXAMPLE}"
        )
    return read_attributes(path)


@lru_cache
def _shipped(name: str) -> AttributeList:
    read = read_attributes(FOLDER / f"{name}.json")
    return AttributeList(name, read.provenance, read.attributes)


Choice = tuple[AttributeList, str]
"""A list and the name that a class has in it."""


def _in_list(listed: AttributeList, class_names: Sequence[str]) -> list[Choice | None]:
    keys = [listed.find(name) for name in class_names]
    return [None if key is None else (listed, key) for key in keys]


def _among_shipped(class_names: Sequence[str]) -> list[Choice | None]:
    """Where each class is found."""
    for listed in map(_shipped, shipped_attributes()):
        if set(class_names) == set(listed.attributes):
            return [(listed, name) for name in class_names]
    choices = _from_the_ground(class_names)
    missing = _missing(class_names, choices)
    if above := [name for name in FROM_ABOVE if None not in _in_list(_shipped(name), class_names)]:
        ground = "" if missing else f"from the ground ({', '.join(_found(choices).sources)}) and "
        raise InputError(
            f"--attributes is not given, and all classes are known as seen {ground}from above ({', '.join(above)}); "
            f"name one of the lists, or {_remedy(class_names[0])}"
        )
    if missing:
        raise InputError(
            "--attributes is not given, and no shipped list of things seen from the ground "
            f"({', '.join(FROM_THE_GROUND)}) knows {_some(missing)}; {_remedy(missing[0])}"
        )
    return choices


def _from_the_ground(class_names: Sequence[str]) -> list[Choice | None]:
    """The first list that has all classes; if there is none, the first that has each."""
    in_lists = [_in_list(_shipped(name), class_names) for name in FROM_THE_GROUND]
    for choices in in_lists:
        if None not in choices:
            return choices
    return [next((choice for choice in of_class if choice), None) for of_class in zip(*in_lists, strict=True)]


def _missing(class_names: Sequence[str], choices: Sequence[Choice | None]) -> list[str]:
    return [name for name, choice in zip(class_names, choices, strict=True) if choice is None]


def _found(choices: Sequence[Choice | None]) -> FoundAttributes:
    chosen = [choice for choice in choices if choice is not None]
    assert len(chosen) == len(choices)
    attributes = tuple(listed.attributes[key] for listed, key in chosen)
    return FoundAttributes(attributes, {listed.where: listed.content_hash for listed, _ in chosen})


def _letters(class_name: str) -> str:
    return "".join(letter for letter in class_name.casefold() if letter not in "_-" and not letter.isspace())


def _some(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"class {missing[0]!r}{more}"


def _remedy(class_name: str) -> str:
    entry = json.dumps({class_name: ["what one sees of it", "..."]}, ensure_ascii=False)
    return (
        f'write a file {{"format": 1, "kind": "attributes", "attributes": {entry}}} with all classes and give its path '
        "as --attributes, or take --form reduced of FedMVP, which needs none"
    )
