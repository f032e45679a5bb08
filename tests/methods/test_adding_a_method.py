"""The method that docs/adding_a_method.md takes a reader through: it keeps the contract, and its file runs as shown."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
from contract import MethodContract

from fedmpt.data.datasets.scenes import CLASS_NAMES
from fedmpt.methods import METHODS, MethodConfig

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding_a_method.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (code,) = blocks("python")
    path = tmp_path_factory.mktemp("taskres") / "taskres.py"
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("taskres", file)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["taskres"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_it_takes_sixty_lines(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 60


class TestTaskRes(MethodContract):
    @pytest.fixture
    def config(self, module: ModuleType) -> MethodConfig:
        return module.TaskResConfig()


def test_importing_it_registers_nothing(module: ModuleType) -> None:
    assert "taskres" not in METHODS


def test_its_file_is_a_command(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [line.split() for block in blocks("sh") for line in block.splitlines()]
    assert [words[:3] for words in commands] == [
        ["python", "taskres.py", "train"],
        ["python", "taskres.py", "evaluate"],
        ["python", "taskres.py", "methods"],
    ]
    # The page's data set, smaller.
    small = {"scenes:num_train=200,num_test=100": "scenes:num_train=40,num_test=80"}
    training, evaluating, listing = ([small.get(word, word) for word in command[2:]] for command in commands)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "taskres", None)  # The file puts itself there; undone, it is gone again.

    def run(*words: str) -> str:
        """``python taskres.py WORDS``, in this process."""
        monkeypatch.setattr(sys, "argv", [str(file), *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(file), run_name="__main__")
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        return printed.out

    cache = ["--cache", str(tmp_path / "cache")]
    run(*training, "--rounds", "1", "--t", "0.1", *cache)
    results = json.loads((tmp_path / "runs/taskres/results.json").read_text())
    assert results["params"]["trainable"] == len(CLASS_NAMES) * 128 + 2
    run(*evaluating, *cache)
    evaluation = json.loads((tmp_path / "runs/taskres/evaluation.json").read_text())
    assert evaluation["test"]["mAP"] == pytest.approx(results["test"]["mAP"])
    listed = {row["name"]: row for row in json.loads(run(*listing, "--json"))}
    assert listed["taskres"]["parameters"] == 20 * 512
