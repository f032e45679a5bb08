"""Short visual descriptions of classes, such as "long white whiskers": FedMVP reads them.

Six lists come with the package, four phrases a class, for the classes of the benchmarks. A language model wrote them;
each file says so under ``provenance``. Others are read from a user's file:

``{"format": 1, "kind": "attributes", "attributes": {"cat": ["pointed ears", "long whiskers"]}}``
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from fedmpt.conditions.document import check_text, checked_texts, find_file, read_document, shortened
from fedmpt.types import InputError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "attributes"
FROM_THE_GROUND = ("voc2007", "coco2014", "nus-wide", "scenes")
FROM_ABOVE = ("multi-scene-clean", "mlrsnet")
"""The shipped lists. A forest looks different from above, so these two are not searched for other people's classes."""
EXAMPLE = '{"format": 1, "kind": "attributes", "attributes": {"cat": ["pointed ears", "long whiskers"]}}'


@dataclass(frozen=True)
class AttributeList:
    """The attributes of classes, as one file gives them; ``where`` names the file in messages."""

    where: str
    provenance: Mapping[str, Any]
    attributes: Mapping[str, tuple[str, ...]]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of classes and texts: it stays when the file is laid out anew or its provenance is edited."""
        return hashlib.sha256(json.dumps(self.attributes, sort_keys=True).encode()).hexdigest()

    def find(self, class_name: str) -> tuple[str, ...] | None:
        """Attributes of the class of this name or, failing that, of one that differs in case, spaces, _ or - only.

        Raises:
            InputError: if there are several such.
        """
        if class_name in self.attributes:
            return self.attributes[class_name]
        alike = [name for name in self.attributes if _letters(name) == _letters(class_name)]
        if len(alike) > 1:
            raise InputError(
                f"{self.where}: class {class_name!r} may be {alike[0]!r} or {alike[1]!r}; write it as there"
            )
        return self.attributes[alike[0]] if alike else None


@dataclass(frozen=True)
class FoundAttributes:
    """What `find_attributes` found: ``attributes`` of each class, which may differ in number.

    ``sources`` are the lists that were used, by shipped name or path, with their hashes: for records.
    """

    attributes: tuple[tuple[str, ...], ...]
    sources: Mapping[str, str]


def find_attributes(spec: str, class_names: Sequence[str]) -> FoundAttributes:
    """The attributes of each class.

    ``spec`` is the name of a shipped list (`shipped_attributes`), the path of a JSON file, or empty. Then a shipped
    list of just these classes is taken or, failing that, those of things seen from the ground are searched: the first
    that has all classes; if none has all, each class comes from the first that knows it. Beware of words with two
    meanings: ``mouse`` is COCO's computer mouse.

    Raises:
        InputError: if the file is wrong, a class has no attributes, or, with an empty ``spec``, a list of things seen
            from above has all classes too: which view it is must be said.
    """
    lists = [_named(spec)] if spec else _shipped_for(class_names)
    knowing = [next((listed for listed in lists if listed.find(name)), None) for name in class_names]
    if missing := [name for name, listed in zip(class_names, knowing, strict=True) if listed is None]:
        ground = ", ".join(FROM_THE_GROUND)
        where = lists[0].where if spec else f"--attributes is not given, so {ground} were searched"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{where}: no attributes for class {missing[0]!r}{more}; {_remedy(missing[0])}")
    used = [listed for listed in knowing if listed is not None]
    attributes = tuple(listed.find(name) or () for name, listed in zip(class_names, used, strict=True))
    return FoundAttributes(attributes, {listed.where: listed.content_hash for listed in used})


def shipped_attributes() -> tuple[str, ...]:
    """Names of the lists that come with the package."""
    return (*FROM_THE_GROUND, *FROM_ABOVE)


def read_attributes(path: Path) -> AttributeList:
    """The attributes in a file.

    Raises:
        InputError: if it cannot be read or is of another format or kind, or if a class has no attributes, one twice, or
            one that is no short line of text.
    """
    document = read_document(path, kind="attributes", example=EXAMPLE)
    listed = document["attributes"]
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{path}: attributes are {shortened(listed)}; expected a list for each class: {EXAMPLE}")
    attributes = {}
    for name, texts in listed.items():
        check_text(f"{path}: class name", name)
        attributes[name] = checked_texts(f"{path}: class {name!r}", texts)
        if not texts:
            raise InputError(f"{path}: class {name!r} has no attributes; give at least one")
    return AttributeList(str(path), document["provenance"], attributes)


def _named(spec: str) -> AttributeList:
    if spec in shipped_attributes():
        return _shipped(spec)
    return read_attributes(find_file(spec, FOLDER, shipped_attributes(), option="--attributes", example=EXAMPLE))


@cache
def _shipped(name: str) -> AttributeList:
    return replace(read_attributes(FOLDER / f"{name}.json"), where=name)


def _shipped_for(class_names: Sequence[str]) -> list[AttributeList]:
    """The lists to search where none is named."""
    for listed in map(_shipped, shipped_attributes()):
        if set(class_names) == set(listed.attributes):
            return [listed]
    ground, above = (list(map(_shipped, names)) for names in (FROM_THE_GROUND, FROM_ABOVE))
    if from_above := [listed.where for listed in above if _knows_all(listed, class_names)]:
        raise InputError(
            f"--attributes is not given, and all classes are known as seen from above ({', '.join(from_above)}); name "
            f"the list that is meant, one of {', '.join(shipped_attributes())}, or {_remedy(class_names[0])}"
        )
    return next(([listed] for listed in ground if _knows_all(listed, class_names)), ground)


def _knows_all(listed: AttributeList, class_names: Sequence[str]) -> bool:
    return all(listed.find(name) for name in class_names)


@cache
def _letters(class_name: str) -> str:
    return re.sub(r"[\s_-]", "", class_name.casefold())


def _remedy(class_name: str) -> str:
    entry = json.dumps({class_name: ["what one sees of it", "..."]}, ensure_ascii=False)
    return (
        f'write a file {{"format": 1, "kind": "attributes", "attributes": {entry}}} with all classes and give its path '
        "as --attributes, or take --form reduced of FedMVP, which needs none"
    )
