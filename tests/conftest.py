"""Set-up of all tests: shapes and types of the package are checked at run time, and nothing reaches the network."""

from __future__ import annotations

import os
from pathlib import Path

# Read once, when Hugging Face libraries are imported.
os.environ["HF_HUB_OFFLINE"] = "1"

import jaxtyping
import pytest
import torch
from tiny_clip import write_tiny_clip

# Before any test module imports the package: what is imported earlier stays unchecked.
jaxtyping.install_import_hook("fedmpt", "typecheck.check")
torch.set_num_threads(1)

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of larger test material beside the project. It is no part of the project, so tests skip without it."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the folder of test material at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 32 pixels, 16 patches and width 40 with random weights, as Hugging Face stores it."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", size="tiny")


@pytest.fixture(scope="session")
def medium_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second CLIP, every size of which differs from `tiny_clip_folder`: 48 pixels, 9 patches, width 64."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "medium", size="medium")
