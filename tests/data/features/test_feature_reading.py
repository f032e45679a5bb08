"""Batches of stored features: the rows asked for, in their number format, in memory of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_backbone import FakeBackbone, all_rows, direct_features, stores

from fedmpt.data.features.files import StoreFacts, read_store
from fedmpt.data.features.store import open_features
from fedmpt.data.features.writer import StoreWriter
from fedmpt.types import InputError, Split


@pytest.mark.parametrize("store_dtype", ["float16", "bfloat16", "float32"])
def test_numbers_are_rounded_as_torch_rounds(split: Split, cache: Path, store_dtype: Any) -> None:
    features = open_features(FakeBackbone(), split, cache=cache, store_dtype=store_dtype, batch_size=10)
    batch = features.batch(all_rows(features))
    patches, pooled = direct_features(FakeBackbone(), split.files)
    assert torch.equal(batch.patches, patches.to(getattr(torch, store_dtype)).float())
    assert torch.equal(batch.pooled, pooled.to(getattr(torch, store_dtype)).float())
    assert not torch.equal(batch.patches, patches) or store_dtype == "float32"


@pytest.mark.parametrize("rows", [[7, 0, 7, 3], list(range(10)), [9, 8, 7], [2, 3, 4, 0, 1, 9], [5, 5, 6, 6, 7]])
def test_what_is_read_is_what_the_memory_map_shows(split: Split, cache: Path, rows: list[int]) -> None:
    store = open_features(FakeBackbone(), split, cache=cache).store
    patches, pooled = store.read(np.array(rows))
    assert np.array_equal(patches.numpy(), store.patches[rows])
    assert np.array_equal(pooled.numpy(), store.pooled[rows])


def test_a_batch_has_its_labels(split: Split, cache: Path) -> None:
    features = open_features(FakeBackbone(), split, cache=cache)
    rows = torch.tensor([7, 0, 7, 3])
    assert torch.equal(features.batch(rows).labels, split.labels[rows])
    assert len(features.batch(torch.tensor([], dtype=torch.int64))) == 0


def test_reading_without_preadv(split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = open_features(FakeBackbone(), split, cache=cache)
    rows = torch.tensor([7, 0, 7, 3])
    expected = features.batch(rows)
    monkeypatch.delattr(os, "preadv")  # As on Windows.
    assert torch.equal(features.batch(rows).patches, expected.patches)


def test_a_file_that_is_cut_short_while_in_use(split: Split, cache: Path) -> None:
    features = open_features(FakeBackbone(), split, cache=cache)
    path = cache / "features" / stores(cache)[0] / "patches.npy"
    os.truncate(path, path.stat().st_size - 40)
    assert len(features.batch(torch.arange(9))) == 9
    with pytest.raises(InputError, match=r"patches\.npy was cut short by another program; start again"):
        features.batch(torch.tensor([0, 9]))


def test_subsets_are_views(split: Split, cache: Path) -> None:
    features = open_features(FakeBackbone(), split, cache=cache)
    rows = torch.tensor([8, 2, 5])
    client = features.subset(rows)
    inner = client.subset(torch.tensor([2, 0]))
    assert torch.equal(inner.batch(torch.tensor([0, 1])).patches, features.batch(torch.tensor([5, 8])).patches)
    assert torch.equal(inner.labels, split.labels[[5, 8]])
    assert inner.files == (split.files[5], split.files[8])
    assert inner.store.patches is features.store.patches
    assert isinstance(inner.store.patches, np.memmap)


def mapped_bytes() -> int:
    """Pages of files that count as memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_reading_everything_takes_no_more_memory_than_a_batch(tmp_path: Path) -> None:
    rows, size = 2000, (16, 256)
    writer = StoreWriter(tmp_path, StoreFacts(tmp_path.name, "fake", rows, 0, 0, "float16"), say=lambda text: None)
    for start in range(0, rows, 100):
        patches = np.full((100, *size), start, np.float16)
        writer.write(start + 100, [patches, patches[:, 0]])
    writer.finish()
    store = read_store(tmp_path)
    assert store is not None
    num_bytes = store.patches.nbytes
    before = mapped_bytes()
    for start in range(0, rows, 100):
        patches, _ = store.read(np.arange(start, start + 100))
        assert float(patches[0, 0, 0]) == start
    assert mapped_bytes() - before < num_bytes / 4
    assert store.patches.sum(dtype=np.float32) > 0
    assert mapped_bytes() - before > num_bytes / 2, "through the map it would be seen"
