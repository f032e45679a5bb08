"""Checkpoints: what comes back, and what a kill or a full disk leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from checkpoints import RECORD, assert_same, change_index, progress, saved

from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.rounds import Progress


def test_round_trip(tmp_path: Path) -> None:
    loaded = load_checkpoint(saved(tmp_path / "new" / "folder"))
    assert_same(loaded.progress, progress(1.0))
    assert loaded.record == RECORD


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_number_formats_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {"x": torch.tensor([1.5, -2.0, 3e4]).to(dtype), "strided": torch.arange(6).view(2, 3).T.to(dtype)}
    kept = Progress(rounds_done=1, state=state, personal={0: {"x": torch.ones((), dtype=dtype)}})
    assert_same(load_checkpoint(saved(tmp_path, kept)).progress, kept)


def test_nothing_trained_is_a_state_too(tmp_path: Path) -> None:
    empty = Progress(rounds_done=0, state={}, personal={})
    assert_same(load_checkpoint(saved(tmp_path, empty)).progress, empty)
    no_elements = Progress(rounds_done=1, state={"x": torch.zeros(2, 0)}, personal={})
    assert_same(load_checkpoint(saved(tmp_path, no_elements)).progress, no_elements)


def test_a_new_checkpoint_replaces_the_old_one(tmp_path: Path) -> None:
    for rounds_done in (1, 2, 3):
        latest = progress(float(rounds_done), rounds_done=rounds_done, personal=rounds_done < 3, memory=rounds_done < 2)
        assert_same(load_checkpoint(saved(tmp_path, latest)).progress, latest)
    assert len(os.listdir(tmp_path)) == 2


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "calibration.json").write_text("{}")
    saved(tmp_path, progress(2.0, rounds_done=4))
    assert (tmp_path / "calibration.json").exists()


class Killed(BaseException):
    """The process is gone: no clean-up of it reaches the disk any more."""


class MortalDisk:
    """Lets a number of disk operations pass, then fails them all. A write in which it dies is half done."""

    def __init__(self, patch: pytest.MonkeyPatch, *, operations: int) -> None:
        self._left = operations
        opened, replace, unlink, fsync = Path.open, Path.replace, Path.unlink, os.fsync
        patch.setattr(Path, "open", lambda path, *how: MortalFile(self._pass(opened, path, *how), self))
        patch.setattr(Path, "replace", lambda path, to: self._pass(replace, path, to))
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: self._pass(unlink, path, missing_ok=missing_ok))
        patch.setattr(os, "fsync", lambda number: self._pass(fsync, number))

    def _pass(self, operation: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.step()
        return operation(*arguments, **options)

    def step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed


class MortalFile:
    def __init__(self, file: IO[bytes], disk: MortalDisk) -> None:
        self._file, self._disk = file, disk
        self.flush, self.fileno = file.flush, file.fileno

    def __enter__(self) -> MortalFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: bytes) -> None:
        self._file.write(content[: len(content) // 2])
        self._file.flush()
        self._disk.step()
        self._file.write(content[len(content) // 2 :])


def killed_save(folder: Path, kept: Progress, *, operations: int) -> bool:
    """Save on a disk that dies; whether it did before the save was done."""
    with pytest.MonkeyPatch.context() as patch:
        MortalDisk(patch, operations=operations)
        try:
            save_checkpoint(folder, kept, RECORD)
        except Killed:
            return True
        return False


@pytest.mark.parametrize("rounds_done", [4, 3])
@pytest.mark.parametrize("personal", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path, rounds_done: int, personal: bool) -> None:
    """Also where the same round is stored again with other numbers, as another machine may compute them."""
    old, new = progress(1.0), progress(2.0, rounds_done=rounds_done, personal=personal)
    found, operations = [], 0
    while True:
        folder = saved(tmp_path / str(operations), old)
        killed = killed_save(folder, new, operations=operations)
        loaded = load_checkpoint(folder).progress
        is_new = bool(loaded.state["weight"][0, 0] == 2)
        assert_same(loaded, new if is_new else old)
        found.append(is_new)
        # The next save works, and takes away what the kill left.
        last = progress(3.0, rounds_done=5)
        assert_same(load_checkpoint(saved(folder, last)).progress, last)
        assert len(os.listdir(folder)) == 4
        if not killed:
            break
        operations += 1
    # It dies at least while each file is opened, written, flushed to disk and renamed.
    assert operations >= 4 * (4 if personal else 3)
    assert found == sorted(found)
    assert set(found) == {False, True}


def test_a_full_disk_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            saved(folder, progress(2.0, rounds_done=4))
    assert_same(load_checkpoint(folder).progress, progress(1.0))
    assert not list(folder.glob(".*"))


def test_a_checkpoint_of_format_1_is_read(tmp_path: Path) -> None:
    """As it was written before servers had a memory."""
    kept = progress(1.0, memory=False)
    change_index(saved(tmp_path, kept), as_format_1)
    loaded = load_checkpoint(tmp_path)
    assert_same(loaded.progress, kept)
    assert loaded.record == RECORD


def as_format_1(index: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in index.items() if key != "memory"}, "format": 1}
