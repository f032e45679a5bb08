"""Attributes are found for every class or refused: never guessed, never taken from a broken file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedmpt.conditions.attributes import FOLDER, find_attributes, read_attributes
from fedmpt.conditions.document import MAX_BYTES
from fedmpt.types import InputError

ANIMALS = {"cat": ["pointed ears", "long whiskers"], "Sea_Horse": ["curled tail"], "dog": ["wet nose", "long tongue"]}


def load_attributes(spec: str, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return find_attributes(spec, names).attributes


def document(attributes: Any = ANIMALS, **changed: Any) -> dict[str, Any]:
    return {"format": 1, "kind": "attributes", "attributes": attributes, **changed}


def write(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    return write(tmp_path / "animals.json", document())


def test_a_users_file_gives_each_class_its_own_number_in_the_order_asked_for(animals: Path) -> None:
    found = load_attributes(str(animals), ["dog", "Sea_Horse", "cat"])
    assert found == (("wet nose", "long tongue"), ("curled tail",), ("pointed ears", "long whiskers"))


@pytest.mark.parametrize("written", ["Sea_Horse", "sea horse", "SEA-HORSE", "seahorse", " Sea  Horse "])
def test_case_spaces_and_dashes_of_a_name_do_not_matter(animals: Path, written: str) -> None:
    assert load_attributes(str(animals), [written]) == (("curled tail",),)


def test_a_name_as_written_goes_before_one_that_is_alike(tmp_path: Path) -> None:
    path = str(write(tmp_path / "x.json", document({"Hot Dog": ["panting"], "hot dog": ["in a bun"]})))
    assert load_attributes(path, ["hot dog", "Hot Dog"]) == (("in a bun",), ("panting",))
    with pytest.raises(InputError, match=r"x\.json: class 'hotdog' may be 'Hot Dog' or 'hot dog'; write it as there"):
        load_attributes(path, ["hotdog"])


def test_a_home_folder_may_be_written_as_a_tilde(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(animals.parent))
    assert load_attributes("~/animals.json", ["cat"]) == (("pointed ears", "long whiskers"),)


def test_the_smallest_file_is_the_one_that_messages_show(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_attributes("none.json", ["cat"])
    shown = str(refused.value).partition("a file looks like ")[2]
    assert load_attributes(str(write(tmp_path / "x.json", shown)), ["cat"]) == (("pointed ears", "long whiskers"),)


def test_the_remedy_for_a_missing_class_works(tmp_path: Path, animals: Path) -> None:
    with pytest.raises(InputError, match=r"animals\.json: no attributes for class 'ant \"b\"' and 1 more; ") as refused:
        load_attributes(str(animals), ["cat", 'ant "b"', "bee"])
    shown = str(refused.value).partition("write a file ")[2].partition(" with all classes")[0]
    path = str(write(tmp_path / "x.json", shown))
    assert load_attributes(path, ['ant "b"']) == (("what one sees of it", "..."),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"format": 1,\n "kind": }', "line 2: not valid JSON"),
        ('{"format": 1, "kind": "attributes", "attributes": {"a": ["b"], "a": ["c"]}}', "'a' is given twice; keep one"),
        ("[" * 100_000, "JSON that cannot be read"),
        ("[1, 2]", "expected one JSON object, like {"),
        ("{}", "'format' is missing; expected a file like {"),
        ({"format": 1, "kind": "attributes"}, "'attributes' is missing; expected a file like {"),
        ({"format": 1, "attributes": {}}, "'kind' is missing; expected a file like {"),
        (document(format=2), "format is 2; this version reads format 1"),
        (document(format=True), "format is True; this version reads format 1"),
        (document(format="1"), "format is '1'; this version reads format 1"),
        ({"format": 1, "kind": "conditions", "conditions": []}, "kind is 'conditions', expected 'attributes'; give a"),
        (document(attribute=1), "unknown key 'attribute'; known are: format, kind, name, provenance, attributes"),
        (document(name=3), "name is 3; expected one line"),
        (document(provenance="me"), "provenance is 'me'; expected an object that says who"),
        (document({}), "attributes are {}; expected a list for each class"),
        (document(["a"]), "attributes are ['a']; expected a list for each class"),
        (document({"": ["a"]}), "class '': a name must be one line"),
        (document({"a\nb": ["a"]}), r"class 'a\nb': a name must be one line"),
        (document({"a": "whiskers"}), "class 'a': 'whiskers' is no list; write its attributes as ["),
        (document({"a": "x" * 100_000}), "class 'a': 'xxx"),
        (document({"a": {"b": "c"}}), "class 'a': {'b': 'c'} is no list"),
        (document({"a": []}), "class 'a' has 0 attributes; give 1 to 64"),
        (document({"a": [str(number) for number in range(65)]}), "class 'a' has 65 attributes; give 1 to 64"),
        (document({"a": ["b", 7]}), "class 'a': attribute 2 is 7; expected one line of 1 to 200 printable characters"),
        (document({"a": [None]}), "class 'a': attribute 1 is None; expected one line"),
        (document({"a": [" "]}), "class 'a': attribute 1 is ' '; expected one line"),
        (document({"a": ["b\nc"]}), r"class 'a': attribute 1 is 'b\nc'; expected one line"),
        (document({"a": ["\ud800"]}), r"class 'a': attribute 1 is '\ud800'; expected one line"),
        (document({"a": ["x" * 201]}), "class 'a': attribute 1 is 'xxx"),
        (document({"a": ["long ears", "tail", "Long  ears"]}), "class 'a': attribute 'Long  ears' is given twice"),
    ],
)
def test_a_wrong_file_is_refused_by_name_class_and_value(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path / "wrong.json", value)
    with pytest.raises(InputError, match=rf"wrong\.json(, |: | ?){re.escape(message)}") as refused:
        load_attributes(str(path), ["a"])
    assert len(str(refused.value)) < 500 + len(str(path))


def test_a_wrong_class_is_refused_even_if_nobody_asked_for_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", document({"cat": ["ears"], "dog": []}))
    with pytest.raises(InputError, match="class 'dog' has 0 attributes"):
        load_attributes(str(path), ["cat"])


def test_json_nested_to_the_edge_of_the_stack_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for depth in range(800, 1000):  # Where the stack ends depends on who calls.
        write(path, f'{{"format": 1, "kind": "attributes", "attributes": {"[" * depth}{{}}{"]" * depth}}}')
        with pytest.raises(InputError, match=r"x\.json: (attributes are \[|JSON that cannot be read)"):
            read_attributes(path)


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=rf"huge\.json has {MAX_BYTES + 1} bytes, more than {MAX_BYTES}"):
        load_attributes(str(path), ["cat"])


@pytest.mark.parametrize("spec", ["voc", "none.json", "x\0y", "~nobody-of-this-name/x.json", "x" * 5000, "."])
def test_what_is_neither_a_file_nor_a_shipped_list_is_refused(spec: str) -> None:
    with pytest.raises(
        InputError, match=r"no such file and no shipped list; the lists are voc2007, coco2014, nus-wide"
    ):
        load_attributes(spec, ["cat"])


def test_a_path_that_is_found_in_another_folder_only_is_said_to_be_relative(
    animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(animals.parent)
    assert load_attributes(animals.name, ["cat"]) == (("pointed ears", "long whiskers"),)
    monkeypatch.chdir("/")
    with pytest.raises(
        InputError, match=r"--attributes 'animals\.json': .* paths are relative to the folder that the command runs in"
    ):
        load_attributes(animals.name, ["cat"])


@pytest.mark.parametrize(
    ("spec", "names"),
    [("", ["Helipad"]), ("", ["beach", "bridge"]), ("", ["cat", "pangolin"]), ("voc2007", ["cat", "tiger"])],
)
def test_messages_name_the_flag_and_the_form_that_needs_no_attributes(spec: str, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"give its path as --attributes, or take --form reduced of FedMVP") as refused:
        load_attributes(spec, names)
    assert spec or str(refused.value).startswith("--attributes is not given, ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no such file"):
        load_attributes(str(tmp_path / "pipe"), ["cat"])
    with pytest.raises(InputError, match="pipe is no file"):
        read_attributes(tmp_path / "pipe")


def test_a_shipped_list_goes_by_its_name_even_beside_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "voc2007", document())
    assert load_attributes("voc2007", ["cat"]) == load_attributes(str(FOLDER / "voc2007.json"), ["cat"])
    assert load_attributes("./voc2007", ["cat"]) == (("pointed ears", "long whiskers"),)


def test_a_shipped_list_that_lacks_a_class_says_so() -> None:
    with pytest.raises(InputError, match=r"^voc2007: no attributes for class 'tiger'; write a file "):
        load_attributes("voc2007", ["cat", "tiger"])


def sources(*class_names: str) -> list[str]:
    """Where attributes come from if no list is named."""
    return list(find_attributes("", class_names).sources)


def test_the_first_list_with_all_classes_is_taken() -> None:
    assert sources("cat", "dog") == ["voc2007"]
    assert sources("cat", "tiger") == ["nus-wide"]
    assert sources("diningtable", "TVmonitor") == ["voc2007"]
    assert sources("bottle", "couch") == ["coco2014"]
    assert sources("Bottle", "sofa") == ["voc2007"]


def test_classes_may_come_from_several_lists() -> None:
    names = ["guitar", "tiger", "Giraffe", "cat"]
    found = find_attributes("", names)
    assert list(found.sources) == ["scenes", "nus-wide", "coco2014", "voc2007"]
    assert found.attributes == tuple(
        load_attributes(spec, [name])[0]
        for spec, name in zip(["scenes", "nus-wide", "coco2014", "voc2007"], names, strict=True)
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["beach", "bridge"],
            r"seen from the ground \(nus-wide\) and from above \(multi-scene-clean, mlrsnet\); name one",
        ),
        (["airplane", "cars"], r"seen from the ground \(coco2014, nus-wide\) and from above \(mlrsnet\); name one"),
        (["forest", "desert", "mountain"], r"known as seen from above \(mlrsnet\); name one of the lists, or write a"),
        (["Helipad"], r"known as seen from above \(multi-scene-clean\); name one of the lists, or write a"),
    ],
)
def test_what_is_known_from_above_has_to_be_asked_for(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_attributes("", names)
    assert len(load_attributes("mlrsnet" if "mlrsnet" in message else "multi-scene-clean", names)) == len(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["cat", "pangolin", "okapi"],
            r"seen from the ground \(voc2007, .*\) knows class 'pangolin' and 1 more; write",
        ),
        (["cat", "runway"], r"seen from the ground \(.*\) knows class 'runway'; write"),
        (["gully", "helipad"], r"seen from the ground \(.*\) knows class 'gully' and 1 more; write"),
    ],
)
def test_a_class_that_no_list_knows_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_attributes("", names)


def content_hash(path: Path, value: Mapping[str, Any]) -> str:
    return read_attributes(write(path, json.dumps(value, indent=3))).content_hash


def test_the_hash_is_of_classes_and_texts_alone(tmp_path: Path, animals: Path) -> None:
    plain = read_attributes(animals).content_hash
    assert re.fullmatch("[0-9a-f]{64}", plain)
    assert find_attributes(str(animals), ["cat"]).sources == {str(animals): plain}
    path = tmp_path / "other.json"
    assert content_hash(path, document(name="x", provenance={"model": "me"})) == plain
    assert content_hash(path, document(dict(reversed(ANIMALS.items())))) == plain
    others = [
        {**ANIMALS, "cat": ["long whiskers", "pointed ears"]},
        {**ANIMALS, "cat": ["pointed ears, long whiskers"]},
        {**ANIMALS, "ant": ["six legs"]},
        {**ANIMALS, "Sea_Horse": ["curled tail "]},
    ]
    assert len({plain, *(content_hash(path, document(other)) for other in others)}) == 5
