"""Aggregation and personal tensors from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Command, Place, assert_refused, read_results, read_rounds
from toy_method import ToyConfig

from fedmpt.methods import METHODS

METRICS = ("mAP", "CF1", "OF1", "CF1_PR")

WRONG_OPTIONS = {
    "krum of four": (["--aggregator", "krum"], "--num-faulty 1 needs at least 5 clients in a round, there are 4"),
    "trim of none": (["--aggregator", "trimmed-mean"], r"--trim 0\.1 of 4 clients in a round is none; give at least"),
    "trim of all": (["--aggregator", "trimmed-mean", "--trim", "0.5"], r"--trim must be in \[0, 0\.5\), got 0\.5"),
    "median of two": (["--aggregator", "median", "--participation", "0.5"], "needs at least 3 clients in a round, th"),
    "learned mean": (["--method", "fedawa", "--aggregator", "median"], "FedAWA has an aggregation of its own"),
    "option without effect": (["--server-beta1", "0.5"], "--server-beta1 goes with --server adam, not none"),
    "weighed by images": (["--aggregator", "median", "--weighting", "data"], "--weighting data goes with --aggregator"),
    "rule for nothing": (
        ["--method", "zero-shot", "--aggregator", "median"],
        "--aggregator has no effect: zero-shot tr",
    ),
    "server for nothing": (
        ["--method", "zero-shot", "--server", "adam"],
        "--server has no effect: zero-shot trains not",
    ),
    "clipping nothing": (
        ["--method", "zero-shot", "--clip-norm", "1"],
        "--clip-norm has no effect: zero-shot trains no",
    ),
    "holding nothing": (
        ["--method", "zero-shot", "--proximal", "1"],
        "--proximal has no effect: zero-shot trains noth",
    ),
    "balancing nothing": (
        ["--method", "zero-shot", "--balance"],
        "--balance has no effect: zero-shot trains noth",
    ),
    "weighing nothing": (
        ["--method", "zero-shot", "--weighting", "data"],
        "--weighting has no effect: zero-shot trains",
    ),
    "negative mu": (["--proximal", "-0.1"], r"--proximal must not be negative, got -0\.1"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_wrong_options_are_refused_before_anything_is_computed(
    place: Place, run: Command, tmp_path: Path, case: str
) -> None:
    words, message = WRONG_OPTIONS[case]
    assert_refused(run(*place.train_words(tmp_path / "a", "--cache", tmp_path / "cache", *words)), message)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "cache").exists()


def test_options_reach_the_server(place: Place, run: Command, tmp_path: Path) -> None:
    words = ["--aggregator", "trimmed-mean", "--trim", "0.3", "--server", "adam", "--clip-norm", "0.5", "--proximal", 2]
    assert run(*place.train_words(tmp_path / "a", "--method", "promptfl", *words)).code == 0
    stored = json.loads((tmp_path / "a" / "config.json").read_text())
    assert stored["aggregation"]["aggregator"] == "trimmed-mean"
    assert stored["training"]["proximal"] == 2
    assert stored["federation"]["weighting"] is None
    assert run(*place.train_words(tmp_path / "b", "--method", "promptfl")).code == 0
    assert read_rounds(tmp_path / "a")[1]["loss"] != read_rounds(tmp_path / "b")[1]["loss"]


def test_scores_of_the_clients_own_models_stand_beside_those_of_the_global_one(
    place: Place, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "toy", ToyConfig)
    words = ["--method", "toy", "--participation", "0.5", "--eval-every", 1, "--local-epochs", 30]
    outcome = run(*place.train_words(tmp_path / "a", *words, rounds=1))
    assert outcome.code == 0, outcome.err
    results, (line,) = read_results(tmp_path / "a"), read_rounds(tmp_path / "a")
    personal = results["test_personal"]
    assert set(personal) == {*METRICS, "clients"}
    assert [row["name"] for row in personal["clients"]] == [client["name"] for client in results["clients"]]
    for metric in METRICS:
        assert personal[metric] == pytest.approx(sum(row[metric] for row in personal["clients"]) / 4)
        assert line[metric] == results["test"][metric], "rounds are scored with the global model"
    # Its personal tensors are where a client starts, so one that never took part has the global model.
    trained = set(line["clients"])
    assert len(trained) == 2
    for client, row in enumerate(personal["clients"]):
        same = all(row[metric] == results["test"][metric] for metric in METRICS)
        assert same == (client not in trained)
    printed = [line for line in outcome.out.splitlines() if "mean of the clients' own models" in line]
    assert f"{personal['mAP']:.2f}" in printed[0]

    evaluate = ("evaluate", "--checkpoint", tmp_path / "a/checkpoint", "--data", f"voc:{place.voc}")
    outcome = run(*evaluate, "--cache", place.cache)
    evaluation = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert evaluation["test"] == results["test"]
    assert evaluation["test_personal"] == personal
    assert "mean of the clients' own models" in outcome.out


def test_a_method_without_personal_tensors_has_no_such_scores(finished: Path) -> None:
    assert "test_personal" not in read_results(finished)
