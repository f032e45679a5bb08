from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_backbone import FakeBackbone, all_rows, direct_features, stores
from PIL import Image

from fedmpt.data.features import fingerprint
from fedmpt.data.features.store import open_features
from fedmpt.types import InputError, Split


@pytest.mark.parametrize(("store_dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3), ("float32", 1e-6)])
def test_features_are_those_of_the_tower(split: Split, cache: Path, store_dtype: Any, tolerance: float) -> None:
    backbone = FakeBackbone()
    features = open_features(backbone, split, cache=cache, store_dtype=store_dtype, batch_size=4)
    assert backbone.batches == [4, 4, 2]
    batch = features.batch(all_rows(features))
    patches, pooled = direct_features(FakeBackbone(), split.files)
    torch.testing.assert_close(batch.patches, patches, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(batch.pooled, pooled, rtol=tolerance, atol=tolerance)
    assert torch.equal(batch.labels, split.labels)
    assert batch.patches.dtype == batch.pooled.dtype == torch.float32
    assert batch.patches.shape == (len(features), 4, 6) == (10, 4, 6)
    assert (features.files, features.skipped) == (split.files, ())


def test_the_second_time_nothing_is_computed(split: Split, cache: Path) -> None:
    first = open_features(FakeBackbone(), split, cache=cache)
    backbone = FakeBackbone()
    second = open_features(backbone, split, cache=cache)
    assert backbone.batches == []
    assert torch.equal(first.batch(all_rows(first)).patches, second.batch(all_rows(second)).patches)


def test_moved_images_and_new_labels_need_no_computing(split: Split, cache: Path, tmp_path: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache)
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    moved = Split("test", tuple(tmp_path / "elsewhere" / file.name for file in split.files), 1 - split.labels)
    backbone = FakeBackbone()
    features = open_features(backbone, moved, cache=cache)
    assert backbone.batches == []
    assert torch.equal(features.labels, 1 - split.labels)


def change_one_pixel(backbone: FakeBackbone, split: Split) -> Split:
    image = Image.open(split.files[4]).copy()
    image.putpixel((0, 0), tuple(255 - value for value in image.getpixel((0, 0))))
    image.save(split.files[4])
    return split


def swap_keeping_times(backbone: FakeBackbone, split: Split) -> Split:
    """Two images of one size in bytes change places, and nothing but the time of the inode tells."""
    first, second = split.files[0], split.files[3]
    contents = [file.read_bytes().ljust(1000, b"\0") for file in (second, first)]
    for file, content in zip((first, second), contents, strict=True):
        status = file.stat()
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return split


def change_one_weight(backbone: FakeBackbone, split: Split) -> Split:
    with torch.no_grad():
        backbone._conv.weight[0, 0, 0, 0] += 0.5
    return split


def change_preprocessing(backbone: FakeBackbone, split: Split) -> Split:
    backbone.brightness = 0.9
    return split


def change_order(backbone: FakeBackbone, split: Split) -> Split:
    return Split(split.name, split.files[::-1], split.labels.flip(0))


@pytest.mark.parametrize("hashes_are_remembered", [False, True])
@pytest.mark.parametrize(
    "change",
    [change_one_pixel, swap_keeping_times, change_one_weight, change_preprocessing, change_order],
)
def test_a_stale_store_is_never_used(
    split: Split,
    cache: Path,
    change: Callable[[FakeBackbone, Split], Split],
    hashes_are_remembered: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hashes_are_remembered:  # Else these files are too new for that.
        monkeypatch.setattr(fingerprint, "GRANULARITY_NS", -(10**18))
    open_features(FakeBackbone(), split, cache=cache)
    backbone = FakeBackbone()
    changed = change(backbone, split)
    features = open_features(backbone, changed, cache=cache)
    assert sum(backbone.batches) == len(changed)
    assert len(stores(cache)) == 2
    expected, _ = direct_features(backbone, changed.files)
    torch.testing.assert_close(features.batch(all_rows(features)).patches, expected, rtol=1e-3, atol=1e-3)


def test_rebuilt_features_are_the_same_bytes(split: Split, cache: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache, batch_size=3)
    folder = cache / "features" / stores(cache)[0]
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    shutil.rmtree(cache)
    open_features(FakeBackbone(), split, cache=cache, batch_size=3)
    assert sorted(before) == ["patches.npy", "pooled.npy", "store.json"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_store_describes_itself(split: Split, cache: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache, data="voc:VOCdevkit")
    facts = json.loads((cache / "features" / stores(cache)[0] / "store.json").read_text())
    assert facts["key"] == stores(cache)[0]
    assert (facts["backbone"], facts["dtype"], facts["rows"]) == ("fake", "float16", 10)
    assert (facts["num_patches"], facts["width"], facts["skipped"]) == (4, 6, [])
    assert facts["made_for"] == {"data": "voc:VOCdevkit", "split": "train", "folder": str(split.files[0].parent)}
    backbone = FakeBackbone()  # Which is no part of its key.
    open_features(backbone, replace(split, name="test"), cache=cache, data="own:photos")
    assert backbone.batches == []


def test_a_store_of_an_earlier_version_is_used(split: Split, cache: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache)
    description = cache / "features" / stores(cache)[0] / "store.json"
    words = json.loads(description.read_text())
    del words["made_for"]
    description.write_text(json.dumps(words))
    backbone = FakeBackbone()
    assert len(open_features(backbone, split, cache=cache)) == 10
    assert backbone.batches == []


def test_opening_a_store_is_the_time_of_its_last_use(split: Split, cache: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache)
    description = cache / "features" / stores(cache)[0] / "store.json"
    os.utime(description, (1000, 1000))
    open_features(FakeBackbone(), split, cache=cache)
    assert description.stat().st_mtime > 1_000_000


def test_a_complete_store_in_a_cache_that_cannot_be_written(
    split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_features(FakeBackbone(), split, cache=cache).batch(torch.arange(10))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    open_file = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *more: refuse() if flags & 3 else open_file(path, flags, *more))
    for name in ("utime", "mkdir", "rename", "replace", "unlink", "truncate"):
        monkeypatch.setattr(os, name, refuse)
    backbone = FakeBackbone()
    assert torch.equal(open_features(backbone, split, cache=cache).batch(torch.arange(10)).patches, before.patches)
    assert backbone.batches == []


def spoil(split: Split, *rows: int) -> None:
    contents = [b"no picture", b"", split.files[2].read_bytes()[:100]]
    for content, row in zip(contents * len(rows), rows, strict=False):
        split.files[row].write_bytes(content)


def test_a_corrupt_image_stops_and_is_named(split: Split, cache: Path) -> None:
    spoil(split, 6)
    with pytest.raises(InputError, match=r"006\.png: the image cannot be read .*--skip-corrupt"):
        open_features(FakeBackbone(), split, cache=cache, batch_size=2)
    assert stores(cache) == []


@pytest.mark.parametrize("rows", [(0, 1, 2, 3, 4), (1, 5, 6, 9)])
def test_corrupt_images_can_be_left_out(split: Split, cache: Path, rows: tuple[int, ...]) -> None:
    spoil(split, *rows)
    features = open_features(FakeBackbone(), split, cache=cache, batch_size=2, skip_corrupt=True)
    kept = [row for row in range(10) if row not in rows]
    assert features.skipped == tuple(split.files[row] for row in rows)
    assert features.files == tuple(split.files[row] for row in kept)
    assert torch.equal(features.labels, split.labels[kept])
    expected, _ = direct_features(FakeBackbone(), features.files)
    torch.testing.assert_close(features.batch(all_rows(features)).patches, expected, rtol=1e-3, atol=1e-3)
    facts = json.loads((cache / "features" / stores(cache)[0] / "store.json").read_text())
    assert [entry["row"] for entry in facts["skipped"]] == list(rows)
    again = FakeBackbone()
    assert open_features(again, split, cache=cache, skip_corrupt=True).skipped == features.skipped
    assert again.batches == []
    with pytest.raises(InputError, match=rf"00{rows[0]}\.png: the image cannot be read"):
        open_features(again, split, cache=cache)  # Leaving out must be asked for every time.


def test_nothing_but_corrupt_images(split: Split, cache: Path) -> None:
    spoil(split, *range(10))
    with pytest.raises(InputError, match=r"none of the 10 images could be read; the first, .*000\.png"):
        open_features(FakeBackbone(), split, cache=cache, skip_corrupt=True)
    assert stores(cache) == []


def test_a_wrong_batch_size(split: Split, cache: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 0; it must be at least 1"):
        open_features(FakeBackbone(), split, cache=cache, batch_size=0)
