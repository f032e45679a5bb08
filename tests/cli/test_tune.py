"""``fedmpt tune``: what it prints and writes, from whom it keeps away, and how it goes on after a kill."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Command, Place, assert_refused, read_results, snapshot
from sklearn.metrics import average_precision_score

from fedmpt.conditions.labels.counts import read_counts
from fedmpt.data import load_data
from fedmpt.federated.balance import Balance
from fedmpt.inference.tagger import load_trained
from fedmpt.seeding import generator

PROMPTFL = ("--method", "promptfl", "--num-context", 2)
SCENES = "scenes:num_train=60,num_test=60,spurious=0.9"
Words = Callable[..., list[str]]


@pytest.fixture
def words(place: Place) -> Words:
    """Words of ``tune`` on the tiny VOC, or other data, in one round."""

    def of(out: Path, *extra: object, data: str = "", backbone: object = place.clip) -> list[str]:
        start: list[object] = ["tune", "--data", data or f"voc:{place.voc}", "--backbone", backbone, "--rounds", 1]
        setting = ("--setting", "iid", "--clients", 3, "--validation", 0.25, "--cache", place.cache)
        return [str(word) for word in (*start, *setting, "--out", out, *extra)]

    return of


def tuned(out: Path) -> dict[str, Any]:
    return json.loads((out / "tune.json").read_text())


def without_seconds(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: value for key, value in trial.items() if key != "seconds"} for trial in found["trials"]]


def command_in(printed: str) -> str:
    (command,) = [line for line in printed.splitlines() if line.startswith("fedmpt train ")]
    return command


def test_the_printed_command_gives_the_best_trial_and_the_test_set_is_not_read(
    place: Place, words: Words, run: Command, tmp_path: Path
) -> None:
    voc, cache = tmp_path / "voc", tmp_path / "cache"
    shutil.copytree(place.voc, voc)
    tests = list((voc / "VOC2007" / "JPEGImages").glob("0005*.jpg"))
    for path in tests:
        path.write_bytes(b"no picture")
    out = tmp_path / "tune"
    outcome = run(*words(out, "--cache", cache, data=f"voc:{voc}"))
    assert outcome.code == 0, outcome.err
    found = tuned(out)
    assert command_in(outcome.out) == found["command"]
    given = shlex.split(found["command"])[1:]
    assert "--validation" not in given
    assert given[given.index("--out") + 1] == str(out / "best")
    again = tmp_path / "again"
    assert run(*given, "--validation", 0.25, "--out", again).code == 0
    test = read_results(again)["test"]
    assert (test["mAP"], test["CF1"]) == (found["best"]["mAP"], found["best"]["CF1"])
    assert_refused(run(*given), "the image cannot be read")  # The test images, at last.


def test_every_trial_is_what_it_says(words: Words, run: Command, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "tune"
    outcome = run(*words(out, *PROMPTFL, data=SCENES, backbone="scenes-clip"))
    assert outcome.code == 0, outcome.err
    found = tuned(out)
    data = load_data(SCENES)
    for trial in found["trials"]:
        options = trial["options"]
        folder = out / f"learning-rate-{options['learning_rate']:g}" / "checkpoint"
        tagger = load_trained(folder, mix=options["mix"], soft_ties=options["soft_ties"])
        order = torch.randperm(60, generator=generator(0, "validation"))
        held = tagger.features(data.train, data=SCENES, cache=place.cache).subset(order[:15].sort().values)
        probabilities = tagger.model.probabilities(held)
        weights = Balance.of(read_counts(folder / "counts.json").counts).weights(held.labels)
        assert weights.std() > 0.1, "or this shows nothing"
        for name, by in (("mAP", torch.ones_like(weights)), ("balanced_mAP", weights)):
            shown = (held.labels == 1).any(0).nonzero().flatten().tolist()
            each = [
                average_precision_score(held.labels[:, c], probabilities[:, c], sample_weight=by[:, c]) for c in shown
            ]
            assert trial[name] == pytest.approx(100 * np.mean(each), abs=1e-6)
    printed = outcome.out.splitlines()
    assert sum(line.startswith("│") for line in printed) == len(found["trials"])
    trained = [trial for trial in found["trials"] if trial["seconds"] is not None]
    lines = [line for line in outcome.err.splitlines() if not line.startswith("computing image features")]
    for number, (line, trial) in enumerate(zip(lines, trained, strict=True), start=1):
        assert line.startswith(f"run {number} of at most 4: learning-rate {trial['options']['learning_rate']:g}: mAP ")
        assert line.endswith(f"mAP {trial['mAP']:.1f}, balanced mAP {trial['balanced_mAP']:.1f}")


def test_soft_ties_are_offered_and_not_chosen(words: Words, run: Command, tmp_path: Path) -> None:
    out = tmp_path / "tune"
    outcome = run(*words(out, *PROMPTFL, data=SCENES, backbone="scenes-clip"))
    found = tuned(out)
    assert "--soft-ties" not in found["command"]
    plain, soft = found["best"], found["with_soft_ties"]
    assert soft is not None, "or this shows nothing"
    last = outcome.out.splitlines()[-1]
    assert last == (
        "with fewer reports of classes because of their usual company: add --soft-ties "
        f"{soft['options']['soft_ties']:g} (mAP {plain['mAP']:.1f} -> {soft['mAP']:.1f}, balanced mAP "
        f"{plain['balanced_mAP']:.1f} -> {soft['balanced_mAP']:.1f})"
    )


def test_a_cut_tie_shows_who_is_reported_without_being_there(
    words: Words, run: Command, tmp_path: Path, place: Place
) -> None:
    out, data = tmp_path / "tune", f"voc:{place.voc},ties=1,ties_pairs=person:cat"
    outcome = run(*words(out, *PROMPTFL, data=data))
    assert outcome.code == 0, outcome.err
    assert "only a" in outcome.out
    for trial in tuned(out)["trials"][:3]:
        results = read_results(out / f"learning-rate-{trial['options']['learning_rate']:g}")
        assert trial["false_coactivation"] == results["context_shift"]["moved"]["false_coactivation"]
        assert trial["mAP"] == results["test"]["mAP"]
    assert outcome.err.count("note: ties cut") == 1


KILLED = """
import os, signal, sys
from fedmpt.cli.main import main
from fedmpt.runs.records import RoundLog
append, left = RoundLog.append, 3
def append_then_die(log, done):
    global left
    append(log, done)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
RoundLog.append = append_then_die
main()
"""


def test_a_killed_search_goes_on(words: Words, run: Command, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "tune"
    assert run(*words(whole, *PROMPTFL, "--rounds", 2)).code == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    given = words(out, *PROMPTFL, "--rounds", 2)
    done = subprocess.run([sys.executable, "-c", KILLED, *given], env=environment, capture_output=True, check=False)
    assert done.returncode == -9
    finished = snapshot(out / "learning-rate-0.05")
    assert "results.json" in finished
    assert not (out / "tune.json").exists()
    assert run(*given).code == 0
    assert snapshot(out / "learning-rate-0.05") == finished, "what was complete is not repeated"
    assert without_seconds(tuned(out)) == without_seconds(tuned(whole))
    before = snapshot(out)
    assert run(*given).code == 0
    assert snapshot(out).keys() == before.keys()
    runs = [name for name in before if "/" in name]
    assert all(snapshot(out)[name] == before[name] for name in runs)


def test_interrupted(words: Words, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmpt.runs.tune.train", interrupt)
    outcome = run(*words(tmp_path / "tune"))
    assert outcome.code == 130
    assert outcome.err.endswith("fedmpt tune: interrupted; complete rounds are stored, the same command goes on\n")


def test_quiet(words: Words, run: Command, tmp_path: Path) -> None:
    outcome = run(*words(tmp_path / "tune", *PROMPTFL, "--quiet"))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert len(tuned(tmp_path / "tune")["trials"]) >= 8


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--validation", 0], "--validation must be above 0"),
        (
            ["--partition", "p.json"],
            "--partition divides all training images, and fedmpt tune holds some out; give a set",
        ),
        (["--mix", 0.5], "--mix is one of the options that are tried; leave it out"),
        (["--soft-ties", 1], "--soft-ties is one of the options that are tried; leave it out"),
        (["--method", "zero-shot"], "zero-shot trains nothing, so there is nothing to tune; take another --method"),
        ([*PROMPTFL, "--learning-rate", 1e38], r"training diverged at all learning rates; .* --learning-rate 1e\+38"),
    ],
)
def test_what_is_refused(words: Words, run: Command, tmp_path: Path, extra: list[object], message: str) -> None:
    outcome = run(*words(tmp_path / "tune", *extra))
    assert (outcome.code, outcome.out) == (2, "")
    assert re.match(f"fedmpt tune: .*{message}", outcome.err.splitlines()[-1]), outcome.err
    assert not (tmp_path / "tune" / "tune.json").exists()


def test_nothing_is_computed_for_a_method_that_trains_nothing(
    place: Place, words: Words, run: Command, tmp_path: Path
) -> None:
    outcome = run(*words(tmp_path / "tune", "--method", "zero-shot", "--cache", tmp_path / "cache"))
    assert outcome.code == 2
    assert not (tmp_path / "cache").exists()


def test_a_folder_with_runs_of_other_options(words: Words, run: Command, tmp_path: Path) -> None:
    assert run(*words(tmp_path / "tune", *PROMPTFL)).code == 0
    outcome = run(*words(tmp_path / "tune", *PROMPTFL, "--seed", 1))
    assert outcome.code == 2
    assert "was started with other options (seed was 0, now 1)" in outcome.err


def test_finished_runs_of_other_labels_are_not_taken(place: Place, words: Words, run: Command, tmp_path: Path) -> None:
    voc, out = tmp_path / "voc", tmp_path / "tune"
    shutil.copytree(place.voc, voc)
    given = words(out, *PROMPTFL, data=f"voc:{voc}")
    assert run(*given).code == 0
    for path in (voc / "VOC2007" / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<name>cat</name>", "<name>cow</name>"))
    outcome = run(*given)
    assert outcome.code == 2
    assert f"--out {out} has trials of something else, give another --out; " in outcome.err
    assert "images, labels or clients (train, test) have changed since the run started" in outcome.err


def test_help(run: Command) -> None:
    outcome = run("tune", "--help")
    assert outcome.code == 0
    assert "fedmpt tune --data folder:photos --out runs/tune" in outcome.out
    assert "--resume" not in outcome.out
    assert "fedmpt tune: give a data set with --data" in run("tune").err
