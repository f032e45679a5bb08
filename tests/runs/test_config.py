"""Configs as JSON: what is read is checked, since people edit files by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.rounds import Federation
from fedmpt.methods import METHODS
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.runs.config import RunConfig, preset
from fedmpt.types import InputError


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["default", "paper"])
def test_round_trip(method: str, name: str) -> None:
    config = preset(name, method, "voc:x")
    assert RunConfig.from_json(config.to_json(), source="here") == config


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("federation", "rounds", "ten", "^here: rounds cannot be 'ten'"),
        ("federation", "rounds", 2.5, "^here: rounds cannot be 2.5"),
        ("federation", "weighting", "none", "^here: weighting cannot be 'none'"),
        ("method", "transport", "foo", "^here: transport cannot be 'foo'"),
        ("method", "conditions", [1, 2], "^here: conditions cannot be"),
        ("method", "entropy", True, "^here: entropy cannot be True"),
        ("method", "entrop", 1.0, "^here: unknown field 'entrop' for FedMPTConfig; did you mean 'entropy'"),
        ("method", "name", "nobody", "^here: not the config of a run"),
        ("training", "proximal", "1", "^here: proximal cannot be '1'"),
        ("aggregation", "aggregator", "mode", "^here: aggregator cannot be 'mode'"),
        ("aggregation", "num_faulty", 1.5, r"^here: num_faulty cannot be 1\.5"),
        ("aggregation", "trimm", 0.1, "^here: unknown field 'trimm' for Aggregation; did you mean 'trim'"),
        ("aggregation", "new", 1, "^here: unknown field 'new' for Aggregation; if a newer version wrote it, update"),
        (None, "t", "half", "^here: t cannot be 'half'"),
        (None, "aggregation", 7, "^here: not the config of a run"),
        (None, "training", [], "^here: not the config of a run"),
    ],
)
def test_wrong_values(part: str | None, field: str, value: Any, message: str) -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    (words if part is None else words[part])[field] = value
    with pytest.raises(InputError, match=message):
        RunConfig.from_json(words, source="here")


def test_whole_numbers_may_stand_where_fractions_are_asked_for() -> None:
    words = preset("default", "fedmpt", "voc:x").to_json()
    words["method"]["entropy"] = 2
    assert RunConfig.from_json(words, source="here").method == METHODS["fedmpt"](entropy=2)


def test_configs_of_before_there_was_a_choice_of_aggregation_are_read() -> None:
    config = preset("default", "promptfl", "voc:x")
    words = config.to_json()
    del words["aggregation"], words["training"]["proximal"], words["training"]["balance"]
    del words["training"]["pseudo_labels"], words["training"]["global_consistency"]
    words["federation"]["weighting"] = "uniform"
    expected = replace(config, federation=replace(config.federation, weighting="uniform"))
    assert RunConfig.from_json(words, source="here") == expected


@dataclass(frozen=True)
class Quick(PromptFLConfig):
    learning_rate: ClassVar[float] = 0.75
    balanced: ClassVar[bool] = True


def test_learning_rate_and_balance_start_from_the_methods_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "quick", Quick)
    default, paper = preset("default", "quick", "voc:x"), preset("paper", "quick", "voc:x")
    assert (default.federation.learning_rate, paper.federation.learning_rate) == (0.75, 0.001)
    assert (default.training.balance, paper.training.balance) == (True, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": LocalTraining(proximal=-1.0)}, r"^--proximal must not be negative, got -1\.0"),
        ({"training": LocalTraining(proximal=float("nan"))}, "^--proximal must not be negative, got nan"),
        (
            {"training": LocalTraining(pseudo_labels=0.5)},
            r"^--pseudo-labels must be in \(0.5, 1\), or 0 for none; got 0.5",
        ),
        ({"training": LocalTraining(pseudo_labels=1.0)}, r"^--pseudo-labels must be in \(0.5, 1\)"),
        ({"training": LocalTraining(pseudo_labels=float("nan"))}, r"^--pseudo-labels must be in \(0.5, 1\)"),
        (
            {"training": LocalTraining(pseudo_labels_after=5)},
            "^--pseudo-labels-after has no effect without --pseudo-la",
        ),
        ({"training": LocalTraining(pseudo_labels=0.9, pseudo_labels_after=-1)}, "^--pseudo-labels-after must not be"),
        ({"training": LocalTraining(global_consistency=-1.0)}, "^--global-consistency must not be negative"),
        ({"aggregation": Aggregation(trim=0.3)}, "^--trim goes with --aggregator trimmed-mean"),
        (
            {"aggregation": Aggregation(aggregator="krum"), "federation": Federation(weighting="data")},
            "^--weighting data goes with --aggregator mean; krum counts every client once",
        ),
    ],
)
def test_options_of_aggregation_are_checked_with_the_others(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(preset("default", "promptfl", "voc:x"), **changes).check()


def test_the_paper_preset_has_one_rate_but_where_it_cannot_do() -> None:
    rates = {name: preset("paper", name, "voc:VOCdevkit").federation.learning_rate for name in METHODS}
    others = {name: rate for name, rate in rates.items() if rate != 0.001}
    assert others == {"ram": 5e-5, "poscoop": 0.1, "fedlgt": 1e-4, "fednca": 1e-4, "linear-probe": 15.0}


def test_the_default_preset_has_each_methods_own_rate() -> None:
    for name, config in METHODS.items():
        assert preset("default", name, "voc:VOCdevkit").federation.learning_rate == config.learning_rate


def test_an_option_of_a_method_must_not_be_one_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Clashing(PromptFLConfig):
        name: ClassVar[str] = "clashing"
        alpha: float = 1.0

    monkeypatch.setitem(METHODS, "clashing", Clashing)
    with pytest.raises(InputError, match="method 'clashing': --alpha is an option of every run"):
        preset("default", "clashing", "voc:VOCdevkit")
