"""The method that docs/adding_a_method.md takes a reader through: it keeps the contract, and its file runs as shown."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
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


def test_its_file_is_a_command(file: Path, tmp_path: Path) -> None:
    commands = [line.split() for block in blocks("sh") for line in block.splitlines()]
    assert [words[:3] for words in commands] == [
        ["python", "taskres.py", "train"],
        ["python", "taskres.py", "evaluate"],
        ["python", "taskres.py", "methods"],
    ]
    training, evaluating, listing = (command[2:] for command in commands)
    cache = ["--cache", str(tmp_path / "cache")]
    run(file, *training, "--rounds", "1", *cache, cwd=tmp_path)
    results = json.loads((tmp_path / "runs/taskres/results.json").read_text())
    assert results["params"]["trainable"] == len(CLASS_NAMES) * 128 + 2
    run(file, *evaluating, *cache, cwd=tmp_path)
    evaluation = json.loads((tmp_path / "runs/taskres/evaluation.json").read_text())
    assert evaluation["test"]["mAP"] == pytest.approx(results["test"]["mAP"])
    listed = {row["name"]: row for row in json.loads(run(file, *listing, "--json", cwd=tmp_path))}
    assert listed["taskres"]["parameters"] == 20 * 512


def run(file: Path, *words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, str(file), *words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
