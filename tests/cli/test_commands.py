"""What the commands print and write when everything is right."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest
import torch
from command_line import Command, Place, assert_refused, read_results, read_rounds
from safetensors.torch import load_file
from tiny_voc import write_tiny_voc

import fedmpt
import fedmpt.cli.main
from fedmpt.conditions.labels.counts import count_labels, read_counts
from fedmpt.data import load_data
from fedmpt.data.features.store import open_features
from fedmpt.evaluation.scoring import probabilities
from fedmpt.inference.tagger import load_trained
from fedmpt.methods import METHODS

SCORES = ("mAP", "CF1", "OF1", "CF1_PR")


def shown(scores: dict[str, float], *names: str) -> list[str]:
    return [f"{scores[name]:.2f}" for name in names or SCORES]


def row_of(table: str, start: str) -> list[str]:
    (row,) = [line for line in table.splitlines() if line.strip("│ ").startswith(start)]
    return row.strip("│ ").removeprefix(start).replace("│", " ").split()


def test_the_folder_of_a_run(finished: Path, place: Place) -> None:
    assert sorted(path.name for path in finished.iterdir()) == [
        ".fedmpt.lock",
        "checkpoint",
        "config.json",
        "results.json",
        "rounds.jsonl",
    ]
    names = sorted(path.name for path in (finished / "checkpoint").iterdir())
    assert names[:3] == ["calibration.json", "checkpoint.json", "counts.json"]
    assert names[3] == "prediction.json"
    (tensors,) = names[4:]
    config = json.loads((finished / "config.json").read_text())
    assert config["method"]["name"] == "fedmpt"
    assert config["data"] == f"voc:{place.voc}"
    state = load_file(finished / "checkpoint" / tensors)
    params = read_results(finished)["params"]
    assert params == {
        "trainable": sum(tensor.numel() for tensor in state.values()),
        "sent_bytes_per_round": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
        "clients": 4,
    }
    assert params["trainable"] > 0


@pytest.mark.parametrize("method", ["promptfl", "zero-shot"])
def test_a_run_leaves_the_counts_of_the_labels_that_training_saw(
    place: Place, run: Command, tmp_path: Path, method: str
) -> None:
    words = ["--method", method, "--partial-labels", "masked-unknown", "--partial-fraction", 0.3]
    assert run(*place.train_words(tmp_path / "a", *words, rounds=1)).code == 0
    site = read_counts(tmp_path / "a" / "checkpoint" / "counts.json")
    data = load_data(f"voc:{place.voc}")
    assert (site.name, site.class_names, site.noise) == ("all clients", data.class_names, None)
    seen, everything = site.counts, count_labels(data.train.labels)
    assert seen.num_images == 24
    assert seen.known.diagonal().sum().item() == pytest.approx(0.7 * 24 * 20, rel=0.1)
    assert (seen.singles <= everything.singles).all()
    assert 0 < seen.singles.sum() < everything.singles.sum()


def test_results_and_rounds(finished: Path) -> None:
    results, rounds = read_results(finished), read_rounds(finished)
    assert set(results) == {
        *("test", "test_calibrated", "params", "clients", "time", "sources", "notes", "versions", "skipped_images")
    }
    assert [client["name"] for client in results["clients"]] == [f"client {number}" for number in range(4)]
    assert sum(client["images"] for client in results["clients"]) == 24
    (note,) = results["notes"]
    assert "similarities of patches and classes spread by 0.48" in note, "the tiny model is unlike others"
    assert set(results["test"]) == {*SCORES, "per_class", "threshold", "classes_without_positives", "num_images"}
    per_class = results["test"]["per_class"]
    assert {name for name, score in per_class.items() if score is not None} == {"dog", "cat", "person", "tv monitor"}
    known = [score for score in per_class.values() if score is not None]
    assert results["test"]["mAP"] == pytest.approx(sum(known) / 4)
    assert results["test"]["num_images"] == 8
    assert results["versions"]["fedmpt"] == fedmpt.__version__
    assert [line["round"] for line in rounds] == [1, 2]
    assert all(line["clients"] == [0, 1, 2, 3] for line in rounds)
    assert "mAP" not in rounds[0], "evaluated every fifth round and at the end"
    assert {name: rounds[1][name] for name in SCORES} == {name: results["test"][name] for name in SCORES}


def test_train_says_how_it_goes(place: Place, run: Command, tmp_path: Path) -> None:
    outcome = run(*place.train_words(tmp_path / "a", "--eval-every", 1))
    assert outcome.code == 0
    results = read_results(tmp_path / "a")
    assert f"fedmpt: {results['params']['trainable']:,} trained parameters, 2 rounds" in outcome.err
    assert "4 clients, 24 training and 8 test images" in outcome.err
    (note,) = results["notes"]
    said = outcome.err.splitlines()
    (first_round,) = [number for number, line in enumerate(said) if line.startswith("round   1/2")]
    assert f"note: {note}" in said[:first_round]
    for line in read_rounds(tmp_path / "a"):
        (printed,) = [text for text in outcome.err.splitlines() if text.startswith(f"round   {line['round']}/2")]
        assert f"4 clients  loss {line['loss']:.4f}  mAP {line['mAP']:5.2f}" in printed
    assert row_of(outcome.out, "fixed 0.5") == shown(results["test"])
    assert row_of(outcome.out, "calibrated by the clients") == shown(results["test_calibrated"])


def test_quiet_prints_nothing(place: Place, run: Command, tmp_path: Path) -> None:
    outcome = run(*place.train_words(tmp_path / "a", "--quiet"))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert read_results(tmp_path / "a")["test"]["num_images"] == 8


@pytest.mark.parametrize(("method", "setting"), [*zip(METHODS, cycle(["heterogeneous", "iid"]), strict=False)])
def test_every_method_trains_and_is_evaluated(
    place: Place, run: Command, tmp_path: Path, method: str, setting: str
) -> None:
    parted = ["--t", "0.2"] if setting == "heterogeneous" else ["--clients", "3"]
    words = ["--method", method, "--setting", setting, *parted]
    assert run(*place.train_words(tmp_path / "a", *words, t=None)).code == 0
    results = read_results(tmp_path / "a")
    assert results["params"]["clients"] == (4 if setting == "heterogeneous" else 3)
    assert len(read_rounds(tmp_path / "a")) == (0 if method == "zero-shot" else 2)
    evaluate = ("evaluate", "--checkpoint", tmp_path / "a/checkpoint", "--data", f"voc:{place.voc}")
    assert run(*evaluate, "--cache", place.cache).code == 0
    evaluation = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert evaluation["test"] == results["test"]
    assert evaluation["test_calibrated"] == results["test_calibrated"]


def test_bf16_is_another_computation_with_near_scores(
    place: Place, finished: Path, run: Command, tmp_path: Path
) -> None:
    assert run(*place.train_words(tmp_path / "a", "--dtype", "bf16")).code == 0
    losses = [line["loss"] for line in read_rounds(tmp_path / "a")]
    reference = [line["loss"] for line in read_rounds(finished)]
    assert losses != reference
    assert losses == pytest.approx(reference, rel=0.02)


def test_participation_draws_a_part_of_the_clients(place: Place, run: Command, tmp_path: Path) -> None:
    words = ["--setting", "iid", "--clients", "24", "--participation", "0.25"]
    assert run(*place.train_words(tmp_path / "a", *words, t=None)).code == 0
    cohorts = [line["clients"] for line in read_rounds(tmp_path / "a")]
    assert [len(cohort) for cohort in cohorts] == [6, 6]
    assert cohorts[0] != cohorts[1]


def test_evaluate_prints_and_writes_the_scores_of_the_run(
    place: Place, finished: Path, run: Command, tmp_path: Path
) -> None:
    words = ("evaluate", "--checkpoint", finished / "checkpoint", "--data", f"voc:{place.voc}", "--cache", place.cache)
    outcome = run(*words, "--protocol", "oracle", "--out", tmp_path / "new" / "scores.json")
    assert outcome.code == 0
    assert f"written to {tmp_path / 'new' / 'scores.json'}" in outcome.err
    scores, results = json.loads((tmp_path / "new" / "scores.json").read_text()), read_results(finished)
    assert scores["test"] == results["test"]
    assert row_of(outcome.out, "fixed 0.5") == shown(results["test"])
    best = [scores["oracle"][name] for name in ("CF1", "OF1", "CF1_PR")]
    assert row_of(outcome.out, "oracle: chosen on the test labels") == [f"{found['score']:.2f}" for found in best]
    assert all(found["score"] >= results["test"][name] for name, found in scores["oracle"].items())


def test_predict_scores_an_image_as_evaluate_does(place: Place, finished: Path, run: Command) -> None:
    model = load_trained(finished / "checkpoint")
    test = load_data(f"voc:{place.voc}").test
    expected = probabilities(model.method, open_features(model.backbone, test, cache=place.cache, progress=False))
    assert model.calibration is not None
    calibrated = model.calibration.calibrated(expected)
    outcome = run("predict", "--checkpoint", finished / "checkpoint", "--json", *test.files)
    assert outcome.code == 0
    answer = json.loads(outcome.out)
    assert [row["image"] for row in answer] == [str(path) for path in test.files]
    for row, of_image, uncalibrated in zip(answer, calibrated, expected, strict=True):
        found = {label["name"]: label for label in row["labels"]}
        in_order = [found[name] for name in model.class_names]
        torch.testing.assert_close(
            torch.tensor([label["probability"] for label in in_order]), of_image, atol=1e-4, rtol=1e-3
        )
        assert [label["present"] for label in in_order] == (uncalibrated > model.calibration.thresholds).tolist()
        assert row["labels"] == sorted(row["labels"], key=lambda label: -label["probability"])


def test_predict_prints_labels(finished: Path, place: Place, run: Command) -> None:
    image = place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    (answer,) = json.loads(run("predict", "--checkpoint", finished / "checkpoint", "--json", image).out)
    outcome = run("predict", "--checkpoint", finished / "checkpoint", "--top", 20, image)
    first, *lines = outcome.out.splitlines()
    assert first == str(image), "long paths are not wrapped"
    assert [line.split("  (below")[0].strip() for line in lines] == [
        f"{label['probability']:.1%}  {label['name']}" for label in answer["labels"]
    ]
    below = [line.endswith("(below threshold)") for line in lines]
    assert below == [not label["present"] for label in answer["labels"]]


def test_predict_with_classes_that_training_never_saw(place: Place, finished: Path, run: Command) -> None:
    checkpoint, image = finished / "checkpoint", place.voc / "VOC2007" / "JPEGImages" / "000500.jpg"
    new = ("zebra", "traffic light")
    outcome = run("predict", image, "--checkpoint", checkpoint, "--json", "--add-classes", *new)
    assert outcome.code == 0
    assert outcome.err.startswith("note: no training image had labels of zebra, traffic light: the threshold is 0.5")
    ((_, expected),) = load_trained(checkpoint).with_classes(new).tag([image])
    (answer,) = json.loads(outcome.out)
    assert [label["name"] for label in answer["labels"]] == [label.name for label in expected]
    assert len(expected) == 22
    assert [label["present"] for label in answer["labels"]] == [label.present for label in expected]
    words = ("predict", "--checkpoint", checkpoint, "--add-classes", "zebra")
    assert_refused(run(*words, image), "give at least one image file, before --add-classes")
    assert_refused(run("predict", image, *words[1:], "dog"), r"'dog' is a class of the run already \('dog'\)")


def test_skipped_images_are_listed(place: Place, run: Command, tmp_path: Path) -> None:
    voc = write_tiny_voc(tmp_path / "voc")
    corrupt = [voc / "VOC2007" / "JPEGImages" / name for name in ("000003.jpg", "000501.jpg")]
    for path in corrupt:
        path.write_text("no picture")
    outcome = run(*place.train_words(tmp_path / "a", "--data", f"voc:{voc}", "--skip-corrupt"))
    assert outcome.code == 0
    results = read_results(tmp_path / "a")
    assert results["skipped_images"] == [str(path) for path in corrupt]
    assert results["test"]["num_images"] == 7
    assert [f"left out, cannot be read: {path}" in outcome.err.splitlines() for path in corrupt] == [True, True]
    words = ("evaluate", "--checkpoint", tmp_path / "a/checkpoint", "--data", f"voc:{voc}", "--cache", place.cache)
    outcome = run(*words, "--skip-corrupt")
    assert f"left out, cannot be read: {corrupt[1]}" in outcome.err
    assert json.loads((tmp_path / "a" / "evaluation.json").read_text())["test"] == results["test"]


@pytest.mark.parametrize(
    "words", [[], ["train"], ["tune"], ["evaluate"], ["calibrate"], ["predict"], ["train", "--method", "promptfl"]]
)
def test_help_has_options_and_examples(run: Command, words: list[str]) -> None:
    outcome = run(*words, "--help")
    assert outcome.code == 0
    assert "example" in outcome.out
    assert f"fedmpt {words[0] if words else 'train'} --" in outcome.out
    assert ("--num-condition-context" in outcome.out) == (words in (["train"], ["tune"]))


def test_version(run: Command) -> None:
    assert run("--version").out == f"fedmpt {fedmpt.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        *(["--help"], ["--version"], ["evaluate", "--help"], ["calibrate", "--help"], ["predict", "--help"]),
        ["predict", "--tpo", "3"],
    ],
)
def test_answers_that_need_no_torch_do_not_wait_for_it(words: list[str]) -> None:
    code = (
        "import sys, fedmpt.cli.main\n"
        f"try: fedmpt.cli.main.main({words!r})\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == []
