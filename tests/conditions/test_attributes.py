"""Attributes are found for every class or refused: never guessed, never taken from a broken file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedmpt.conditions.attributes import FOLDER, find_attributes, read_attributes
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


def test_the_smallest_file_is_the_one_that_messages_show(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_attributes("none.json", ["cat"])
    shown = str(refused.value).partition("a file looks like ")[2]
    assert load_attributes(str(write(tmp_path / "x.json", shown)), ["cat"]) == (("pointed ears", "long whiskers"),)


def test_the_remedy_for_a_missing_class_works(tmp_path: Path, animals: Path) -> None:
    with pytest.raises(InputError, match=r"animals\.json: no attributes for class 'ant \"b\"'; ") as refused:
        load_attributes(str(animals), ["cat", 'ant "b"', "bee"])
    shown = str(refused.value).partition("write a file ")[2].partition(" with all classes")[0]
    path = str(write(tmp_path / "x.json", shown))
    assert load_attributes(path, ['ant "b"']) == (("what one sees of it", "..."),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"format": 1,\n "kind": }', "line 2: not valid JSON"),
        ({"format": 1, "kind": "conditions", "conditions": []}, "kind is 'conditions'; expected a file like"),
        (document({}), "attributes is {}; expected a file like"),
        (document(["a"]), "attributes is ['a']; expected a file like"),
        (document({"a": "whiskers"}), "class 'a': 'whiskers' is no list; write ["),
        (document({"cat": []}), "no attributes for class 'cat'; write a file"),
        (document({"a": ["b", 7]}), "class 'a', number 2 is 7; expected one line of 1 to 200 printable characters"),
        (document({"a": ["x" * 201]}), "class 'a', number 1 is 'xxx"),
        (document({"a": ["long ears", "tail", "tail"]}), "class 'a', number 3: 'tail' is given twice; keep one"),
    ],
)
def test_a_wrong_file_is_refused_by_name_class_and_value(tmp_path: Path, value: Any, message: str) -> None:
    path = write(tmp_path / "wrong.json", value)
    with pytest.raises(InputError, match=rf"wrong\.json(, |: | ?){re.escape(message)}"):
        load_attributes(str(path), ["cat"])


@pytest.mark.parametrize("spec", ["voc", "none.json", "."])
def test_what_is_neither_a_file_nor_a_shipped_list_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"--attributes .*: no such file and no shipped set; the sets are voc2007, "):
        load_attributes(spec, ["cat"])


@pytest.mark.parametrize(
    ("spec", "names"),
    [("", ["Helipad"]), ("", ["beach", "bridge"]), ("", ["cat", "pangolin"]), ("voc2007", ["cat", "tiger"])],
)
def test_messages_name_the_flag_and_the_form_that_needs_no_attributes(spec: str, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"give its path as --attributes, or take --form reduced of FedMVP") as refused:
        load_attributes(spec, names)
    assert spec or str(refused.value).startswith("--attributes is not given, ")


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
    ("names", "above"),
    [
        (["beach", "bridge"], "multi-scene-clean, mlrsnet"),
        (["airplane", "cars"], "mlrsnet"),
        (["Helipad"], "multi-scene-clean"),
    ],
)
def test_what_is_known_from_above_has_to_be_asked_for(names: list[str], above: str) -> None:
    with pytest.raises(InputError, match=rf"known as seen from above \({above}\); name the list that is meant"):
        load_attributes("", names)
    assert len(load_attributes(above.split(", ")[0], names)) == len(names)


@pytest.mark.parametrize(
    ("names", "lacking"),
    [(["cat", "pangolin", "okapi"], "'pangolin'"), (["cat", "runway"], "'runway'")],
)
def test_a_class_that_no_list_knows_is_refused(names: list[str], lacking: str) -> None:
    with pytest.raises(InputError, match=rf"voc2007, .* were searched: no attributes for class {lacking}; write"):
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
