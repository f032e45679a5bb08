"""The demo, small: all three methods train, the page holds everything itself, and a second call does nothing again."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from fedmpt.cli.main import main
from fedmpt.report.demo.page import curves

COMMAND = ("demo", "--rounds", "2", "--num-train", "60", "--num-test", "80")


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
    page = (finished[0] / "index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["conditions"]) == 5
    assert data["images"]
    for image in data["images"]:
        assert image["anchor"] in image["present"]
        assert image["partner"] not in image["present"]
        assert sum(image["gate"]) == pytest.approx(1, abs=0.01)
        for looked, evidence, alone in zip(image["looked"], image["evidence"], image["by_condition"], strict=True):
            assert [sum(row) for row in looked] == pytest.approx([1] * len(looked), abs=0.01)
            assert [sum(row) for row in evidence] == pytest.approx(alone, abs=0.01)


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
