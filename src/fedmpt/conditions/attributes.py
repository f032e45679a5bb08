"""Short visual descriptions of classes, such as "long white whiskers": FedMVP reads them.

Six lists come with the package, four phrases a class, for the classes of the benchmarks. A language model wrote them;
each file says so under ``provenance``. Others are read from a user's file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fedmpt.conditions.document import find_file, listed_texts, read_document
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

    @property
    def content_hash(self) -> str:
        """SHA-256 of classes and texts: it stays when the file is laid out anew or its provenance is edited."""
        return hashlib.sha256(json.dumps(self.attributes, sort_keys=True).encode()).hexdigest()

    def find(self, class_name: str) -> tuple[str, ...]:
        """Attributes of the class of this name or, failing that, of one that differs in case, spaces, _ or - only."""
        alike = (name for name in self.attributes if _letters(name) == _letters(class_name))
        return self.attributes.get(class_name) or self.attributes.get(next(alike, ""), ())

    def knows_all(self, class_names: Sequence[str]) -> bool:
        return all(self.find(name) for name in class_names)


class FoundAttributes(NamedTuple):
    """``attributes`` of each class, which may differ in number, and the hashes of the lists they are from, by name."""

    attributes: tuple[tuple[str, ...], ...]
    sources: Mapping[str, str]


def find_attributes(spec: str, class_names: Sequence[str]) -> FoundAttributes:
    """The attributes of each class.

    ``spec`` is the name of a shipped list, the path of a JSON file, or empty. Then a shipped list of just these classes
    is taken or, failing that, those of things seen from the ground are searched: the first that has all classes; if
    none has all, each class comes from the first that knows it. Beware: ``mouse`` is COCO's computer mouse.

    Raises:
        InputError: if a class has no attributes, or if no list is named and all classes may be as seen from above.
    """
    where, shipped = spec, shipped_attributes()
    if spec in shipped:
        lists = [_shipped(spec)]
    elif spec:
        lists = [read_attributes(find_file(spec, FOLDER, shipped, option="--attributes", example=EXAMPLE))]
    else:
        where = f"--attributes is not given, so {', '.join(FROM_THE_GROUND)} were searched"
        lists = _searched(class_names)
    found, sources = [], {}
    for name in class_names:
        knowing = next((listed for listed in lists if listed.find(name)), None)
        if knowing is None:
            raise InputError(f"{where}: no attributes for class {name!r}; {_remedy(name)}")
        found.append(knowing.find(name))
        sources[knowing.where] = knowing.content_hash
    return FoundAttributes(tuple(found), sources)


def shipped_attributes() -> tuple[str, ...]:
    return (*FROM_THE_GROUND, *FROM_ABOVE)


def read_attributes(path: Path) -> AttributeList:
    """The attributes in a file; an InputError if a class has one twice, or one that is no short line."""
    document = read_document(path, kind="attributes", holds=dict, example=EXAMPLE)
    listed = document["attributes"].items()
    attributes = {name: listed_texts(f"{path}: class {name!r}", texts) for name, texts in listed}
    return AttributeList(str(path), document["provenance"], attributes)


@cache
def _shipped(name: str) -> AttributeList:
    return replace(read_attributes(FOLDER / f"{name}.json"), where=name)


def _searched(class_names: Sequence[str]) -> list[AttributeList]:
    """The lists to search where none is named."""
    ground, above = (list(map(_shipped, names)) for names in (FROM_THE_GROUND, FROM_ABOVE))
    if just := [listed for listed in [*ground, *above] if set(class_names) == set(listed.attributes)]:
        return just[:1]
    if from_above := [listed.where for listed in above if listed.knows_all(class_names)]:
        raise InputError(
            f"--attributes is not given, and all classes are known as seen from above ({', '.join(from_above)}); name "
            f"the list that is meant, one of {', '.join(shipped_attributes())}, or {_remedy(class_names[0])}"
        )
    return next(([listed] for listed in ground if listed.knows_all(class_names)), ground)


@cache
def _letters(class_name: str) -> str:
    return re.sub(r"[\s_-]", "", class_name.casefold())


def _remedy(class_name: str) -> str:
    example = {"format": 1, "kind": "attributes", "attributes": {class_name: ["what one sees of it", "..."]}}
    file = json.dumps(example, ensure_ascii=False)
    return f"write a file {file} with all classes and give its path as --attributes, or take --form reduced of FedMVP"
