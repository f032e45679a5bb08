"""What may happen to the files of a store: damage, small disks, leftovers of processes that are no more."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_backbone import FakeBackbone

from fedmpt.data.features.files import remove_leftovers, size_text
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
    "pooled cut short": lambda folder: cut(folder / "pooled.npy"),
    "patches grown": lambda folder: append(folder / "patches.npy"),
    "empty": lambda folder: (folder / "patches.npy").write_bytes(b""),
    "no array": lambda folder: (folder / "pooled.npy").write_bytes(b"x" * 500),
    "pickle": lambda folder: np.save(folder / "pooled.npy", np.array([{}]), allow_pickle=True),
    "another shape": lambda folder: np.save(folder / "patches.npy", np.zeros((10, 5, 6), np.float16)),
    "another format": lambda folder: np.save(folder / "patches.npy", np.zeros((10, 4, 6), np.float32)),
    "file gone": lambda folder: (folder / "pooled.npy").unlink(),
    "description gone": lambda folder: (folder / "store.json").unlink(),
    "description cut short": lambda folder: cut(folder / "store.json"),
    "description of another kind": lambda folder: (folder / "store.json").write_text("[]"),
    "unknown field": lambda folder: edit(folder, colour="red"),
    "another key": lambda folder: edit(folder, key="0" * 64),
    "a later version": lambda folder: edit(folder, format=999),
    "a wrong number": lambda folder: edit(folder, num_patches="four"),
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


def finished_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_leftovers_of_dead_processes_here_are_removed(tmp_path: Path) -> None:
    here = socket.gethostname()
    names = {
        "dead": f"tmp-{finished_pid()}-0a1b-{here}",
        "alive": f"tmp-{os.getpid()}-0a1b-{here}",
        "elsewhere": f"tmp-{finished_pid()}-0a1b-not-{here}",
        "other": "tmp-notes-of-mine",
        "store": "0" * 64,
    }
    for name in names.values():
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names.values()) - {names["dead"]}


def test_a_disk_that_is_too_small(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed_bytes = 10 * (4 + 1) * 6 * 2
    for free_bytes, fits in ((needed_bytes - 1, False), (10 * needed_bytes, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free_bytes: SimpleNamespace(free=free))
        backbone = FakeBackbone()
        if fits:
            assert len(open_features(backbone, split, cache=cache)) == 10
            continue
        with pytest.raises(InputError, match="the features take 600 B and 599 B are free; make room, or put the"):
            open_features(backbone, split, cache=cache, batch_size=2)
        assert backbone.batches == [2]  # Told by the first batch, before hours of work.
        assert list((cache / "features").iterdir()) == []


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (16_612_896_768, "16.6 GB"),
        (3 * 10**12, "3.0 TB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes_in_words(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


def test_a_cache_that_is_a_file(split: Split, cache: Path) -> None:
    cache.write_text("x")
    with pytest.raises(InputError, match=r"features cannot be written: .*choose a cache folder you may write to"):
        open_features(FakeBackbone(), split, cache=cache)
