"""A run that is killed or interrupted, then resumed, is the run that was never stopped."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, Place, assert_refused, read_results, read_rounds, snapshot
from tiny_voc import picture

from fedmpt.cli import main as cli
from fedmpt.federated.rounds import Round
from fedmpt.files import exclusive
from fedmpt.runs.records import RoundLog

DRIVER = Path(__file__).with_name("kill_driver.py")
NUM_ROUNDS = 2


@pytest.fixture(scope="module")
def one_run(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.raises(SystemExit) as stop:
        cli.main(place.train_words(out, "--eval-every", 1, rounds=NUM_ROUNDS))
    assert stop.value.code == 0
    return out


def fedmpt(words: list[str]) -> list[str]:
    return [sys.executable, "-c", "from fedmpt.cli.main import main; main()", *words]


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("time", "seconds")}


def assert_same_run(found: Path, expected: Path) -> None:
    """Equal numbers, equal bytes of tensors, no file more or less, no round missing or twice."""
    assert without_times(read_results(found)) == without_times(read_results(expected))
    assert [without_times(line) for line in read_rounds(found)] == [
        without_times(line) for line in read_rounds(expected)
    ]
    files, expected_files = snapshot(found), snapshot(expected)
    assert files.keys() == expected_files.keys()
    tensors = [name for name in files if name.endswith(".safetensors")]
    assert tensors
    records = [f"checkpoint/{part}.json" for part in ("checkpoint", "calibration", "counts")]
    for name in (*tensors, "config.json", *records):
        assert files[name][0] == expected_files[name][0], name


def test_a_run_killed_at_any_step_continues_to_the_same_numbers(
    place: Place, one_run: Path, run: Command, tmp_path: Path
) -> None:
    words = place.train_words(tmp_path / "ignored", "--eval-every", 1, "--quiet", rounds=NUM_ROUNDS)
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), *words],
        env=one_thread(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    num_tries = int(done.stdout)
    # Six and two batches of features, hashes of both sets of images; config, empty log, calibration, results
    # and, around the calibration, how the checkpoint predicts; tensors and index of each round, and after the first the
    # counts.
    assert num_tries == 6 + 2 + 2 + 7 + 2 * NUM_ROUNDS + 1
    assert_same_run(tmp_path / "0", one_run)
    # Of the features' steps every third: what they leave behind has tests of its own.
    for step in (1, 4, 7, *range(9, num_tries)):
        out, cache = tmp_path / str(step), tmp_path / f"cache{step}"
        assert not (out / "results.json").exists()
        outcome = run(*words, "--out", out, "--cache", cache, "--resume")
        assert outcome.code == 0, outcome.err
        assert_same_run(out, one_run)


def test_half_a_line_of_the_log(place: Place, one_run: Path, run: Command, tmp_path: Path) -> None:
    out = stopped_after_a_round(place, run, tmp_path)
    with (out / "rounds.jsonl").open("a") as file:
        file.write('{"round": 2, "clie')
    assert run("train", "--out", out, "--cache", place.cache, "--resume").code == 0
    assert_same_run(out, one_run)


def stopped_after_a_round(place: Place, run: Command, folder: Path, *words: str) -> Path:
    """A run that got Ctrl-C between the log and the checkpoint of its second round; ``words`` are more options."""
    append = RoundLog.append

    def append_then_stop(log: RoundLog, done: Round) -> None:
        append(log, done)
        if done.index == 2:
            os.kill(os.getpid(), signal.SIGINT)

    # Tests that a shell runs in the background ignore Ctrl-C, unless they say otherwise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RoundLog, "append", append_then_stop)
            outcome = run(*place.train_words(folder / "my run", "--eval-every", 1, *words, rounds=NUM_ROUNDS))
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.code == 130
    assert len(read_rounds(folder / "my run")) == 2
    assert "Traceback" not in outcome.err
    last = outcome.err.splitlines()[-1]
    assert last.startswith("fedmpt train: interrupted; complete rounds are stored, continue with: fedmpt train --out '")
    (folder / "message").write_text(last)
    return folder / "my run"


def test_the_command_that_an_interrupted_run_prints_continues_it(
    place: Place, one_run: Path, run: Command, tmp_path: Path
) -> None:
    out = stopped_after_a_round(place, run, tmp_path)
    printed = (tmp_path / "message").read_text().split("continue with: ")[1]
    outcome = run(*shlex.split(printed)[1:])
    assert outcome.code == 0
    assert "continuing after round 1" in outcome.err
    assert "note: " not in outcome.err
    assert_same_run(out, one_run)


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "fedawa", "--weights-rate", "0.1", "--server", "adam", "--proximal", "0.1"],
        ["--method", "promptfl", "--server", "momentum", "--clip-norm", "0.01", "--aggregator", "median"],
    ],
)
def test_what_the_server_remembers_outlives_an_interruption(
    place: Place, run: Command, tmp_path: Path, words: list[str]
) -> None:
    whole = tmp_path / "whole"
    assert run(*place.train_words(whole, "--eval-every", 1, *words, rounds=NUM_ROUNDS)).code == 0
    assert list(whole.glob("checkpoint/memory-*.safetensors"))
    out = stopped_after_a_round(place, run, tmp_path, *words)
    assert run("train", "--out", out, "--cache", place.cache, "--resume", "--quiet").code == 0
    assert_same_run(out, whole)


def test_a_balanced_run_goes_on_balanced(place: Place, run: Command, tmp_path: Path) -> None:
    words = ["--method", "promptfl", "--balance"]
    whole, plain = tmp_path / "whole", tmp_path / "plain"
    assert run(*place.train_words(whole, "--eval-every", 1, *words, rounds=NUM_ROUNDS)).code == 0
    assert run(*place.train_words(plain, "--eval-every", 1, *words[:2], rounds=NUM_ROUNDS)).code == 0
    assert read_rounds(whole)[1]["loss"] != read_rounds(plain)[1]["loss"]
    out = stopped_after_a_round(place, run, tmp_path, *words)
    assert run("train", "--out", out, "--cache", place.cache, "--resume", "--quiet").code == 0
    assert_same_run(out, whole)


@pytest.mark.parametrize(
    "words",
    [
        ["--method", "promptfl", "--mix", "0.5"],
        ["--method", "promptfl", "--soft-ties", "2"],
        ["--method", "promptfl", "--held-out", "0.2"],
        ["--method", "promptfl", "--dp-noise", "0.5", "--clip-norm", "0.1", "--dp-at", "sites"],
        ["--method", "fedpgp", "--keep", "best", "--held-out", "0.2", "--mix", "0.5", "--soft-ties", "2"],
    ],
)
def test_how_a_run_predicts_outlives_an_interruption(
    place: Place, run: Command, tmp_path: Path, words: list[str]
) -> None:
    whole = tmp_path / "whole"
    assert run(*place.train_words(whole, "--eval-every", 1, *words, rounds=NUM_ROUNDS)).code == 0
    out = stopped_after_a_round(place, run, tmp_path, *words)
    assert run("train", "--out", out, "--cache", place.cache, "--resume", "--quiet").code == 0
    assert_same_run(out, whole)


def test_an_interruption_before_anything_is_stored(
    place: Place, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmpt.runs.prepare.open_features", interrupt)
    outcome = run(*place.train_words(tmp_path / "a"))
    assert outcome.code == 130
    assert outcome.err == "fedmpt train: interrupted; nothing was stored, give the same command to start again\n"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("with_options", [False, True])
def test_resuming_a_finished_run_changes_nothing(place: Place, run: Command, trained: Path, with_options: bool) -> None:
    before = snapshot(trained)
    words = place.train_words(trained) if with_options else ["train", "--out", trained]
    outcome = run(*words, "--resume")
    assert outcome.code == 0
    assert outcome.err == f"{trained} was finished before; it is left as it is\n"
    assert f"{read_results(trained)['test']['mAP']:.2f}" in outcome.out
    assert snapshot(trained) == before


def test_an_image_that_changed_since_the_run_started(place: Place, run: Command, tmp_path: Path) -> None:
    voc = tmp_path / "voc"
    shutil.copytree(place.voc, voc)
    own = replace(place, voc=voc)
    out = stopped_after_a_round(own, run, tmp_path)
    before = snapshot(out)
    picture(("dog",), shade=99).save(next((voc / "VOC2007" / "JPEGImages").glob("0005*.jpg")))
    outcome = run("train", "--out", out, "--cache", place.cache, "--resume", "--quiet")
    assert_refused(outcome, r"images, labels or clients \(test\) have changed since the run started; .* another --out")
    assert snapshot(out) == before


def test_two_processes_in_one_folder(place: Place, run: Command, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with exclusive(tmp_path / "a"):
        outcome = run(*place.train_words(tmp_path / "a", "--quiet"))
    assert_refused(outcome, "another process is writing to .*; wait for it or choose another folder")
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".fedmpt.lock"]
    assert run(*place.train_words(tmp_path / "a", "--quiet")).code == 0


@pytest.mark.slow
def test_a_process_killed_from_outside(place: Place, run: Command, tmp_path: Path) -> None:
    words = place.train_words(tmp_path / "ignored", "--quiet", rounds=30)
    assert run(*words, "--out", tmp_path / "whole").code == 0
    process = subprocess.Popen(fedmpt([*words, "--out", str(tmp_path / "killed")]), env=one_thread())
    log = tmp_path / "killed" / "rounds.jsonl"
    while not (log.exists() and log.read_text().count("\n") >= 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(read_rounds(tmp_path / "killed")) < 30
    assert run("train", "--out", tmp_path / "killed", "--cache", place.cache, "--resume", "--quiet").code == 0
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
