"""Of what an interrupted build left, only what is whole counts, whatever happened to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feature_builds import BATCH, build, part_of, spoil, stopped, store_of

from fedmpt.data.features.files import BUILD_LOG, StoreFacts
from fedmpt.data.features.writer import Block, StoreWriter, log_line, read_log
from fedmpt.types import Split


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def edit_log(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    log = folder / BUILD_LOG
    log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True))))


DAMAGE: dict[str, tuple[Callable[[Path], object], int]] = {
    "nothing": (lambda folder: None, 4),
    "a bit of the first block": (lambda folder: flip(folder / "patches.npy", 200), 10),
    "a bit of the second block": (lambda folder: flip(folder / "patches.npy", -1), 7),
    "a bit of a pooled feature": (lambda folder: flip(folder / "pooled.npy", -1), 7),
    "rows that power loss took": (lambda folder: os.truncate(folder / "patches.npy", 300), 7),
    "header": (lambda folder: flip(folder / "pooled.npy", 60), 10),
    "arrays gone": (lambda folder: (folder / "patches.npy").unlink(), 10),
    "log gone": (lambda folder: (folder / BUILD_LOG).unlink(), 10),
    "log without blocks": (lambda folder: edit_log(folder, lambda lines: lines[:1]), 10),
    "half a line": (lambda folder: edit_log(folder, lambda lines: [*lines, b'{"stop": 9, "crc']), 4),
    "a line without its end": (lambda folder: edit_log(folder, lambda lines: [*lines[:2], lines[2][:-1]]), 7),
    "a block missing": (lambda folder: edit_log(folder, lambda lines: [lines[0], lines[2]]), 10),
    "of another model": (
        lambda folder: edit_log(folder, lambda lines: [lines[0].replace(b'{"key": "', b'{"key": "0')]),
        10,
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_only_what_is_whole_counts_and_is_gone_on_with(
    split: Split, cache: Path, whole: dict[str, bytes], damage: str
) -> None:
    stopped(split, cache, at=3)
    change, num_left = DAMAGE[damage]
    change(part_of(cache))
    stopped(split, cache, at=2)
    assert sum(build(split, cache)) == num_left - BATCH
    assert store_of(cache) == whole


def test_half_written_rows_do_not_shine_through(split: Split, cache: Path, tmp_path: Path) -> None:
    spoil(split, 8)
    build(split, tmp_path / "whole", skip_corrupt=True)
    stopped(split, cache, at=3, skip_corrupt=True)
    for name in ("patches.npy", "pooled.npy"):
        with (part_of(cache) / name).open("ab") as file:
            file.write(b"\xff" * 1000)
    build(split, cache, skip_corrupt=True)
    assert store_of(cache) == store_of(tmp_path / "whole")


def test_the_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    facts = StoreFacts("k", "fake", 10, 4, 6, "bfloat16", ())
    blocks = [Block(3, (1, 2), ()), Block(10, (3, 2**32 - 1), ())]
    path = tmp_path / "log"
    lines = [log_line(words) for words in (facts, *blocks)]
    path.write_bytes(b"".join(lines))
    first, second = len(lines[0] + lines[1]), path.stat().st_size
    assert read_log(path) == (facts, [(blocks[0], first), (blocks[1], second)])


def test_rows_through_the_writer(tmp_path: Path) -> None:
    patches = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    said: list[str] = []
    writer = StoreWriter(tmp_path, StoreFacts("k", "fake", 5, 0, 0, "float32", ()), on_size=said.append)
    writer.resume(progress=False)
    for start in (0, 2, 4):
        rows = range(start, min(start + 2, 5))
        writer.write(rows, patches[start : start + 2], patches[start : start + 2, 0])
        writer.end_block(rows.stop, [])
    writer.finish()
    assert np.array_equal(np.load(tmp_path / "patches.npy"), patches)
    assert np.array_equal(np.load(tmp_path / "pooled.npy"), patches[:, 0])
    assert said[0].startswith("5 images take 180 B in float32; ")
