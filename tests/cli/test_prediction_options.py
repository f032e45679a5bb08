"""Mixing, the best round and soft ties from the command line: in training, afterwards, and for one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from command_line import Command, Outcome, Place, assert_refused, read_results, read_rounds, snapshot
from safetensors.torch import load_file
from torch import Tensor
from toy_method import Toy, ToyConfig

import fedmpt
from fedmpt.backbone.text_tower import TextTower
from fedmpt.conditions.labels.counts import read_counts
from fedmpt.conditions.labels.ties import Ties
from fedmpt.data import load_data
from fedmpt.evaluation.scoring import probabilities
from fedmpt.evaluation.soft_ties import soft_ties
from fedmpt.inference.tagger import load_trained
from fedmpt.methods import METHODS
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.runs.config import RunConfig
from fedmpt.seeding import generator
from fedmpt.state import set_state
from fedmpt.types import UNKNOWN, Batch, ImageData, Split

# Drawn pictures whose labels come together: of so few photos as other tests have, no two classes are tied.
SCENES = "scenes:num_train=60,num_test=60,spurious=0.9"
METHOD = ("--method", "promptfl", "--num-context", 2, "--rounds", 2, "--eval-every", 1)
Train = Callable[..., Path]


@pytest.fixture
def train(place: Place, run: Command, tmp_path: Path) -> Train:
    """Trains on the pictures with more options, PromptFL unless they name a method; gives the folder of the run."""

    def with_options(name: str, *words: object) -> Path:
        out = tmp_path / name
        start = ("train", "--data", SCENES, "--backbone", "scenes-clip", "--setting", "iid", "--clients", 3)
        method = () if "--method" in words else METHOD
        outcome = run(*start, *method, "--cache", place.cache, "--out", out, *words)
        assert outcome.code == 0, outcome.err
        (out / "said").write_text(outcome.err)
        return out

    return with_options


@pytest.fixture
def on(place: Place, run: Command) -> Callable[..., Outcome]:
    """Runs evaluate or calibrate on a run's checkpoint."""

    def command(name: str, out: Path, *words: object) -> Outcome:
        start = (name, "--checkpoint", out / "checkpoint", "--data", SCENES, "--cache", place.cache)
        return run(*start, *words)

    return command


def evaluated(on: Callable[..., Outcome], out: Path, *words: object) -> dict[str, Any]:
    outcome = on("evaluate", out, "--out", out.parent / "scores.json", *words)
    assert outcome.code == 0, outcome.err
    return json.loads((out.parent / "scores.json").read_text())


def shown(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("test", "test_calibrated", "context_shift", "test_personal") if key in found}


def test_calibrating_afterwards_gives_what_training_with_the_options_gives(
    train: Train, on: Callable[..., Outcome]
) -> None:
    options = ("--soft-ties", 3, "--mix", 0.5)
    plain, other = train("plain"), train("other", *options)
    expected = read_results(other)
    assert shown(evaluated(on, other)) == shown(expected)
    assert shown(read_results(plain)) != shown(expected)
    assert [line["loss"] for line in read_rounds(plain)] == [line["loss"] for line in read_rounds(other)]
    outcome = on("calibrate", plain, *options)
    assert outcome.code == 0, outcome.err
    assert "mix 0.5, soft ties 3: fitted on 60 images" in outcome.err
    assert shown(evaluated(on, plain)) == shown(expected)
    for name in ("prediction.json", "calibration.json", "counts.json"):
        assert (plain / "checkpoint" / name).read_bytes() == (other / "checkpoint" / name).read_bytes()
    assert json.loads((plain / "checkpoint" / "prediction.json").read_text()) == {"mix": 0.5, "soft_ties": 3.0}
    # And back again; one of the options alone.
    assert on("calibrate", plain, "--soft-ties", 0, "--mix", 1).code == 0
    assert shown(evaluated(on, plain)) == shown(read_results(plain))
    assert on("calibrate", other, "--mix", 1).code == 0
    assert json.loads((other / "checkpoint" / "prediction.json").read_text()) == {"mix": 1.0, "soft_ties": 3.0}


def test_the_final_probabilities_are_those_of_the_mixed_state_with_soft_ties(
    train: Train, run: Command, place: Place
) -> None:
    out = train("a", "--soft-ties", 2, "--mix", 0.25)
    tagger = fedmpt.load(out)
    (path,) = (out / "checkpoint").glob("state-*.safetensors")
    start = tagger.config.method.build(tagger.backbone, tagger.class_names, generator=first_draw(tagger.config))
    for name, tensor in tagger.method.state_dict().items():
        expected = 0.25 * load_file(path)[name] + 0.75 * start.state_dict()[name]
        torch.testing.assert_close(tensor, expected)
    test = load_data(SCENES, cache=place.cache).test
    features = tagger.features(test, data=SCENES, cache=place.cache)
    ties = Ties.of(read_counts(out / "checkpoint" / "counts.json").counts)
    raw = probabilities(tagger.method, features)
    expected = soft_ties(raw, ties, 2.0)
    assert (expected - raw).abs().max() > 1e-3
    assert tagger.calibration is not None
    answer = json.loads(run("predict", "--checkpoint", out / "checkpoint", "--json", *test.files[:3]).out)
    for row, of_image in zip(answer, tagger.calibration.calibrated(expected[:3]), strict=True):
        found = {label["name"]: label["probability"] for label in row["labels"]}
        in_order = torch.tensor([found[name] for name in tagger.class_names])
        torch.testing.assert_close(in_order, of_image, atol=1e-4, rtol=1e-3)


def first_draw(config: RunConfig) -> torch.Generator:
    return generator(config.seed, "init")


def test_another_strength_for_one_call_has_no_thresholds(
    train: Train, on: Callable[..., Outcome], run: Command
) -> None:
    out = train("a")
    before = snapshot(out / "checkpoint")
    scores = evaluated(on, out, "--soft-ties", 2)
    assert "test_calibrated" not in scores
    assert scores["test"] != read_results(out)["test"]
    (note,) = scores["notes"]
    assert "fedmpt calibrate fits them" in note
    assert "test_calibrated" in evaluated(on, out, "--soft-ties", 0)
    (image,) = load_data(SCENES).test.files[:1]
    said = run("predict", "--checkpoint", out / "checkpoint", "--soft-ties", 2, "--json", image)
    assert said.err == f"note: {note}\n"
    labels = json.loads(said.out)[0]["labels"]
    assert all(label["present"] == (label["probability"] > 0.5) for label in labels)
    assert snapshot(out / "checkpoint") == before


def test_counts_of_sites_in_place_of_the_runs_own(
    train: Train, on: Callable[..., Outcome], run: Command, tmp_path: Path
) -> None:
    out = train("a")
    sites = [tmp_path / f"site{number}.json" for number in (1, 2)]
    for number, site in enumerate(sites):
        data = f"scenes:num_train=90,num_test=60,spurious=0.9,seed={number + 5}"
        assert run("conditions", "count", "--data", data, "--out", site).code == 0
    own = (out / "checkpoint" / "counts.json").read_bytes()
    assert on("calibrate", out, "--soft-ties", 2, "--counts", *sites).code == 0
    given = json.loads((out / "checkpoint" / "prediction.json").read_text())["counts"]
    summed = read_counts(sites[0]).counts + read_counts(sites[1]).counts
    stored = read_counts(out / "checkpoint" / given).counts
    assert torch.equal(stored.pairs, summed.pairs)
    assert stored.num_images == 180
    assert (out / "checkpoint" / "counts.json").read_bytes() == own
    tagger = load_trained(out / "checkpoint")
    assert tagger.model.ties is not None
    assert torch.equal(tagger.model.ties.prior, Ties.of(summed).prior)
    # What is stored stays until others are given.
    assert on("calibrate", out, "--soft-ties", 3).code == 0
    assert json.loads((out / "checkpoint" / "prediction.json").read_text()) == {
        "mix": 1.0,
        "soft_ties": 3.0,
        "counts": given,
    }


def test_a_checkpoint_without_counts_asks_for_some(train: Train, on: Callable[..., Outcome], tmp_path: Path) -> None:
    """As those of before there were any."""
    out = train("a")
    (out / "checkpoint" / "counts.json").rename(tmp_path / "counts.json")
    (out / "checkpoint" / "prediction.json").unlink()
    assert shown(evaluated(on, out)) == shown(read_results(out))
    message = r"counts\.json is missing, .* fedmpt calibrate --counts"
    assert_refused(on("evaluate", out, "--soft-ties", 1), message)
    assert_refused(on("calibrate", out, "--soft-ties", 1), message)
    assert on("calibrate", out, "--soft-ties", 1, "--counts", tmp_path / "counts.json").code == 0


def test_what_calibrate_refuses(
    train: Train, on: Callable[..., Outcome], run: Command, place: Place, tmp_path: Path
) -> None:
    out = train("a")
    before = snapshot(out)
    for words, message in (
        (["--mix", 0], r"--mix must be in \(0, 1\], got 0\.0"),
        (["--soft-ties", -1], "--soft-ties must not be negative, got -1"),
        (["--counts", out / "checkpoint" / "counts.json"], "--counts is for soft ties, which are 0 in this checkpoint"),
        (["--soft-ties", 1, "--counts", tmp_path / "none.json"], r"none\.json cannot be read"),
        (["--data", f"voc:{place.voc}"], "trained for 28 classes, the data has 20"),
    ):
        assert_refused(on("calibrate", out, *words), message)
    assert snapshot(out) == before
    for name in ("calibration.json", "prediction.json"):
        (out / "checkpoint" / name).unlink()
    assert_refused(on("calibrate", out, "--mix", 0.5), "is of a run that has not ended; finish it first")


def test_calibrate_takes_the_data_of_the_run_only(train: Train, on: Callable[..., Outcome]) -> None:
    """Without the option ties the moved images, on which the run was scored, would be training images."""
    tied = f"{SCENES},ties=0.5,ties_pairs={':'.join(load_data(SCENES).class_names[:2])}"
    out = train("a", "--data", tied, "--held-out", 0.2)
    before = snapshot(out)
    message = f"checkpoint was trained on other images, labels or clients than --data {SCENES} gives; .* --data {tied}$"
    assert_refused(on("calibrate", out, "--soft-ties", 1), message)
    assert snapshot(out) == before
    assert on("calibrate", out, "--data", tied, "--soft-ties", 1).code == 0


def test_a_run_that_has_not_ended_predicts_as_it_will(
    train: Train, on: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--soft-ties", 3, "--mix", 0.5)
    expected = read_results(train("whole", *options))
    monkeypatch.setattr("fedmpt.runs.run.finish", lambda *_, **__: ({}, []))
    monkeypatch.setattr("fedmpt.cli.train.print_scores", lambda _: None)
    out = train("part", *options)
    assert not (out / "results.json").exists()
    found = evaluated(on, out)
    assert found["test"] == expected["test"]
    assert found["test"] != evaluated(on, out, "--soft-ties", 0)["test"]
    (out / "checkpoint" / "counts.json").unlink()
    assert_refused(on("evaluate", out), r"counts\.json is missing, .* or go without: --soft-ties 0")


@pytest.mark.parametrize(
    "hidden", [("masked-unknown", "--partial-fraction", 0.3), ("missing-classes", "--classes-per-client", 9)]
)
def test_hidden_labels_and_validation_are_those_of_the_run(
    train: Train, on: Callable[..., Outcome], hidden: tuple[object, ...]
) -> None:
    out = train("a", "--partial-labels", *hidden, "--validation", 0.2, "--soft-ties", 2)
    expected = snapshot(out / "checkpoint")
    said = on("calibrate", out)
    assert said.code == 0
    assert "fitted on 48 images" in said.err
    assert {name: content for name, (content, _) in snapshot(out / "checkpoint").items()} == {
        name: content for name, (content, _) in expected.items()
    }


class Falling(Toy):
    """Starts from what the texts say, and is trained on labels the wrong way round."""

    def forward(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        return super().forward(replace(batch, pooled=10 * F.normalize(batch.pooled, dim=-1)), text)

    def loss(self, batch: Batch, text: Tensor | None = None) -> Tensor:
        return super().loss(replace(batch, labels=1 - batch.labels), text)


@dataclass(frozen=True)
class FallingConfig(ToyConfig):
    name: ClassVar[str] = "falling"

    def build(self, backbone: Any, class_names: Sequence[str], *, generator: torch.Generator) -> Falling:
        texts = hand_written_features(TextTower(backbone), class_names)
        method = Falling(*texts.shape, personal_offset=True, generator=generator)
        set_state(method, {"weight": texts, "offset": method.offset})
        return method


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Options of a run whose first round is its best."""
    monkeypatch.setitem(METHODS, "falling", FallingConfig)
    return ("--method", "falling", "--rounds", 4, "--eval-every", 1, "--learning-rate", 2)


def test_the_best_round_is_scored_and_used(
    train: Train, on: Callable[..., Outcome], falling: tuple[object, ...]
) -> None:
    last = train("last", *falling, "--held-out", 0.25)
    best = train("best", *falling, "--held-out", 0.25, "--keep", "best")
    rounds = read_rounds(best)
    top = max(rounds, key=lambda line: (line["held_out_mAP"], -line["round"]))
    assert top["held_out_mAP"] > rounds[-1]["held_out_mAP"] + 5, "or this shows nothing"
    assert [line["held_out_mAP"] for line in read_rounds(last)] == [line["held_out_mAP"] for line in rounds]
    results = read_results(best)
    assert (results["kept_round"], read_results(last)["kept_round"]) == (top["round"], 4)
    assert results["held_out_images"] == 15
    assert sum(client["images"] for client in results["clients"]) == 45
    assert results["test"]["mAP"] == top["mAP"]
    assert read_results(last)["test"]["mAP"] == rounds[-1]["mAP"]
    assert results["test_personal"] != read_results(last)["test_personal"]
    assert shown(evaluated(on, best)) == shown(results)
    assert json.loads((best / "checkpoint" / "calibration.json").read_text()) != json.loads(
        (last / "checkpoint" / "calibration.json").read_text()
    )
    said = (best / "said").read_text()
    assert "15 of the training images held out" in said
    assert f"held-out mAP {top['held_out_mAP']:5.2f}" in said
    assert results["notes"] == read_results(last)["notes"] == []


def test_a_tenth_is_held_out_for_the_best_round_unless_more_is_given(train: Train, falling: tuple[object, ...]) -> None:
    assert read_results(train("a", *falling, "--keep", "best"))["held_out_images"] == 6


def test_a_fall_is_told(train: Train, falling: tuple[object, ...]) -> None:
    out = train("a", *falling)
    scores = {line["round"]: line["mAP"] for line in read_rounds(out)}
    best = max(scores, key=lambda index: scores[index])
    (note,) = read_results(out)["notes"]
    assert note.startswith(f"round {best} had {scores[best]:.1f} mAP on the test set, and the last, round 4, has ")
    assert f"note: {note}" in (out / "said").read_text().splitlines()


def test_held_out_images_that_show_nothing_are_refused(
    place: Place, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hide_all(_: object, data: ImageData, __: object) -> Split:
        return replace(data.train, labels=torch.full_like(data.train.labels, UNKNOWN))

    monkeypatch.setattr("fedmpt.runs.prepare.hide_labels", hide_all)
    message = r"--held-out 0\.2 holds out \d images, and none shows any of the classes, .*hold out more"
    assert_refused(run(*place.train_words(tmp_path / "a", "--held-out", "0.2")), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mix", "1.2"], r"--mix must be in \(0, 1\], got 1\.2"),
        (["--soft-ties", "-1"], "--soft-ties must not be negative, got -1"),
        (["--held-out", "1"], r"--held-out must be in \[0, 1\), got 1\.0"),
        (["--keep", "best", "--held-out", "0"], "--keep best chooses by held-out images; give --held-out above 0"),
        (["--method", "zero-shot", "--keep", "best"], "--keep has no effect: zero-shot trains nothing"),
        (["--method", "zero-shot", "--held-out", "0.1"], "--held-out has no effect: zero-shot trains nothing"),
        (["--method", "zero-shot", "--mix", "0.5"], "--mix has no effect: zero-shot trains nothing"),
    ],
)
def test_wrong_options_of_training(place: Place, run: Command, tmp_path: Path, words: list[str], message: str) -> None:
    assert_refused(run(*place.train_words(tmp_path / "a", *words)), message)
    assert not (tmp_path / "a").exists()


def test_zero_shot_predicts_with_soft_ties_too(
    place: Place, run: Command, on: Callable[..., Outcome], tmp_path: Path
) -> None:
    start = ("train", "--method", "zero-shot", "--data", SCENES, "--backbone", "scenes-clip", "--cache", place.cache)
    for name, *words in (["plain"], ["soft", "--soft-ties", 2]):
        assert run(*start, "--out", tmp_path / name, *words).code == 0
    results = read_results(tmp_path / "soft")
    assert results["test"] != read_results(tmp_path / "plain")["test"]
    assert shown(evaluated(on, tmp_path / "soft")) == shown(results)
    message = "--mix has no effect: zero-shot trains nothing; leave it out"
    assert_refused(on("calibrate", tmp_path / "soft", "--mix", 0.5), message)
    assert on("calibrate", tmp_path / "soft", "--mix", 1).code == 0
