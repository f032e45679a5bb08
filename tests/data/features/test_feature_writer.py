"""Of what an interrupted build left, only what is whole counts, whatever happened to it."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feature_builds import BATCH, build, part_of, spoil, stopped, store_of

from fedmpt.data.features.files import BUILD_LOG, StoreFacts
from fedmpt.data.features.writer import StoreWriter, read_log
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
    "header": (lambda folder: flip(folder / "pooled.npy", 60), 4),
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


def test_rows_through_the_writer(tmp_path: Path) -> None:
    patches = np.arange(5 * 2 * 3, dtype=np.float32).reshape(5, 2, 3)
    skipped = [{"row": row, "file": f"{row}.jpg", "reason": "no picture"} for row in (0, 3)]
    patches[[0, 3]] = 0
    said: list[str] = []
    plan = StoreFacts("k", "fake", 5, 0, 0, "float32", ())
    writer = StoreWriter(tmp_path, plan, say=said.append)
    writer.resume(progress=False)
    writer.write(1, skipped=skipped[:1])
    writer.write(3, [patches[1:3], patches[1:3, 0]])
    writer.write(4, skipped=skipped[1:])
    facts, blocks = read_log(tmp_path)
    assert facts == dataclasses.replace(plan, num_patches=2, width=3, skipped=[])
    assert [block["stop"] for block in blocks] == [3, 4]
    assert blocks[0]["crc32"] == [zlib.crc32(patches[1:3].tobytes()), zlib.crc32(patches[1:3, 0].tobytes())]
    writer.write(5, [patches[4:], patches[4:, 0]])
    writer.finish()
    assert np.array_equal(np.load(tmp_path / "patches.npy"), patches)
    assert np.array_equal(np.load(tmp_path / "pooled.npy"), patches[:, 0])
    assert [entry["row"] for entry in json.loads((tmp_path / "store.json").read_text())["skipped"]] == [0, 3]
    assert said[0].startswith("5 images take 180 bytes in float32; ")
