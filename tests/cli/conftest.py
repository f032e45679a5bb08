"""A place with data and model, the commands as a function, and a finished run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command_line import Command, Place, command
from tiny_voc import write_tiny_voc

from fedmpt.cli import main as cli


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """More threads only wait for each other on tensors this small, and sums must come out as in other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def place(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("commands")
    return Place(tiny_clip_folder, write_tiny_voc(folder / "voc"), folder / "cache")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Command:
    return command(capsys)


@pytest.fixture(scope="package")
def finished(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two rounds; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "a"
    with pytest.raises(SystemExit) as stop:
        cli.main([*place.train_words(out), "--quiet"])
    assert stop.value.code == 0
    return out


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged or added to."""
    return Path(shutil.copytree(finished, tmp_path / "trained"))
