"""The examples and the benchmark scripts run, and stay what the documents say of them."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_voc import write_tiny_voc

from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.rounds import Federation
from fedmpt.report.demo.trials import Trial
from fedmpt.runs.config import preset
from fedmpt.runs.run import train

PROJECT = Path(__file__).resolve().parents[1]


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_round_trains_every_client_and_scores(
    tmp_path: Path, tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, voc = str(PROJECT / "examples/one_round.py"), write_tiny_voc(tmp_path)
    words = ["--backbone", str(tiny_clip_folder), "--voc", str(voc), "--t", "0.1"]
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.setenv("FEDMPT_CACHE", str(tmp_path / "cache"))
    runpy.run_path(script, run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"^client 1: loss \d+\.\d+ on \d+ images$", printed, re.MULTILINE)
    assert re.search(r"^after one round: mAP \d+\.\d+, CF1 \d+\.\d+, OF1 \d+\.\d+$", printed, re.MULTILINE)


def test_one_round_is_under_150_lines() -> None:
    assert len((PROJECT / "examples/one_round.py").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.slow
def test_speed_script_compares_equal_gradients(tmp_path: Path) -> None:
    run("benchmarks/speed/text_tower.py", "--runs", "1", "--out", str(tmp_path / "speed.json"))
    facts = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert facts["largest_gradient_difference"] < 1e-4
    assert len(facts["timings"]) == 2


def test_benchmark_tables_name_configs_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import ablation
    import comparison
    import context_shift
    import spurious

    trial = Trial(rounds=2, seed=0, spurious=0.9, num_train=10, num_test=10)
    tables = (comparison.rows("voc:x"), ablation.rows("voc:x"), context_shift.rows("voc:x"))
    for rows in (*tables, *spurious.rows(trial).values()):
        assert len({json.dumps(config.to_json()) for config in rows.values()}) == len(rows)


def test_excess_is_tied_minus_untied_where_each_moved_image_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import context_shift

    def results(**pairs: tuple[float | None, int]) -> dict[str, Any]:
        scores = {name: {"false_coactivation": value, "num_context_only": num} for name, (value, num) in pairs.items()}
        return {"context_shift": {"moved": {"per_pair": scores}}}

    found = context_shift.excess(
        {
            "tied": results(a=(40.0, 40), b=(50.0, 4), c=(None, 0)),
            "control1": results(a=(20.0, 30), b=(25.0, 4), c=(None, 0)),
            "control2": results(a=(60.0, 10), b=(None, 0), c=(None, 0)),
        }
    )
    # Untied, 6 of 30 and 6 of 10 images are reported: 12 of 40.
    assert found["a"] == {"tied": 40.0, "untied": pytest.approx(30.0), "excess": pytest.approx(10.0), "images": 40}
    assert found["b"]["excess"] == 25.0
    assert found["c"]["excess"] is None
    assert context_shift.mean(pair["excess"] for pair in found.values()) == pytest.approx(17.5)


def test_benchmark_puts_ties_behind_any_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import context_shift

    options = argparse.Namespace(ties=0.9, cut="both", pairs="cat:chair", joint=0.0)
    for data, expected in (
        ("scenes", "scenes:ties=0.9,ties_cut=both,ties_pairs=cat:chair,ties_seed=2"),
        ("voc:x,difficult=absent", "voc:x,difficult=absent,ties=0.9,ties_cut=both,ties_pairs=cat:chair,ties_seed=2"),
    ):
        options.data = data
        assert context_shift.tied_data(options, seed=2) == expected


def test_benchmark_predicts_with_the_round_that_is_kept_and_in_all_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the ways that are stored are of an earlier version, and the best round is not the last."""
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import context_shift

    federation = Federation(rounds=2, learning_rate=0.5, keep="best")
    run = replace(preset("default", "class-vectors", "scenes:num_train=24,num_test=24"), federation=federation)
    run = replace(run, backbone="scenes-clip", setting="iid", clients=2)
    out, cache = tmp_path / "a", tmp_path / "cache"
    results = train(run, out=out, cache=cache, show_progress=False)
    stored = load_checkpoint(out / "checkpoint")
    assert stored.progress.best is not None
    damaged = {name: tensor + 1 for name, tensor in stored.progress.state.items()}
    save_checkpoint(out / "checkpoint", replace(stored.progress, state=damaged), stored.record)
    (out / "predictions.json").write_text('{"": {}}')
    found = context_shift.predictions(run, results, out=out, cache=cache)
    assert list(found) == list(context_shift.ways_of(run.prediction))
    assert found[""]["test"] == results["test"]
    (out / "checkpoint" / "checkpoint.json").unlink()
    assert context_shift.predictions(run, results, out=out, cache=cache) == found, "nothing is computed again"


def test_plot_leaves_out_what_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))
    import tradeoff

    row = {"scores": {"mAP": [80.0, 90.0], "false co-activation": [None, 30.0]}}
    assert tradeoff._point(row) == (30.0, 85.0)
    row["scores"]["false co-activation"] = [None, None]
    assert tradeoff._point(row) is None
