"""Conditions in files: read whole or refused, written so that people and later runs can read them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmpt.conditions.record import (
    FOLDER,
    Condition,
    ConditionSet,
    Described,
    find_conditions,
    names_hash,
    read_conditions,
    sentences_of,
    shipped_conditions,
    write_conditions,
)
from fedmpt.methods.fedmpt import GENERIC_CONDITIONS
from fedmpt.types import InputError

ENTRIES = [
    {"classes": ["cat", "dog"], "sentences": ["A café at night.", "Two."]},
    {"classes": ["sea"], "sentences": []},
]
LIGHT = Condition("light", "How bright it is.", ("night", "sunny"))
SET = ConditionSet("mine", (LIGHT, Condition("pose")), {"model": "me", "sentences": ENTRIES})


def document(conditions: Any = ({"name": "light"},), **changed: Any) -> dict[str, Any]:
    return {"format": 1, "kind": "conditions", "conditions": conditions, **changed}


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def one(**entry: Any) -> dict[str, Any]:
    return document([{"name": "light", **entry}])


def test_a_file_written_by_hand_needs_names_only(tmp_path: Path) -> None:
    found = read_conditions(write(tmp_path / "by_hand.json", document([{"name": "light"}, {"name": "pose"}])))
    assert found == ConditionSet("by_hand", (Condition("light"), Condition("pose")), {})
    assert found.names == ("light", "pose")
    assert sentences_of(found) == ()


def test_the_example_in_messages_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        find_conditions("none.json")
    shown = str(refused.value).partition("a file looks like ")[2]
    assert read_conditions(write(tmp_path / "x.json", shown)).names == ("object pose", "season")


def test_what_is_written_is_read_as_the_same_set_by_people_too(tmp_path: Path) -> None:
    path, again = tmp_path / "new" / "x.json", tmp_path / "y.json"
    write_conditions(path, SET)
    assert read_conditions(path) == SET
    assert [item.name for item in path.parent.iterdir()] == ["x.json"]
    text = path.read_text(encoding="utf-8")
    assert '"A café at night."' in [line.strip(" ,") for line in text.splitlines()]
    assert list(json.loads(text)) == ["format", "kind", "name", "hash", "conditions", "provenance"]
    write_conditions(again, read_conditions(path))
    assert again.read_bytes() == path.read_bytes()


def test_half_a_surrogate_pair_of_a_model_survives(tmp_path: Path) -> None:
    odd = replace(SET, provenance={"said": 'broken \ud83d, \\\ud83d and "\U0001f642'})
    write_conditions(tmp_path / "x.json", odd)
    assert read_conditions(tmp_path / "x.json") == odd


def test_the_hash_is_sha256_of_the_names_in_order() -> None:
    assert SET.content_hash == hashlib.sha256(b'["light", "pose"]').hexdigest() == names_hash(["light", "pose"])
    edited = ConditionSet("other", (replace(LIGHT, cues=(), description=""), Condition("pose", "x")), {})
    assert edited.content_hash == SET.content_hash
    others = ["pose", "light"], ["light", "poses"], ["light", "pose", "x"], ["light pose"], ["light, pose"]
    assert len({SET.content_hash, *map(names_hash, others)}) == 6


def test_a_hash_that_does_not_fit_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", document([{"name": "light"}, {"name": "pose"}], hash=SET.content_hash))
    assert read_conditions(path).names == ("light", "pose")
    write(path, path.read_text().replace('"pose"', '"style"'))
    with pytest.raises(InputError, match=r"x\.json: hash is '[0-9a-f]+\.\.\.[0-9a-f]+', its .* delete the line with"):
        read_conditions(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"format": 1,\n "kind": }', "line 2: not valid JSON"),
        ("[1]", "format is missing; expected a file like {"),
        ({"format": 1, "kind": "attributes", "attributes": {}}, "kind is 'attributes'; expected a file like"),
        ({"format": 1, "kind": "conditions"}, "conditions is missing; expected a file like {"),
        (document(format=2), "format is 2; expected a file like {"),
        (document(name=" "), "name is ' '; expected a file like {"),
        (document(provenance=[]), "provenance is []; expected"),
        (document({"light": {}}), "conditions is {'light': {}}; expected"),
        (document([]), "conditions is []; expected"),
        (document(["light"]), "condition 1 is 'light'; expected one like {"),
        (document([{"name": "light"}, {"cues": []}]), "condition 2 is {'cues': []}; expected one like {"),
        (
            document([{"name": "light"}, {"name": "light"}]),
            "names of conditions, number 2: 'light' is given twice",
        ),
        (one(cue="x"), "condition 1 is {'cue': 'x', 'name': 'light'}; expected one like {"),
        (one(name=7), "condition 1: name is 7; expected one line of 1 to 200 printable characters"),
        (one(name="a\nb"), r"condition 1: name is 'a\nb'; expected one line"),
        (one(name="x" * 201), "condition 1: name is 'xxx"),
        (one(description=None), "condition 1: description is None; expected one line"),
        (one(description="x" * 1001), "condition 1: description is 'xxx"),
        (one(cues="night"), "condition 1, cues: 'night' is no list; write ["),
        (one(cues=["night", 3]), "condition 1, cues, number 2 is 3; expected one line of 1 to 200"),
        (one(cues=["night", "night"]), "condition 1, cues, number 2: 'night' is given twice; keep one"),
    ],
)
def test_a_wrong_file_is_refused_by_name_place_and_value(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path / "wrong.json", value)
    with pytest.raises(InputError, match=rf"wrong\.json(, |: | ?){re.escape(message)}") as refused:
        find_conditions(str(path))
    assert len(str(refused.value)) < 500 + len(str(path))


@pytest.mark.parametrize("spec", ["none.json", "x" * 5000, ".", "", "../generic"])
def test_what_is_neither_a_file_nor_a_shipped_set_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"no such file and no shipped set; the sets are .*generic") as refused:
        find_conditions(spec)
    assert len(str(refused.value)) < 600


def test_a_shipped_set_goes_before_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "generic", document())
    assert find_conditions("generic").names == GENERIC_CONDITIONS
    assert find_conditions("./generic").names == find_conditions("~/generic").names == ("light",)


def test_sentences_come_with_their_classes_and_may_be_none() -> None:
    expected = Described(("cat", "dog"), ("A café at night.", "Two.")), Described(("sea",), ())
    assert sentences_of(SET) == expected


def test_a_place_that_cannot_be_written_to_is_an_input_error(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    for place in ("file/x.json", "."):
        with pytest.raises(InputError, match=r"cannot be written: .*; choose another place"):
            write_conditions(tmp_path / place, SET)


@pytest.mark.parametrize("name", shipped_conditions())
def test_every_shipped_set_is_whole(tmp_path: Path, name: str) -> None:
    found = find_conditions(name)
    assert found.name == name
    assert all(condition.description and condition.cues for condition in found.conditions)
    assert {"model", "date", "method"} <= found.provenance.keys()
    sentences_of(found)
    write_conditions(tmp_path / "x.json", found)
    assert (tmp_path / "x.json").read_bytes() == (FOLDER / f"{name}.json").read_bytes()


def test_the_generic_set_comes_first() -> None:
    assert shipped_conditions()[0] == "generic"
    assert list(shipped_conditions()[1:]) == sorted(shipped_conditions()[1:])
