"""A federation of one site with its kit, made once: each step of NVFlare's takes half a second."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedmpt.federated.flare.founding import set_up

PLAN = {"name": "fed", "sites": ["clinic-a"]}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed; `trial` is a copy."""
    home = tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("made") / "fed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        set_up(folder, PLAN, address=("localhost", 8102), days=30, root_days=300, trial=True)
    assert list(home.iterdir()) == []  # NVFlare would keep its records there.
    return folder


@pytest.fixture
def trial(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "fed"))
