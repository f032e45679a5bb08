"""Builds of a feature store that are stopped on the way, and what they leave."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_backbone import FakeBackbone

from fedmpt.data.features.store import open_features
from fedmpt.types import Split

BATCH = 3
"""Of ten images: blocks of 3, 3, 3 and 1."""


def python(code: str, *arguments: object) -> dict[str, Any]:
    """What `subprocess` starts another process with that runs some code."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return {"args": [sys.executable, "-c", code, *map(str, arguments)], "env": {**os.environ, "PYTHONPATH": path}}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def store_of(cache: Path) -> dict[str, bytes]:
    """The bytes of the only store in a cache, beside which nothing lies."""
    (folder,) = (cache / "features").iterdir()
    assert len(folder.name) == 64
    return contents(folder)


def part_of(cache: Path) -> Path:
    (folder,) = (cache / "features").glob("*.part")
    return folder


def build(split: Split, cache: Path, backbone: FakeBackbone | None = None, **options: Any) -> list[int]:
    """Open features, and the sizes of the batches that had to be computed."""
    backbone = backbone or FakeBackbone()
    open_features(backbone, split, cache=cache, batch_size=BATCH, **options)
    return backbone.batches


def stopped(split: Split, cache: Path, *, at: int, **options: Any) -> None:
    """A build that is stopped in its batch number ``at``, counted from 1."""
    backbone = FakeBackbone()

    def stop(pixels: torch.Tensor) -> None:
        if len(backbone.batches) == at:
            raise KeyboardInterrupt

    backbone.before = stop
    with pytest.raises(KeyboardInterrupt):
        build(split, cache, backbone, **options)


def spoil(split: Split, *rows: int) -> None:
    for row in rows:
        split.files[row].write_bytes(b"no picture")
