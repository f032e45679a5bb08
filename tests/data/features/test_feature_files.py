"""What may happen to the files of a store: damage, small disks."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_backbone import FakeBackbone

from fedmpt.data.features.store import open_features
from fedmpt.types import InputError, Split


def only_store(cache: Path) -> Path:
    (folder,) = (cache / "features").iterdir()
    return folder


def edit(folder: Path, **facts: Any) -> None:
    path = folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "patches cut short": lambda folder: cut(folder / "patches.npy"),
    "patches grown": lambda folder: append(folder / "patches.npy"),
    "empty": lambda folder: (folder / "patches.npy").write_bytes(b""),
    "another shape": lambda folder: np.save(folder / "patches.npy", np.zeros((10, 5, 6), np.float16)),
    "another format": lambda folder: np.save(folder / "patches.npy", np.zeros((10, 4, 6), np.float32)),
    "file gone": lambda folder: (folder / "pooled.npy").unlink(),
    "description gone": lambda folder: (folder / "store.json").unlink(),
    "description cut short": lambda folder: cut(folder / "store.json"),
    "another key": lambda folder: edit(folder, key="0" * 64),
    "a later version": lambda folder: edit(folder, format=999),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_store_is_built_again(
    split: Split, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    sound = open_features(FakeBackbone(), split, cache=cache).batch(torch.arange(10))
    folder = only_store(cache)
    DAMAGE[damage](folder)
    backbone = FakeBackbone()
    with caplog.at_level(logging.WARNING):
        features = open_features(backbone, split, cache=cache)
    assert sum(backbone.batches) == 10
    assert f"{folder} is damaged" in caplog.text
    assert torch.equal(features.batch(torch.arange(10)).patches, sound.patches)
    assert only_store(cache) == folder
    again = FakeBackbone()
    open_features(again, split, cache=cache)
    assert again.batches == []


def test_a_build_that_fails_in_its_first_batch_leaves_nothing(split: Split, cache: Path) -> None:
    def interrupt(pixels: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_features(FakeBackbone(before=interrupt), split, cache=cache, batch_size=3)
    assert list((cache / "features").iterdir()) == []
    assert len(open_features(FakeBackbone(), split, cache=cache)) == 10


def test_a_disk_that_is_too_small(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed_bytes = 10 * (4 + 1) * 6 * 2
    for free_bytes, fits in ((needed_bytes - 1, False), (10 * needed_bytes, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free_bytes: SimpleNamespace(free=free))
        backbone = FakeBackbone()
        if fits:
            assert len(open_features(backbone, split, cache=cache)) == 10
            continue
        with pytest.raises(InputError, match="the features take 600 bytes and 599 bytes are free; make room"):
            open_features(backbone, split, cache=cache, batch_size=2)
        assert backbone.batches == [2]  # Told by the first batch, before hours of work.
        assert list((cache / "features").iterdir()) == []


def test_a_cache_that_is_a_file(split: Split, cache: Path) -> None:
    cache.write_text("x")
    with pytest.raises(InputError, match=r"features cannot be written: .*choose a cache folder you may write to"):
        open_features(FakeBackbone(), split, cache=cache)
