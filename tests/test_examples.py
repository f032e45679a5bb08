"""The examples and the benchmark scripts run, and stay what the documents say of them."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_voc import write_tiny_voc

from fedmpt.report.demo.trials import Trial

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
    import spurious

    trial = Trial(rounds=2, seed=0, spurious=0.9, num_train=10, num_test=10)
    for rows in (comparison.rows("voc:x"), ablation.rows("voc:x"), *spurious.rows(trial).values()):
        assert len({json.dumps(config.to_json()) for config in rows.values()}) == len(rows)
