"""Several processes and threads that want the same features: one computes, where files can be locked."""

from __future__ import annotations

import errno
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_backbone import FakeBackbone, stores

from fedmpt.data.features import lock as feature_lock
from fedmpt.data.features.lock import NoLocksError, hold, is_held, lock, take
from fedmpt.data.features.store import open_features
from fedmpt.types import InputError, Split

KINDS = ["threads", "processes"]


def open_together(images: Path, cache: Path, has_locks: bool, computing: Any, results: Any) -> None:
    """In a process or thread. ``computing`` is called in the second of four batches."""
    if not has_locks:
        feature_lock.fcntl = None
    backbone = FakeBackbone()
    backbone.before = lambda pixels: computing.wait(60) if len(backbone.batches) == 2 else None
    split = Split("train", tuple(sorted(images.iterdir())), torch.zeros(10, 3, dtype=torch.int8))
    features = open_features(backbone, split, cache=cache, batch_size=3)
    results.put((sum(backbone.batches), features.batch(torch.arange(10)).patches.numpy().tobytes()))


def start_two(kind: str, images: Path, cache: Path, *, has_locks: bool) -> tuple[list[Any], Any, Any]:
    context: Any = multiprocessing.get_context("spawn")
    make = threading.Thread if kind == "threads" else context.Process
    # With locks only one of them computes, and waits for the test instead of the other one.
    computing = threading.Barrier(2) if kind == "threads" else context.Barrier(2)
    results = queue.Queue() if kind == "threads" else context.Queue()
    workers = [make(target=open_together, args=(images, cache, has_locks, computing, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    return workers, computing, results


def outcomes(workers: list[Any], results: Any) -> list[tuple[int, bytes]]:
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    if not isinstance(results, queue.Queue):
        results.close()
        results.join_thread()
    return sorted(found)


@pytest.mark.parametrize("kind", KINDS)
def test_one_computes_and_the_other_waits(
    split: Split, cache: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    workers, computing, results = start_two(kind, tmp_path / "images", cache, has_locks=True)
    err = ""
    while "waiting for process" not in err:
        time.sleep(0.01)
        err += capfd.readouterr().err
    computing.wait(60)
    (waited, first), (computed, second) = outcomes(workers, results)
    assert (waited, computed) == (0, 10)
    assert first == second
    (key,) = stores(cache)
    owners = [os.getpid()] if kind == "threads" else [worker.pid for worker in workers]
    part = cache / "features" / f"{key}.part"
    lines = [line for line in (err + capfd.readouterr().err).splitlines() if "waiting" in line]
    assert len(lines) == 1
    assert lines[0] in [
        f"computing image features (waiting for process {pid}, which computes them in {part})" for pid in owners
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_without_locks_all_compute_and_the_first_to_finish_wins(
    split: Split, cache: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_lock, "fcntl", feature_lock.fcntl)
    workers, _, results = start_two(kind, tmp_path / "images", cache, has_locks=False)
    found = outcomes(workers, results)
    assert [computed for computed, _ in found] == [10, 10]
    assert found[0] == found[1]
    assert [len(path.name) for path in (cache / "features").iterdir()] == [64]
    assert len(open_features(FakeBackbone(), split, cache=cache)) == 10


def test_the_store_of_who_was_first_stays(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_lock, "fcntl", None)
    inodes = []

    def another_is_faster(pixels: torch.Tensor) -> None:
        open_features(FakeBackbone(), split, cache=cache)
        (done,) = (cache / "features").glob("[0-9a-f]" * 64)
        inodes.append(done.stat().st_ino)

    open_features(FakeBackbone(before=another_is_faster), split, cache=cache)
    (name,) = stores(cache)
    assert (cache / "features" / name).stat().st_ino == inodes[0]


def test_a_process_that_cannot_lock_may_be_faster_than_one_that_can(split: Split, cache: Path) -> None:
    def another_is_faster(pixels: torch.Tensor) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feature_lock, "fcntl", None)
            open_features(FakeBackbone(), split, cache=cache)

    assert len(open_features(FakeBackbone(before=another_is_faster), split, cache=cache)) == 10
    assert [len(path.name) for path in (cache / "features").iterdir()] == [64]


def test_a_disk_without_locks(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    assert feature_lock.fcntl is not None
    words = {name: getattr(feature_lock.fcntl, name) for name in ("LOCK_SH", "LOCK_EX", "LOCK_NB")}
    monkeypatch.setattr(feature_lock, "fcntl", SimpleNamespace(**words, flock=refuse))
    backbone = FakeBackbone()
    names: list[str] = []
    backbone.before = lambda pixels: names.extend(path.name for path in (cache / "features").glob("tmp-*"))
    assert len(open_features(backbone, split, cache=cache)) == 10
    assert len(set(names)) == 1
    assert [len(path.name) for path in (cache / "features").iterdir()] == [64]


COMPUTING = """
import os, sys, time
from pathlib import Path
from fake_backbone import FakeBackbone, write_split
from fedmpt.data.features.store import open_features
backbone = FakeBackbone()
def stop(pixels):
    if len(backbone.batches) == 3:
        print("computing", flush=True)
        time.sleep(120)
backbone.before = stop
open_features(backbone, write_split(Path(sys.argv[1]), 10), cache=Path(sys.argv[2]), batch_size=3)
"""


def test_when_the_one_that_computes_is_killed_the_other_goes_on_with_its_rows(
    split: Split, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [sys.executable, "-c", COMPUTING, str(tmp_path / "images"), str(cache)]
    backbone = FakeBackbone()
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"computing\n"
        waiting = threading.Thread(
            target=lambda: open_features(backbone, split, cache=cache, batch_size=3), name="waiting"
        )
        waiting.start()
        err = ""
        while f"waiting for process {first.pid}, " not in err:
            time.sleep(0.01)
            err += capfd.readouterr().err
        first.kill()
        waiting.join(60)
        assert first.wait() == -signal.SIGKILL
    assert backbone.batches == [3, 1]
    assert len(stores(cache)) == 1


def test_when_the_one_that_computes_fails_the_other_goes_on(split: Split, cache: Path) -> None:
    split.files[7].write_bytes(b"no picture")
    backbone, entered, errors = FakeBackbone(), threading.Event(), []

    def wait_for_the_other(pixels: torch.Tensor) -> None:
        entered.set()
        time.sleep(0.1)

    def first() -> None:
        with pytest.raises(InputError, match=r"007\.png") as raised:
            open_features(FakeBackbone(before=wait_for_the_other), split, cache=cache, batch_size=3)
        errors.append(raised.value)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(60)
    features = open_features(backbone, split, cache=cache, batch_size=3, skip_corrupt=True)
    thread.join()
    assert len(errors) == 1
    assert backbone.batches == [2, 1]
    assert len(features) == 9


def test_a_lock_is_for_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = take(path)
    assert held is not None
    assert path.read_text().split()[0] == str(os.getpid())
    assert take(path) is None
    assert is_held(path)
    held.release()
    assert not path.exists()
    assert not is_held(path)
    again = take(path)
    assert again is not None
    again.release()


def test_a_lock_file_that_was_left_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(f"{os.getpid()} somewhere\n")
    assert not is_held(path)
    held = take(path)
    assert held is not None
    held.release()


def test_who_opened_a_lock_file_before_it_went_makes_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    first = take(path)
    assert first is not None
    handles = []

    def opened_just_before_the_release(handle: int, *, shared: bool) -> bool:
        if not handles:
            first.release()
        handles.append(handle)
        return lock(handle, shared=shared)

    monkeypatch.setattr(feature_lock, "lock", opened_just_before_the_release)
    second = take(path)
    assert second is not None
    assert len(handles) == 2
    assert path.exists()
    monkeypatch.undo()
    assert take(path) is None
    second.release()


def test_many_threads_are_never_within_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_lock, "POLL_S", 0.001)
    within, seen = [0], []

    def work() -> None:
        for _ in range(20):
            with hold(tmp_path / "lock", on_wait=lambda owner: None):
                within[0] += 1
                seen.append(within[0])
                time.sleep(0)
                within[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 120
    assert list(tmp_path.iterdir()) == []


def test_an_owner_elsewhere_is_named_with_its_machine(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("77 node12\n")
    assert feature_lock.owner(path) == "process 77 on node12"
    path.write_text("")
    assert feature_lock.owner(path) == "another process"
    assert feature_lock.owner(tmp_path / "nothing") == "another process"


def test_no_locks_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_lock, "fcntl", None)
    calls: list[Callable[[], object]] = [lambda: take(tmp_path / "lock"), lambda: lock(0, shared=True)]
    for call in calls:
        with pytest.raises(NoLocksError):
            call()
    assert not is_held(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []
