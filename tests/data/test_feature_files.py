"""What may happen to the files of a store: damage, full disks, killed and simultaneous processes."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_backbone import FakeBackbone

from fedmpt.data import feature_files
from fedmpt.data.feature_files import remove_leftovers
from fedmpt.data.feature_store import open_features
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


def test_a_build_that_fails_leaves_nothing(split: Split, cache: Path) -> None:
    backbone = FakeBackbone()

    def fail_in_the_third_batch(pixels: torch.Tensor) -> None:
        if len(backbone.batches) == 3:
            raise KeyboardInterrupt

    backbone.before = fail_in_the_third_batch
    with pytest.raises(KeyboardInterrupt):
        open_features(backbone, split, cache=cache, batch_size=3)
    assert list((cache / "features").iterdir()) == []
    backbone.before = None
    assert len(open_features(backbone, split, cache=cache)) == 10


KILLED = """
import os, sys
from pathlib import Path
from fake_backbone import FakeBackbone, write_split
from fedmpt.data.feature_store import open_features
backbone = FakeBackbone()
backbone.before = lambda pixels: len(backbone.batches) == 3 and os._exit(9)
open_features(backbone, write_split(Path(sys.argv[1]), 10), cache=Path(sys.argv[2]), batch_size=3)
"""


def test_a_killed_process_leaves_nothing_usable_and_the_next_one_cleans_up(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "images"), str(cache)]
    assert subprocess.run(arguments, env=environment, check=False).returncode == 9
    assert only_store(cache).name.startswith("tmp-")
    backbone = FakeBackbone()
    assert len(open_features(backbone, split, cache=cache)) == 10
    assert sum(backbone.batches) == 10
    assert not only_store(cache).name.startswith("tmp-")


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


def open_together(images: Path, cache: Path, barrier: Any, results: Any) -> None:
    """In a process or thread: all are in the middle of computing before any of them finishes."""
    backbone = FakeBackbone()
    backbone.before = lambda pixels: barrier.wait(60) if len(backbone.batches) == 2 else None
    files = tuple(sorted(images.iterdir()))
    features = open_features(
        backbone, Split("train", files, torch.zeros(10, 3, dtype=torch.int8)), cache=cache, batch_size=3
    )
    results.put((sum(backbone.batches), features.batch(torch.arange(10)).patches.numpy().tobytes()))


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_two_at_once(split: Split, cache: Path, tmp_path: Path, kind: str) -> None:
    context: Any = multiprocessing.get_context("spawn")
    make = threading.Thread if kind == "threads" else context.Process
    barrier = threading.Barrier(2) if kind == "threads" else context.Barrier(2)
    results = context.Queue()
    workers = [make(target=open_together, args=(tmp_path / "images", cache, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    outcomes = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    results.close()
    results.join_thread()
    assert [computed for computed, _ in outcomes] == [10, 10]
    assert outcomes[0] == outcomes[1]
    assert len(only_store(cache).name) == 64
    assert len(open_features(FakeBackbone(), split, cache=cache)) == 10


def test_the_store_of_who_was_first_stays(split: Split, cache: Path) -> None:
    inodes = []

    def another_is_faster(pixels: torch.Tensor) -> None:
        open_features(FakeBackbone(), split, cache=cache)
        (done,) = (cache / "features").glob("[0-9a-f]" * 64)
        inodes.append(done.stat().st_ino)

    open_features(FakeBackbone(before=another_is_faster), split, cache=cache)
    assert only_store(cache).stat().st_ino == inodes[0]


def test_a_disk_that_is_too_small(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed_bytes = 10 * (4 + 1) * 6 * 2
    for free_bytes, fits in ((needed_bytes - 1, False), (10 * needed_bytes, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free_bytes: SimpleNamespace(free=free))
        backbone = FakeBackbone()
        if fits:
            assert len(open_features(backbone, split, cache=cache)) == 10
            continue
        with pytest.raises(InputError, match=r"the features take .* GB are free; make room"):
            open_features(backbone, split, cache=cache, batch_size=2)
        assert backbone.batches == [2]  # Told by the first batch, before hours of work.
        assert list((cache / "features").iterdir()) == []


def test_a_disk_that_fills_up(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_row(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(feature_files, "_write_row", write_row)
    with pytest.raises(InputError, match="features cannot be written: No space left on device; make room on the disk"):
        open_features(FakeBackbone(), split, cache=cache)
    assert list((cache / "features").iterdir()) == []


def test_a_cache_that_is_a_file(split: Split, cache: Path) -> None:
    cache.write_text("x")
    with pytest.raises(InputError, match=r"features cannot be written: .*choose a cache folder you may write to"):
        open_features(FakeBackbone(), split, cache=cache)
