"""`fedmpt conditions show` and `check`, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Command, Place

from fedmpt.conditions.record import Condition, ConditionSet, find_conditions, shipped_conditions, write_conditions

SENTENCES = ("A cat sleeps at night.", "A cat hunts in the sun.", "A dog runs on a beach.", "A dog eats.")
PROVENANCE = {
    "model": {"provider": "openai-compatible", "model": "[bold]m[/bold]"},
    "method": "by hand",
    "date": "2026-11-25",
    "classes": ["cat", "dog"],
    "combinations": {"from": "a plain list", "chosen": []},
    "sentences": [
        {"classes": ["cat"], "sentences": list(SENTENCES[:2])},
        {"classes": ["dog"], "sentences": list(SENTENCES[2:])},
    ],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Light is spoken of in two of four sentences, place in one, cats in two."""
    conditions = (
        Condition("light", "What light there is.", ("night", "sun")),
        Condition("place", "", ("beach",)),
        Condition("cat mood", "How cats feel.", ("sleeps", "hunts")),
    )
    path = tmp_path / "mine.json"
    write_conditions(path, ConditionSet("my own", conditions, PROVENANCE))
    return path


def test_all_shipped_sets_are_listed(run: Command) -> None:
    listed = run("conditions", "show")
    assert (listed.code, listed.err) == (0, "")
    for name in shipped_conditions():
        assert f"│ {name} " in listed.out
    sets = json.loads(run("conditions", "show", "--json").out)
    assert [each["name"] for each in sets] == list(shipped_conditions())
    assert [each["hash"] for each in sets] == [find_conditions(name).content_hash for name in shipped_conditions()]


def test_a_set_is_shown_with_where_it_came_from(run: Command, file: Path) -> None:
    shown = run("conditions", "show", file)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("my own ")
    for text in ("light", "What light there is.", "night, sun", "by hand", "2026-11-25", "model [bold]m[/bold]"):
        assert text in shown.out
    assert "sentences: 4\n" in shown.out
    assert find_conditions(str(file)).content_hash in shown.out


def test_json_has_all_of_a_set(run: Command, file: Path) -> None:
    value = json.loads(run("conditions", "show", file, "--json").out)
    assert value["provenance"] == PROVENANCE
    assert value["conditions"][0] == {"name": "light", "description": "What light there is.", "cues": ["night", "sun"]}


def test_no_line_of_a_set_is_wider_than_the_terminal(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run("conditions", "show", "voc2007").out.splitlines())) <= 80


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_set_that_is_not_there_is_refused(run: Command, command: str) -> None:
    refused = run("conditions", command, "none.json")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("fedmpt conditions: conditions 'none.json': no such file and no shipped set")


def test_a_check_without_a_tower_counts_sentences_and_finds_class_names(run: Command, file: Path) -> None:
    checked = run("conditions", "check", file)
    assert (checked.code, checked.err) == (0, "")
    shares = [line.removesuffix(" of the sentences speak of it") for line in checked.out.splitlines()[1:4]]
    assert shares == ["light: 50%", "place: 25%", "cat mood: 50%"]
    assert "condition 'cat mood' has class 'cat' in its name" in " ".join(checked.out.split())
    assert "tokens" not in checked.out


def test_other_classes_may_be_given(run: Command, file: Path, place: Place, tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("light\nboat\n")
    found = json.loads(run("conditions", "check", file, "--classes", classes, "--json").out)
    assert found["class_words"] == {"light": ["light"]}
    of_data = run("conditions", "check", file, "--data", f"voc:{place.voc}", "--cache", tmp_path, "--json")
    assert json.loads(of_data.out)["class_words"] == {"cat mood": ["cat"]}
    refused = run("conditions", "check", file, "--classes", classes, "--data", f"voc:{place.voc}")
    assert refused.err == "fedmpt conditions: give one of --classes FILE and --data NAME:PATH; got both\n"


def test_a_check_with_a_tower_measures_prompts(run: Command, file: Path, place: Place) -> None:
    checked = run("conditions", "check", file, "--backbone", place.clip)
    assert checked.code == 0, checked.err
    assert " of 77 tokens" in checked.out
    found = json.loads(run("conditions", "check", file, "--backbone", place.clip, "--json").out)
    assert set(found["lengths"]["names"]) == {"light", "place", "cat mood"}
    assert len(found["overlap"]["pairs"]) == 3


def test_a_set_for_any_classes_needs_none_of_its_own(run: Command, place: Place) -> None:
    checked = run("conditions", "check", "generic", "--backbone", place.clip)
    assert (checked.code, checked.err) == (0, "")


def test_a_backbone_that_is_not_there_is_refused(run: Command, file: Path) -> None:
    refused = run("conditions", "check", file, "--backbone", "./none")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("fedmpt conditions: ")
    assert "none" in refused.err
