"""What an earlier fedmpt wrote still loads, goes on and is found again; `files/README.md` says what there is.

Every test works in one copy of those files. Numbers are compared to 1e-4: they are equal bit by bit only on the same
kind of CPU with the same libraries.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from fedmpt.cli.main import main

SCENES = "scenes:num_train=60,num_test=60,spurious=0.9"
Fedmpt = Callable[..., str]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the old files, which is the working folder, with an empty cache beside it."""
    copy = tmp_path_factory.mktemp("old") / "files"
    shutil.copytree(Path(__file__).parent / "files", copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copy)
        patch.setenv("FEDMPT_CACHE", str(copy.parent / "cache"))
        yield copy


@pytest.fixture
def fedmpt(files: Path) -> Fedmpt:
    """Runs a command, which must succeed; gives what it prints."""

    def run(line: str) -> str:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main(line.split())
        assert not stop.value.code, err.getvalue()
        return f"{out.getvalue()}{err.getvalue()}"

    return run


def read(path: Path | str) -> Any:
    return json.loads(Path(path).read_text())


def assert_close(found: Any, expected: Any, where: str = "") -> None:
    """Equal JSON, but for 1e-4 between numbers that are not whole."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_close(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, f"{where}/{index}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-4), where
    else:
        assert found == expected, where


def outcome(run: Path) -> dict[str, Any]:
    """Results and rounds of a run, without times and versions."""
    results = read(run / "results.json")
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return {
        "results": {key: value for key, value in results.items() if key not in ("time", "versions")},
        "rounds": [{key: value for key, value in line.items() if key != "seconds"} for line in rounds],
    }


def assert_ended(run: Path | str, expected: dict[str, Any]) -> None:
    assert_close(outcome(Path(run)), {key: expected[key] for key in ("results", "rounds")})


def stores(cache: str) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of all arrays in the feature stores of a cache."""
    found = sorted(Path(cache, "features").glob("*/*.npy"))
    return {str(path.relative_to(cache)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_feature_stores_are_found_again(fedmpt: Fedmpt) -> None:
    before = stores("cache")
    for options in (
        "--data folder:photos --backbone scenes-clip",
        "--data folder:few --backbone scenes-clip",
        "--data folder:few --backbone plugin/backbone.py:load",
        "--data folder:few --backbone plugin/backbone.py:load --dtype bf16",
    ):
        assert "computing" not in fedmpt(f"features build {options} --cache cache")
    start = "train --data folder:few --setting iid --clients 1 --backbone scenes-clip --rounds 1 --cache cache"
    assert "computing" not in fedmpt(f"{start} --method maple --num-context 1 --out new_maple")
    assert "computing" not in fedmpt(f"{start} --method scpnet --out new_scpnet")
    assert stores("cache") == before
    listed = json.loads(fedmpt("features list --json --cache cache"))
    assert {store["key"] for store in listed} == read("expected/store_keys.json").keys()
    assert {store["state"] for store in listed} == {"complete"}


def test_half_a_feature_store_goes_on(fedmpt: Fedmpt) -> None:
    said = fedmpt("features build --data folder:photos --backbone scenes-clip --cache cache_interrupted")
    assert "4 of 7 are there" in said
    whole, finished = stores("cache"), stores("cache_interrupted")
    assert len(finished) == 4  # Patches and pooled features of two splits.
    assert all(content == whole[name][0] for name, (content, _) in finished.items())


def test_a_finished_run_is_used(fedmpt: Fedmpt) -> None:
    assert "was finished before" in fedmpt("train --out finished --resume")
    start = f"--checkpoint finished/checkpoint --data {SCENES}"
    fedmpt(f"evaluate {start} --protocol oracle --out evaluation.json")
    assert_close(read("evaluation.json"), read("expected/finished_evaluation.json"))
    fedmpt(f"conditions score {start} --split validation --out scores.json")
    found, expected = read("scores.json"), read("expected/condition_scores.json")
    # The command that trains anew also names options whose defaults are others now.
    before, now = (scores["suggestion"].pop("train") for scores in (expected, found))
    others = ["--no-balance", "--text", "prompts", "--no-csra", "--entropy", "1.0", "--no-model-rates"]
    others += ["--mix"]
    assert [word for word in now.split() if word not in others] == before.split()
    assert all(word in now.split() for word in others)
    assert_close(found, expected)
    predicted = fedmpt("predict --checkpoint finished/checkpoint --json photos/0.png photos/5.png")
    assert_close(json.loads(predicted), read("expected/finished_predictions.json"))


def test_its_options_give_its_numbers_again(fedmpt: Fedmpt) -> None:
    fedmpt(
        f"train --method fedmpt --data {SCENES} --backbone scenes-clip --setting iid --clients 3 --rounds 2 "
        "--eval-every 1 --local-epochs 2 --batch-size 8 --validation 0.2 --seed 3 "
        "--conditions conditions/conditions.json --rank 2 --num-condition-context 2 --quiet --out again "
        "--text prompts --no-csra --entropy 1 --no-model-rates --no-balance --mix 1"  # As all was then.
    )
    assert_ended("again", read("expected/finished.json"))


def test_killed_runs_go_on(fedmpt: Fedmpt) -> None:
    fedmpt("train --out unfinished_promptfl --resume --quiet")
    assert_ended("unfinished_promptfl", read("expected/unfinished_promptfl.json"))
    before = stores("cache")
    fedmpt("train --out unfinished_fedpgp --resume --cache cache --quiet")
    assert_ended("unfinished_fedpgp", read("expected/unfinished_fedpgp.json"))
    assert stores("cache") == before


@pytest.mark.slow
def test_a_killed_demo_goes_on(fedmpt: Fedmpt) -> None:
    said = fedmpt("demo --rounds 2 --num-train 60 --num-test 150 --out unfinished_demo")
    assert "continuing after round 1" in said
    expected = read("expected/unfinished_demo.json")
    for method in ("zero-shot", "promptfl"):  # FedMPT begins after them, with the options of today.
        assert_ended(Path("unfinished_demo", method), expected[method])


@pytest.mark.parametrize("name", ["clients", "dirichlet"])
def test_saved_partitions_load(fedmpt: Fedmpt, name: str) -> None:
    fedmpt(f"data partition --data folder:photos --load partition/{name}.json --save new_{name}.json")
    assert Path(f"new_{name}.json").read_bytes() == Path(f"partition/{name}.json").read_bytes()


def test_conditions_load(fedmpt: Fedmpt) -> None:
    checked = json.loads(fedmpt("conditions check conditions/conditions.json --backbone scenes-clip --json"))
    assert_close(checked, read("expected/condition_check.json"))


def test_counts_of_a_site_are_the_same(fedmpt: Fedmpt) -> None:
    fedmpt("conditions count --data folder:photos --name site --out counted.json")
    assert read("counted.json")["label-counts"] == read("counts/site_a.json")["label-counts"]


def without_date(path: str) -> dict[str, Any]:
    words = read(path)
    for key in ("date", "fedmpt", "usage", "requests"):
        words["provenance"].pop(key, None)
    return {**words, "name": ""}


COUNTED = "generate --counts counts/site_a.json counts/site_b.json --min-images 1 --num 3 --sentences 2"


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (f"{COUNTED} --llm exchange:exchange", "conditions.json"),
        ("attributes --classes conditions/classes.txt --num 2 --llm exchange:exchange", "attributes.json"),
        ("generate --classes conditions/classes.txt --num 3 --per-request 3", "from_endpoint.json"),
        ("attributes --classes conditions/classes.txt --num 2", "attributes_from_endpoint.json"),
    ],
)
def test_kept_answers_are_not_asked_for_again(fedmpt: Fedmpt, words: str, file: str) -> None:
    """By hand in the folder ``exchange``, and of an endpoint, which no longer exists, in the cache."""
    before = sorted(os.listdir("exchange"))
    endpoint = "" if "exchange" in words else "--llm some-model --endpoint http://127.0.0.1:18765/v1 --retries 0"
    fedmpt(f"conditions {words} {endpoint} --cache cache --out new.json")
    assert without_date("new.json") == without_date(f"conditions/{file}")
    assert sorted(os.listdir("exchange")) == before
