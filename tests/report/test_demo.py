"""The demo, small: all three methods train, the page holds everything itself, and a second call does nothing again."""

from __future__ import annotations

import io
import json
import re
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fedmpt.cli.main import main
from fedmpt.data.datasets.scenes import CLASS_NAMES, PARTNERS, read_scenes
from fedmpt.report.demo.differences import Alone, compared
from fedmpt.report.demo.page import curves, write_page
from fedmpt.report.demo.trials import TITLES, Outcome, Trial, run_trial
from fedmpt.runs.run import Watcher

COMMAND = ("demo", "--rounds", "2", "--num-train", "60", "--num-test", "80")


TRIAL = Trial(rounds=2, seed=0, spurious=0.9, num_train=60, num_test=80)


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run(out: Path, cache: Path, *more: str) -> Done:
    printed, said, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(printed), redirect_stderr(said):
        try:
            main([*COMMAND, "--out", str(out), "--cache", str(cache), *more])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, printed.getvalue(), said.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    out, cache = tmp_path_factory.mktemp("demo") / "a", tmp_path_factory.mktemp("cache")
    done = run(out, cache)
    assert done.code == 0, done.err
    return out, cache, done.out


@pytest.fixture(scope="module")
def outcomes(finished: tuple[Path, Path, str]) -> dict[str, Outcome]:
    out, cache, _ = finished
    return {
        name: run_trial(TRIAL, TRIAL.config(name), out=out / name, cache=cache, watcher=Watcher()) for name in TITLES
    }


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    return json.loads(found[1])


def test_the_table_has_the_scores_of_the_runs(finished: tuple[Path, Path, str]) -> None:
    out, _, printed = finished
    for name, title in (("zero-shot", "zero-shot"), ("promptfl", "PromptFL"), ("fedmpt", "FedMPT")):
        results = json.loads((out / name / "results.json").read_text(encoding="utf-8"))
        assert re.search(rf"│ {title} +│ +{results['test']['mAP']:.1f} │", printed)


def test_the_page_needs_nothing_from_elsewhere(finished: tuple[Path, Path, str]) -> None:
    page = (finished[0] / "index.html").read_text(encoding="utf-8")
    outside = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    # Images stand in the page; charts refer to their own parts.
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in outside)
    assert "@import" not in page
    assert "url(http" not in page


def test_the_page_shows_what_the_method_computed(finished: tuple[Path, Path, str]) -> None:
    data = data_of(finished[0] / "index.html")
    assert len(data["conditions"]) == 5
    assert data["images"]
    for image in data["images"]:
        assert image["anchor"] in image["present"]
        assert image["partner"] not in image["present"]
        assert sum(image["gate"]) == pytest.approx(1, abs=0.01)
        for looked, evidence, alone in zip(image["looked"], image["evidence"], image["by_condition"], strict=True):
            assert [sum(row) for row in looked] == pytest.approx([1] * len(looked), abs=0.01)
            assert [sum(row) for row in evidence] == pytest.approx(alone, abs=0.01)


def test_differences_are_those_of_the_pictures_tagged_one_by_one(
    finished: tuple[Path, Path, str], outcomes: dict[str, Outcome]
) -> None:
    out, _, printed = finished
    test = outcomes["fedmpt"].unseen
    says = {
        name: [{label.name: label for label in labels} for _, labels in outcomes[name].trained.tag(test.files)]
        for name in ("promptfl", "fedmpt")
    }
    kinds: dict[str, list[tuple[int, str]]] = {"promptfl": [], "fedmpt": [], "both": [], "neither": []}
    for row, scene in enumerate(read_scenes(test.split)):
        things = set(scene.class_names)
        absent = [pair.partner for pair in PARTNERS if pair.anchor in things and pair.partner not in things]
        wrong = {name: [word for word in absent if says[name][row][word].present] for name in says}
        if absent:
            who = [name for name in says if wrong[name]]
            kind = "both" if len(who) == 2 else who[0] if who else "neither"
            kinds[kind].append((row, wrong[kind][0] if kind in says else ""))
    total = sum(map(len, kinds.values()))
    assert kinds["promptfl"]  # Else this test would say nothing.

    page = " ".join((out / "index.html").read_text(encoding="utf-8").split())
    assert f"{total} pictures show an anchor without its partner" in page
    assert f"PromptFL alone reports the absent partner in {len(kinds['promptfl'])}</b>" in page
    assert f"FedMPT alone in {len(kinds['fedmpt'])}</b>" in page
    assert f"both in {len(kinds['both'])} and neither in {len(kinds['neither'])}." in page

    row, word = kinds["promptfl"][0]
    ours, theirs = (says[name][row][word].probability for name in ("promptfl", "fedmpt"))
    line = next(line for line in printed.splitlines() if line.startswith(f"picture {test.files[row]} shows "))
    assert f"(no {word}): PromptFL reports {word} ({ours:.2f}, over " in line
    assert f"FedMPT does not ({theirs:.2f}, not over " in line
    assert re.search(rf"{len(kinds['promptfl'])} such pictures? of {total} with", line)

    shown = data_of(out / "index.html")["images"][0]  # With which the picker starts.
    assert (shown["file"], shown["partner"]) == (test.files[row].name, word)
    for name in says:
        said = shown["predictions"][name]
        assert said["said"] == [label for label in CLASS_NAMES if says[name][row][label].present]
        over = [p > t for p, t in zip(said["probability"], said["thresholds"], strict=True)]
        assert over[CLASS_NAMES.index(word)] == (name == "promptfl")


def test_a_page_without_a_kind_of_difference_says_so(
    finished: tuple[Path, Path, str], outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    found, page = compared(outcomes), tmp_path / "index.html"
    none = replace(found, alone={name: Alone(0, None) for name in found.alone})
    write_page(page, TRIAL, outcomes, none, cache=finished[1], began=time.perf_counter())
    text = page.read_text(encoding="utf-8")
    assert text.count("There is no such picture in this test.") == 2
    assert "The pictures from above" not in text
    before, now = (data_of(path)["images"] for path in (finished[0] / "index.html", page))
    assert len(now) == len(before) - sum(one.first is not None for one in found.alone.values())


def test_rounds_are_scored_on_the_reversed_test_too(finished: tuple[Path, Path, str]) -> None:
    out, _, _ = finished
    lines = json.loads((out / "fedmpt" / "reversed.json").read_text(encoding="utf-8"))
    assert [line["round"] for line in lines] == [0, 1, 2]
    stored = [json.loads(line) for line in (out / "fedmpt" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["natural"]["mAP"] == stored[-1]["mAP"]
    assert lines[0]["reversed"] != lines[-1]["reversed"]


def test_a_second_call_trains_nothing_again(finished: tuple[Path, Path, str]) -> None:
    out, cache, printed = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint/*")}
    again = run(out, cache)
    assert again.code == 0, again.err
    assert again.out == printed
    assert {path: path.stat().st_mtime_ns for path in out.rglob("checkpoint/*")} == before


def test_other_options_in_the_same_folder_are_refused(finished: tuple[Path, Path, str]) -> None:
    out, cache, _ = finished
    refused = run(out, cache, "--seed", "7")
    assert refused.code == 2
    assert "seed was 0, now 7" in refused.err
    assert "Traceback" not in refused.err


def test_charts_are_the_same_for_the_same_numbers() -> None:
    lines = {"fedmpt": [(0, 50.0), (1, 60.0), (2, 65.5)]}
    charts = [
        curves(lines, flat={"zero-shot": 48.0}, names={"fedmpt": "FedMPT", "zero-shot": "CLIP"}, unit="mAP")
        for _ in "ab"
    ]
    assert charts[0] == charts[1]
    assert charts[0].startswith("<svg")


def test_too_few_test_pictures_are_refused_at_once(finished: tuple[Path, Path, str], tmp_path: Path) -> None:
    refused = run(tmp_path / "b", finished[1], "--num-test", "2")
    assert refused.code == 2
    assert "take more with --num-test" in refused.err
    assert "Traceback" not in refused.err
