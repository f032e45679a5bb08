"""Where FedMPT's conditions come from: words, a shipped set or a file, which a checkpoint must not need again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract import CLASS_NAMES, build, same

from fedmpt.conditions.record import Condition, ConditionSet, find_conditions, names_hash, write_conditions
from fedmpt.methods import METHODS
from fedmpt.methods.fedmpt import GENERIC_CONDITIONS, FedMPT, FedMPTConfig
from fedmpt.runs.config import RunConfig, preset
from fedmpt.state import get_state
from fedmpt.types import Backbone, InputError

NAMES = ("dog", "the pose")


def from_words(*words: str, digest: str = "") -> FedMPTConfig:
    return FedMPTConfig(conditions=words, conditions_hash=digest, rank=4)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "own.json", *NAMES)


def write(path: Path, *names: str) -> str:
    write_conditions(path, ConditionSet("own", tuple(map(Condition, names)), {}))
    return str(path)


def test_the_default_is_the_generic_set() -> None:
    assert FedMPTConfig().conditions == GENERIC_CONDITIONS == find_conditions("generic").names
    assert FedMPTConfig().conditions_hash == ""


def test_a_shipped_set_gives_names_and_hash() -> None:
    found = from_words("generic").resolved()
    assert found == from_words(*GENERIC_CONDITIONS, digest=names_hash(GENERIC_CONDITIONS))


def test_a_file_gives_names_and_hash(file: str) -> None:
    assert from_words(file).resolved() == from_words(*NAMES, digest=names_hash(NAMES))


def test_words_are_names_even_where_one_is_a_set_or_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pose", *NAMES)
    for words in [NAMES, ("pose",), ("generic", "pose"), ("a/b", "c.json")]:
        assert from_words(*words).resolved() == from_words(*words)


def test_resolving_twice_changes_nothing(tmp_path: Path, file: str) -> None:
    odd = write(tmp_path / "odd.json", "lighting/weather"), write(tmp_path / "set.JSON", "generic")
    for words in [(file,), ("generic",), NAMES, *((path,) for path in odd)]:
        once = from_words(*words).resolved()
        assert once.resolved() == once
    assert from_words(odd[0]).resolved().conditions == ("lighting/weather",)


@pytest.mark.parametrize(
    "word", ["none.json", "none.JSON", "folder/none", "./none", "lighting/weather", "~nobody/x.json"]
)
def test_a_lone_word_that_looks_like_a_file_has_to_be_one(backbone: Backbone, word: str) -> None:
    for use in (from_words(word).resolved, lambda: build(from_words(word), backbone)):
        with pytest.raises(InputError, match=r"no such file and no shipped set; the sets are generic.* looks like"):
            use()


def test_a_hash_given_by_hand_refuses_other_names(file: str) -> None:
    digest = names_hash(NAMES)
    assert from_words(*NAMES, digest=digest).resolved() == from_words(file, digest=digest).resolved()
    for words in [("the pose", "dog"), ("dog",), ("generic",)]:
        with pytest.raises(InputError, match=rf"have the hash [0-9a-f]{{64}}, not the {digest} of --conditions-hash"):
            from_words(*words, digest=digest).resolved()


def test_a_method_from_a_file_is_the_one_from_its_names(backbone: Backbone, file: str) -> None:
    by_file, by_names = build(from_words(file), backbone), build(from_words(*NAMES), backbone)
    assert isinstance(by_file, FedMPT)
    assert by_file.config.conditions == NAMES
    assert same(get_state(by_file), get_state(by_names))
    torch.testing.assert_close(by_file.encode_text(), by_names.encode_text(), atol=0, rtol=0)


def test_the_record_names_the_conditions_wherever_they_come_from(backbone: Backbone, file: str) -> None:
    expected = {"conditions": names_hash(NAMES)}
    assert build(from_words(file), backbone).sources == build(from_words(*NAMES), backbone).sources == expected
    assert build(from_words("dog", "the o"), backbone).sources != expected


def test_a_resolved_config_needs_no_file(file: str) -> None:
    stored = replace(preset("default", "fedmpt", "voc:x"), method=from_words(file).resolved())
    Path(file).unlink()
    loaded = RunConfig.from_json(stored.to_json(), source="here")
    assert loaded == stored
    assert loaded.method.resolved() == stored.method


def test_configs_of_before_sets_have_no_hash_and_are_read() -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    del words["method"]["conditions_hash"]
    assert RunConfig.from_json(words, source="here") == preset("default", "fedmpt", "voc:x")


def test_runs_of_before_there_was_a_choice_of_rates_go_on_with_the_rates_they_had() -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    del words["method"]["scale_rates"]
    assert RunConfig.from_json(words, source="here").method == FedMPTConfig(scale_rates=False)


@pytest.mark.parametrize("name", ["generic", "day/night", "fog.json", "pose"])
def test_the_only_name_of_a_run_of_before_sets_stays_a_name(name: str) -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    words["method"]["conditions"] = [name]
    del words["method"]["scale_rates"], words["method"]["conditions_hash"]
    found = RunConfig.from_json(words, source="here").method.resolved()
    assert isinstance(found, FedMPTConfig)
    assert found.conditions == (name,)


@pytest.mark.parametrize("name", METHODS)
def test_every_config_is_resolved_at_its_defaults(name: str) -> None:
    assert METHODS[name]().resolved() == METHODS[name]()


def test_five_class_prompts_for_each_name(backbone: Backbone, file: str) -> None:
    assert build(from_words(file), backbone).encode_text().shape[:2] == (2, len(CLASS_NAMES))
