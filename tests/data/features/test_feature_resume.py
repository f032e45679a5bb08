"""A build that is killed, interrupted or out of room goes on where it was, to the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_backbone import FakeBackbone, stores
from feature_builds import BATCH, build, part_of, python, spoil, stopped, store_of

from fedmpt.data.features.store import open_features
from fedmpt.data.features.writer import RowFile
from fedmpt.types import InputError, Split


@pytest.mark.parametrize(("at", "left"), [(2, [3, 3, 1]), (3, [3, 1]), (4, [1])])
def test_a_stopped_build_goes_on_to_the_same_bytes(
    split: Split, cache: Path, whole: dict[str, bytes], at: int, left: list[int]
) -> None:
    stopped(split, cache, at=at)
    assert stores(cache) == []
    assert build(split, cache) == left
    assert store_of(cache) == whole
    assert build(split, cache) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from fake_backbone import FakeBackbone, write_split
from fedmpt.data.features.store import open_features
from fedmpt.data.features.writer import RowFile
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
backbone = FakeBackbone()
where = sys.argv[3]
if where == "tower":
    backbone.before = lambda pixels: len(backbone.batches) == 3 and kill()
if where == "rows":
    write = RowFile.write
    RowFile.write = lambda self, rows, values: (write(self, rows, values), rows[0] == 6 and kill())[0]
if where == "description":
    os.fsync = lambda handle: kill() if os.readlink(f"/proc/self/fd/{handle}").endswith("store.json") else None
if where == "name":
    Path.rename = kill
open_features(backbone, write_split(Path(sys.argv[1]), 10), cache=Path(sys.argv[2]), batch_size=3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize(("where", "left"), [("tower", [3, 1]), ("rows", [3, 1]), ("description", []), ("name", [])])
def test_a_killed_process_goes_on_to_the_same_bytes(
    split: Split, cache: Path, tmp_path: Path, whole: dict[str, bytes], where: str, left: list[int]
) -> None:
    killed = subprocess.run(**python(KILLED, tmp_path / "images", cache, where), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert part_of(cache).is_dir()
    assert build(split, cache) == left
    assert store_of(cache) == whole


def fill_up(monkeypatch: pytest.MonkeyPatch, *, after_rows: int) -> None:
    """From now on so many rows of arrays are written, then the disk is full."""
    left, write = [after_rows], RowFile.write

    def limited(array: RowFile, rows: Any, values: Any) -> int:
        left[0] -= len(rows)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(array, rows, values)

    monkeypatch.setattr(RowFile, "write", limited)


@pytest.mark.parametrize(("after_rows", "left"), [(0, 10), (5, 10), (6, 7), (11, 7), (18, 1)])
def test_a_disk_that_fills_up(
    split: Split, cache: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, after_rows: int, left: int
) -> None:
    with monkeypatch.context() as patch:
        fill_up(patch, after_rows=after_rows)  # Of two arrays.
        with pytest.raises(InputError, match="features cannot be written: No space left on device; make room on the d"):
            build(split, cache)
    assert (len(list((cache / "features").iterdir())) == 0) == (left == 10)
    assert sum(build(split, cache)) == left
    assert store_of(cache) == whole


def test_what_an_interrupted_build_holds_needs_no_room(
    split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(split, cache, at=3)
    row_bytes = (4 + 1) * 6 * 2
    for free_bytes in (4 * row_bytes - 1, 4 * row_bytes):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free_bytes: SimpleNamespace(free=free))
        backbone = FakeBackbone()
        if free_bytes == 4 * row_bytes:
            capsys.readouterr()
            assert build(split, cache, backbone) == [3, 1]
            break
        with pytest.raises(InputError, match="the features take 240 bytes and 239 bytes are free; make room"):
            build(split, cache, backbone)
        assert backbone.batches == []
    assert capsys.readouterr().err.splitlines() == [
        "computing image features (6 of 10 are there, the others take 240 bytes in float16; 240 bytes are free)",
        "computing image features (10, 6 are there)",
    ]


def test_size_is_told_after_the_first_batch(split: Split, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(split, cache)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "computing image features (10)"
    assert second.startswith("computing image features (10 images take 600 bytes in float16; ")
    assert second.endswith(" are free)")
    build(split, cache / "quiet", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("rows", [(0, 1, 2, 3), (1, 5)])
def test_images_left_out_are_remembered(split: Split, cache: Path, tmp_path: Path, rows: tuple[int, ...]) -> None:
    spoil(split, *rows)
    build(split, tmp_path / "whole", skip_corrupt=True)
    stopped(split, cache, at=3 if 3 not in rows else 2, skip_corrupt=True)
    features = open_features(FakeBackbone(), split, cache=cache, batch_size=BATCH, skip_corrupt=True)
    assert features.skipped == tuple(split.files[row] for row in rows)
    assert store_of(cache) == store_of(tmp_path / "whole")


def test_images_that_were_left_out_stop_who_does_not_leave_out(split: Split, cache: Path) -> None:
    spoil(split, 1)
    stopped(split, cache, at=3, skip_corrupt=True)
    backbone = FakeBackbone()
    with pytest.raises(InputError, match=r"001\.png: the image cannot be read .*; or leave .* --skip-corrupt"):
        build(split, cache, backbone)
    assert backbone.batches == []
    assert build(split, cache, skip_corrupt=True) == [3, 1]


def test_another_batch_size_goes_on_too(split: Split, cache: Path) -> None:
    stopped(split, cache, at=3)
    backbone = FakeBackbone()
    features = open_features(backbone, split, cache=cache, batch_size=4)
    assert backbone.batches == [4]
    fresh = open_features(FakeBackbone(), split, cache=cache / "fresh")
    rows = torch.arange(10)
    torch.testing.assert_close(features.batch(rows).patches, fresh.batch(rows).patches, rtol=2e-3, atol=2e-3)
