"""Conditions in files: read whole or refused, written so that people and later runs can read them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedmpt.conditions import record
from fedmpt.conditions.record import (
    FOLDER,
    MAX_BYTES,
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
    shown = str(refused.value).partition("a file looks like ")[2].partition(" (a single")[0]
    assert read_conditions(write(tmp_path / "x.json", shown)).names == ("object pose", "lighting and weather")


def test_what_is_written_is_read_as_the_same_set(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.json"
    write_conditions(path, SET)
    assert read_conditions(path) == SET
    assert [item.name for item in path.parent.iterdir()] == ["x.json"]


def test_what_is_written_can_be_read_by_people(tmp_path: Path) -> None:
    write_conditions(tmp_path / "x.json", SET)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert '"A café at night."' in [line.strip(" ,") for line in text.splitlines()]
    assert text.endswith("}\n")
    keys = ["format", "kind", "name", "hash", "conditions", "provenance"]
    assert list(json.loads(text)) == keys
    assert list(json.loads(text)["conditions"][0]) == ["name", "description", "cues"]


def test_the_same_set_is_the_same_bytes(tmp_path: Path) -> None:
    write_conditions(tmp_path / "x.json", SET)
    write_conditions(tmp_path / "y.json", read_conditions(tmp_path / "x.json"))
    assert (tmp_path / "x.json").read_bytes() == (tmp_path / "y.json").read_bytes()


def test_half_a_surrogate_pair_in_the_provenance_survives(tmp_path: Path) -> None:
    odd = replace(SET, provenance={"said": 'broken \ud83d, \\\ud83d and "\U0001f642'})
    write_conditions(tmp_path / "x.json", odd)
    assert read_conditions(tmp_path / "x.json") == odd
    assert "\U0001f642" in (tmp_path / "x.json").read_text(encoding="utf-8")


def test_the_hash_is_sha256_of_the_names_in_order(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("given", [None, 3, "", [[]], {}, "0" * 64])
def test_a_hash_of_another_kind_is_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InputError, match=r"x\.json: hash is .*, its names have [0-9a-f]{64}: they were edited"):
        read_conditions(write(tmp_path / "x.json", one() | {"hash": given}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"format": 1,\n "kind": }', "line 2: not valid JSON"),
        ("[" * 100_000, "JSON that cannot be read"),
        ("[1]", "expected one JSON object, like {"),
        ("{}", "'format' is missing; expected a file like {"),
        ({"format": 1, "kind": "attributes", "attributes": {}}, "kind is 'attributes', expected 'conditions'; give"),
        (document(format=2), "format is 2; this version reads format 1"),
        (
            document(sentences=[]),
            "unknown key 'sentences'; known are: format, kind, name, provenance, hash, conditions",
        ),
        (document(name=" "), "name is ' '; expected one line"),
        (document(provenance=[]), "provenance is []; expected an object"),
        (document({"light": {}}), "conditions are {'light': {}}; expected a list, like {"),
        (document([]), "it has 0 conditions; give 1 to 64, like {"),
        (document([{"name": str(number)} for number in range(65)]), "it has 65 conditions; give 1 to 64"),
        (document(["light"]), "condition 1 is 'light'; expected one like {"),
        (document([{"name": "light"}, {"cues": []}]), "condition 2 is {'cues': []}; expected one like {"),
        (document([{"name": "light"}, {"name": "Light "}]), "condition 'Light ' is given twice; keep one"),
        ('{"format": 1, "kind": "conditions", "conditions": [{"name": "a", "name": "b"}]}', "'name' is given twice"),
        (one(nam="x"), "condition 1: unknown key 'nam'; known are: name, description, cues"),
        (one(name=7), "condition 1: name is 7; expected one line of 1 to 200 printable characters"),
        (one(name=["light"]), "condition 1: name is ['light']; expected one line"),
        (one(name=""), "condition 1: name is ''; expected one line"),
        (one(name="a\nb"), r"condition 1: name is 'a\nb'; expected one line"),
        (one(name="\ud800"), r"condition 1: name is '\ud800'; expected one line"),
        (one(name="x" * 201), "condition 1: name is 'xxx"),
        (one(description=None), "condition 1 ('light'): description is None; expected one line"),
        (one(description=" "), "condition 1 ('light'): description is ' '; expected one line"),
        (one(description="x" * 1001), "condition 1 ('light'): description is 'xxx"),
        (one(description="a\x00"), r"condition 1 ('light'): description is 'a\x00'; expected one line"),
        (one(cues="night"), "condition 1 ('light'), cues: 'night' is no list; write ["),
        (one(cues={"night": 1}), "condition 1 ('light'), cues: {'night': 1} is no list"),
        (one(cues=["night", 3]), "condition 1 ('light'), cues: number 2 is 3; expected one line of 1 to 200"),
        (one(cues=["night", "Night"]), "condition 1 ('light'): cue 'Night' is given twice; keep one"),
        (one(cues=[str(number) for number in range(257)]), "condition 1 ('light') has 257 cues; give at most 256"),
    ],
)
def test_a_wrong_file_is_refused_by_name_place_and_value(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path / "wrong.json", value)
    with pytest.raises(InputError, match=rf"wrong\.json(, |: | ?){re.escape(message)}") as refused:
        find_conditions(str(path))
    assert len(str(refused.value)) < 500 + len(str(path))


def test_json_nested_to_the_edge_of_the_stack_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for depth in range(800, 1000):  # Where the stack ends depends on who calls.
        write(path, f'{{"format": 1, "kind": "conditions", "conditions": {"[" * depth}{{}}{"]" * depth}}}')
        with pytest.raises(InputError, match=r"x\.json: (condition 1 is \[|JSON that cannot be read)"):
            read_conditions(path)


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=rf"huge\.json has {MAX_BYTES + 1} bytes, more than {MAX_BYTES}"):
        read_conditions(path)


@pytest.mark.parametrize(
    "spec", ["none.json", "x\0y", "~nobody-of-this-name/x.json", "x" * 5000, ".", "", "../generic"]
)
def test_what_is_neither_a_file_nor_a_shipped_set_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match="no such file and no shipped set; the sets are generic") as refused:
        find_conditions(spec)
    assert len(str(refused.value)) < 600


def test_a_shipped_set_goes_before_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "generic", document())
    assert find_conditions("generic").names == GENERIC_CONDITIONS
    assert find_conditions("./generic").names == ("light",)


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(write(tmp_path / "x.json", document()).parent))
    assert find_conditions("~/x.json").names == ("light",)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (None, "None is no list; delete it"),
        ({"cat": []}, "{'cat': []} is no list"),
        (["A cat."], "entry 1: 'A cat.'; expected {"),
        ([*ENTRIES, {"classes": ["a"]}], "entry 3: {'classes': ['a']}; expected {"),
        ([{"classes": [], "sentences": []}], "entry 1: it names no classes"),
        ([{"classes": "cat", "sentences": []}], "entry 1, classes: 'cat' is no list"),
        ([{"classes": ["cat", 1], "sentences": []}], "entry 1, classes: number 2 is 1; expected one line of 1 to 200"),
        ([{"classes": ["cat"], "sentences": None}], "entry 1, sentences: None is no list"),
        (
            [{"classes": ["cat"], "sentences": ["a\nb"]}],
            r"entry 1, sentences: number 1 is 'a\nb'; expected one line of",
        ),
        ([{"classes": ["cat"], "sentences": ["x" * 1001]}], "entry 1, sentences: number 1 is 'xxx"),
    ],
)
def test_sentences_are_checked_when_asked_for_and_before_writing(tmp_path: Path, kept: Any, message: str) -> None:
    found = read_conditions(write(tmp_path / "x.json", document(provenance={"sentences": kept})))
    with pytest.raises(InputError, match=rf"conditions 'x': provenance, sentences(, |: ){re.escape(message)}"):
        sentences_of(found)
    with pytest.raises(InputError, match="provenance, sentences"):
        write_conditions(tmp_path / "y.json", found)
    assert not (tmp_path / "y.json").exists()


def test_sentences_come_with_their_classes_and_may_be_none() -> None:
    assert sentences_of(SET) == (
        Described(("cat", "dog"), ("A café at night.", "Two.")),
        Described(("sea",), ()),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ConditionSet("x", (), {}), "it has 0 conditions"),
        (ConditionSet("a\nb", (LIGHT,), {}), "name is "),
        (ConditionSet("x", (LIGHT, LIGHT), {}), "condition 'light' is given twice"),
        (ConditionSet("x", (Condition("light", cues=("a\nb",)),), {}), "cues: number 1 is"),
        (ConditionSet("x", (LIGHT,), {"loss": float("nan")}), "provenance cannot be written as JSON"),
        (ConditionSet("x", (LIGHT,), {"path": Path("a")}), "provenance cannot be written as JSON"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, wrong: ConditionSet, message: str) -> None:
    path = write(tmp_path / "x.json", "before")
    with pytest.raises(InputError, match=rf"x\.json: .*{message}"):
        write_conditions(path, wrong)
    assert path.read_text() == "before"


def test_a_set_too_large_to_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_BYTES", 400)
    with pytest.raises(InputError, match=r"x\.json would have \d+ bytes, more than 400; give it fewer sentences"):
        write_conditions(tmp_path / "x.json", SET)


def test_a_place_that_cannot_be_written_to_is_an_input_error(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    (tmp_path / "folder").mkdir()
    for place in ("file/x.json", "folder"):
        with pytest.raises(InputError, match=r"cannot be written: .*; choose another place"):
            write_conditions(tmp_path / place, SET)


def test_the_generic_set_comes_first_and_has_the_default_names() -> None:
    assert shipped_conditions()[0] == "generic"
    assert find_conditions("generic").names == GENERIC_CONDITIONS
    assert list(shipped_conditions()[1:]) == sorted(shipped_conditions()[1:])


@pytest.mark.parametrize("name", shipped_conditions())
def test_every_shipped_set_is_whole(tmp_path: Path, name: str) -> None:
    found = find_conditions(name)
    assert found.name == name
    assert all(condition.description and condition.cues for condition in found.conditions)
    assert {"model", "date", "method"} <= found.provenance.keys()
    sentences_of(found)
    write_conditions(tmp_path / "x.json", found)
    assert (tmp_path / "x.json").read_bytes() == (FOLDER / f"{name}.json").read_bytes()
