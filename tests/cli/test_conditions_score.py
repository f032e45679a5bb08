"""fedmpt conditions score, as a user calls it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Command, Outcome, Place, read_results

from fedmpt.cli.conditions.score import ScoreOptions, score
from fedmpt.cli.conditions.score_report import scored_split
from fedmpt.cli.train import _train_options
from fedmpt.cli.train_options import train_arguments
from fedmpt.data import load_data
from fedmpt.data.partial_labels import mask_labels
from fedmpt.federated.aggregation import Aggregation
from fedmpt.files import read_json
from fedmpt.methods import METHODS
from fedmpt.methods.fedmpt import GENERIC_CONDITIONS
from fedmpt.runs.config import PRESETS, RunConfig, preset
from fedmpt.types import InputError

Scored = Any


@pytest.fixture
def scored(place: Place, capsys: pytest.CaptureFixture[str]) -> Scored:
    """A function that scores a run's conditions on the tiny VOC; refusals come as InputError."""

    def call(run: Path, *words: object) -> Outcome:
        capsys.readouterr()
        options = ["--checkpoint", run / "checkpoint", "--data", f"voc:{place.voc}", "--cache", place.cache, *words]
        score([str(word) for word in options])
        captured = capsys.readouterr()
        return Outcome(0, captured.out, captured.err)

    return call


def test_tables_name_every_condition_and_end_in_a_suggestion(
    finished: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = scored(finished).out
    lines = [line for line in shown.splitlines() if line.startswith(("│", "┃"))]
    assert max(map(len, lines)) <= 100
    rows = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert [row for row in rows if row in GENERIC_CONDITIONS] == list(GENERIC_CONDITIONS)
    assert "\n5 left: mAP " in shown
    assert "as a rule, upper bounds" in shown
    assert "\nsuggestion (by drop): " in shown
    assert "by gate: " in shown


def test_names_are_shown_as_they_are_written(place: Place, run: Command, scored: Scored, tmp_path: Path) -> None:
    names = ("[bold]day", ":smile: night")
    assert run(*place.train_words(tmp_path / "a", "--quiet", "--conditions", *names, rounds=1)).code == 0
    shown = scored(tmp_path / "a", "--tolerance", 100).out
    assert all(f"│ {name} " in shown for name in names)
    assert any(f"1 ({name})" in shown for name in names)


def test_json_is_everything_and_agrees_with_the_run(finished: Path, scored: Scored, tmp_path: Path) -> None:
    outcome = scored(finished, "--split", "test", "--json", "--out", tmp_path / "new" / "scores.json")
    found = json.loads(outcome.out)
    assert found == read_json(tmp_path / "new" / "scores.json")
    expected = read_results(finished)["test"]
    for metric in ("mAP", "CF1", "OF1", "CF1_PR", "num_images"):
        assert found["full"][metric] == pytest.approx(expected[metric])
    assert found["conditions"] == list(GENERIC_CONDITIONS)
    assert any("these are test images" in note for note in found["notes"])
    assert "scoring 5 conditions on 8 images" in outcome.err


def test_training_images_are_the_default_and_a_sample_is_the_same_each_time(finished: Path, scored: Scored) -> None:
    found = json.loads(scored(finished, "--json").out)
    assert (found["split"], found["num_images"]) == ("train", 24)
    sample = scored(finished, "--json", "--images", 10)
    assert json.loads(sample.out)["num_images"] == 10
    assert any("a sample of 10 images" in note for note in json.loads(sample.out)["notes"])
    assert any("was trained on these images" in note for note in found["notes"])
    assert scored(finished, "--json", "--images", 10).out == sample.out
    assert json.loads(scored(finished, "--json", "--images", 24).out)["use"] == found["use"]


def test_the_picture_is_drawn(finished: Path, scored: Scored, tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.svg"
    outcome = scored(finished, "--plot", path)
    assert all(name in path.read_text() for name in GENERIC_CONDITIONS)
    assert f"written to {path}" in outcome.err


def test_the_suggested_command_trains_the_same_run_with_fewer_conditions(
    place: Place, run: Command, scored: Scored, tmp_path: Path
) -> None:
    words = place.train_words(tmp_path / "a", "--quiet", "--entropy", 0.3, "--no-calibration", rounds=1)
    assert run(*words).code == 0
    found = json.loads(scored(tmp_path / "a", "--json", "--tolerance", 100).out)
    assert found["suggestion"]["num"] == 1
    program, *command = shlex.split(found["suggestion"]["train"])
    assert program == "fedmpt"
    assert run(*command, "--quiet").code == 0
    before, after = (read_json(tmp_path / name / "config.json") for name in ("a", "a-1"))
    assert after.pop("validation") == 0.2
    assert before.pop("validation") == 0
    assert after["method"].pop("conditions") == found["suggestion"]["conditions"]
    assert before["method"].pop("conditions") == list(GENERIC_CONDITIONS)
    assert after == before


@pytest.mark.parametrize("name", ["generic", "day/night", "fog.json"])
def test_a_name_that_could_be_a_set_or_a_file_is_trained_with_as_a_name(
    place: Place, run: Command, scored: Scored, tmp_path: Path, name: str
) -> None:
    words = place.train_words(tmp_path / "a", "--quiet", "--conditions", name, "pose", rounds=1)
    assert run(*words).code == 0
    found = json.loads(scored(tmp_path / "a", "--json", "--tolerance", 100).out)
    command = shlex.split(found["suggestion"]["train"])[2:]
    kept = tuple(found["suggestion"]["conditions"])
    assert _train_options(command).run.method.resolved().conditions == kept  # type: ignore[attr-defined]
    assert ("--conditions-hash" in command) == (kept == (name,))


def test_all_conditions_need_no_command(finished: Path, scored: Scored) -> None:
    found = json.loads(scored(finished, "--json", "--by", "gate").out)
    # After two rounds the gate has hardly moved.
    assert found["suggestion"] == {"by": "gate", "num": 5, "conditions": list(GENERIC_CONDITIONS), "train": None}
    assert "suggestion (by gate): keep all 5" in scored(finished, "--by", "gate").out


def test_images_that_the_run_held_out_are_a_split(place: Place, run: Command, scored: Scored, tmp_path: Path) -> None:
    assert run(*place.train_words(tmp_path / "a", "--quiet", "--validation", 0.25, rounds=1)).code == 0
    held = json.loads(scored(tmp_path / "a", "--split", "validation", "--json", "--tolerance", 100).out)
    assert held["num_images"] == 6
    # What a run with validation scores on is what it held out.
    assert held["full"]["mAP"] == pytest.approx(read_results(tmp_path / "a")["test"]["mAP"])
    assert "--validation 0.25" in held["suggestion"]["train"]
    trained = json.loads(scored(tmp_path / "a", "--json").out)
    assert trained["num_images"] == 18
    assert any("--split validation" in note for note in trained["notes"])


def test_the_labels_are_those_the_run_saw(place: Place) -> None:
    data = load_data(f"voc:{place.voc}")
    config = RunConfig(data="", partial_labels="masked-unknown", seed=3)
    options = ScoreOptions(checkpoint=Path("none"), data="")
    expected = mask_labels(data.train.labels, kind="masked-unknown", fraction=0.5, seed=3)
    assert torch.equal(scored_split(options, config, data).labels, expected)
    assert (expected != data.train.labels).any()
    test = dataclasses.replace(options, split="test")
    assert torch.equal(scored_split(test, config, data).labels, data.test.labels)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "validation"), "held no images out"),
        (("--tolerance", -1), "--tolerance"),
        (("--images", 0), "--images must be positive"),
        (("--plot", "scores.jpg"), r"a plot is written as \.png"),
        (("--out", "."), "--out . is a folder"),
    ],
)
def test_what_cannot_be_is_refused(finished: Path, scored: Scored, words: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scored(finished, *words)


@pytest.mark.parametrize(
    ("options", "words", "message"),
    [
        (("--method", "promptfl"), (), "has no conditions; give one of fedmpt"),
        (("--conditions", "pose"), (), "one condition, 'pose', so there is nothing to compare"),
        (("--no-condition-prompts", "--no-adapters"), (), "neither condition prompts nor adapters"),
        (("--no-gate",), ("--by", "gate"), "no gate"),
    ],
)
def test_runs_without_what_is_asked_are_refused(
    place: Place,
    run: Command,
    scored: Scored,
    tmp_path: Path,
    options: tuple[str, ...],
    words: tuple[str, ...],
    message: str,
) -> None:
    assert run(*place.train_words(tmp_path / "a", "--quiet", *options, rounds=1)).code == 0
    with pytest.raises(InputError, match=message):
        scored(tmp_path / "a", *words)


def test_a_run_without_gate_or_prompts_says_what_its_scores_mean(
    place: Place, run: Command, scored: Scored, tmp_path: Path
) -> None:
    words = ("--no-gate", "--no-condition-prompts", "--quiet")
    assert run(*place.train_words(tmp_path / "a", *words, rounds=1)).code == 0
    shown = scored(tmp_path / "a").out
    assert "has no gate" in shown
    assert "by their adapters alone" in shown
    assert "by gate:" not in shown


@pytest.mark.parametrize("start", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_a_config_comes_back_from_its_words(method: str, start: str, tmp_path: Path) -> None:
    config = preset(start, method, data="voc:a folder,difficult=absent")
    config = dataclasses.replace(
        config,
        setting="dirichlet",
        clients=7,
        alpha=0.1,
        skip_corrupt=True,
        partial_labels="masked-negative",
        seed=4,
        federation=dataclasses.replace(config.federation, rounds=3, participation=0.3, weighting="data"),
        aggregation=Aggregation(clip_norm=2.5),
    )
    words = shlex.split(shlex.join([*train_arguments(config), "--out", str(tmp_path / "a")]))
    assert _train_options(words).run == config


@pytest.mark.parametrize("text", ["-a photo of", "--seed", "", ' it\'s a=b, "x" ', "-1", "None", "true"])
def test_any_text_comes_back_from_its_words(text: str, tmp_path: Path) -> None:
    config = preset("default", "fedmpt", data="voc:x")
    method = dataclasses.replace(config.method, class_context_init=text)  # type: ignore[call-arg] # Of FedMPT.
    config = dataclasses.replace(config, method=method, backbone=text or "x")
    words = shlex.split(shlex.join([*train_arguments(config), "--out", str(tmp_path / "a")]))
    assert _train_options(words).run == config
