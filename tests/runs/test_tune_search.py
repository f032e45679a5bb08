"""The order in which options are tried, what is kept, and what ends the search, on scores that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.tune import Trial, Tuned, search, tried_options
from fedmpt.types import InputError

Options = Mapping[str, float]


def searched(config: RunConfig, mAP: Callable[[Options], float | None], **balanced: float) -> Tuned:
    """A search where a trial's two mAP are ``mAP`` of its options; ``balanced``: with soft ties g, by ``g05=``."""

    def scored(config: RunConfig) -> Trial:
        options = tried_options(config)
        found, soft = mAP(options), options["soft_ties"]
        return Trial(config, mAP=found, balanced_mAP=balanced.get(f"g{soft:g}".replace(".", ""), found))

    def trained(config: RunConfig) -> Trial:
        assert (config.prediction.mix, config.prediction.soft_ties) == (config.method.mix, 0)
        return replace(scored(config), seconds=1.0)

    return search(config, trained, scored)


def tried(tuned: Tuned, name: str) -> list[float]:
    """The values of an option, as they came, without repeats one after the other."""
    values = [tried_options(trial.config)[name] for trial in tuned.trials]
    return [value for place, value in enumerate(values) if place == 0 or value != values[place - 1]]


@pytest.mark.parametrize(
    ("best_rate", "expected"),
    [
        (0.05, [0.05, 0.017, 0.15, 0.05]),
        (0.017, [0.05, 0.017, 0.15, 0.0058, 0.017]),
        (0.15, [0.05, 0.017, 0.15, 0.45, 0.15]),
        (0.45, [0.05, 0.017, 0.15, 0.45]),
        (5.0, [0.05, 0.017, 0.15, 0.45]),
    ],
)
def test_rates_go_one_step_further_where_an_end_is_best(best_rate: float, expected: list[float]) -> None:
    tuned = searched(preset("default", "promptfl", "x"), lambda options: 90 - abs(options["learning_rate"] - best_rate))
    assert tried(tuned, "learning_rate") == expected
    assert tried_options(tuned.best.config) == {"learning_rate": expected[-1], "mix": 1.0, "soft_ties": 0.0}
    assert tried(tuned, "mix") == [1.0, 0.8, 0.6, 1.0]
    assert tried(tuned, "soft_ties") == [0.0, 0.25, 0.5, 1.0]


def test_each_option_is_tried_on_the_best_so_far() -> None:
    def mAP(options: Options) -> float:
        return 80 + 1 * (options["learning_rate"] == 0.15) + 2 * (options["entropy"] == 0.5) + (options["mix"] == 0.6)

    tuned = searched(preset("default", "fedmpt", "x"), mAP)
    assert tried_options(tuned.best.config) == {"learning_rate": 0.15, "entropy": 0.5, "mix": 0.6, "soft_ties": 0.0}
    by_entropy = [trial for trial in tuned.trials if tried_options(trial.config)["entropy"] in (0.2, 1.0)]
    assert [tried_options(trial.config)["learning_rate"] for trial in by_entropy] == [0.15, 0.15]
    assert all(tried_options(trial.config)["mix"] == 0.6 for trial in tuned.trials[-3:])
    trained = [tried_options(trial.config) for trial in tuned.trials if trial.seconds is not None]
    assert len(trained) == 7
    assert len({tuple(options.values()) for options in trained}) == 7, "nothing is trained twice"


def test_equal_scores_keep_the_options_that_were_given() -> None:
    config = preset("default", "fedmpt", "x")
    config = replace(config, method=FedMPTConfig(entropy=0.7))
    tuned = searched(config, lambda options: 70.0)
    assert tuned.best.config == config
    assert tried(tuned, "entropy") == [0.7, 0.2, 0.3, 0.5, 1.0, 0.7]


def test_without_transport_there_is_no_entropy_to_try() -> None:
    config = replace(preset("default", "fedmpt", "x"), method=FedMPTConfig(transport="mean"))
    assert set(tried_options(searched(config, lambda options: 70.0).best.config)) == {
        *("learning_rate", "mix", "soft_ties")
    }


def test_the_score_is_the_mean_of_both() -> None:
    config = preset("default", "promptfl", "x")
    assert Trial(config, mAP=80, balanced_mAP=60).score == 70
    assert Trial(config, mAP=80).score < Trial(config, mAP=0, balanced_mAP=0).score


@pytest.mark.parametrize(
    ("balanced", "expected"),
    [
        ({"g025": 70.0, "g05": 69.0, "g1": 68.9}, 0.5),
        ({"g025": 68.0, "g05": 68.0, "g1": 69.5}, 1.0),
        ({"g025": 68.9, "g05": 68.0, "g1": 60.0}, None),
        ({}, None),  # Without ties they change nothing.
    ],
)
def test_the_strongest_soft_ties_that_cost_a_point_at_most(balanced: dict[str, float], expected: float | None) -> None:
    tuned = searched(preset("default", "promptfl", "x"), lambda options: 70.0, **balanced)
    assert tuned.best.config.prediction.soft_ties == 0
    assert (tuned.soft and tuned.soft.config.prediction.soft_ties) == expected


def test_a_rate_at_which_training_diverged_is_passed_over() -> None:
    config = preset("default", "promptfl", "x")
    tuned = searched(config, lambda options: None if options["learning_rate"] > 0.02 else 70.0)
    assert tried(tuned, "learning_rate") == [0.05, 0.017, 0.15, 0.0058, 0.017]
    assert tuned.best.config.federation.learning_rate == 0.017


def test_training_that_diverges_at_all_rates() -> None:
    with pytest.raises(InputError, match=r"diverged at all learning rates; give one far below --learning-rate 0\.05"):
        searched(preset("default", "promptfl", "x"), lambda options: None)
