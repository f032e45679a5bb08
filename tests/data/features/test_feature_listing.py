"""What `fedmpt features` finds in a cache, and what it removes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fake_backbone import FakeBackbone, stores
from feature_builds import python

from fedmpt.data.features.files import BUILD_LOG, lock
from fedmpt.data.features.listing import Record, list_features, remove_features, time_text
from fedmpt.data.features.store import FeatureSet, open_features
from fedmpt.files import hold, lock_of
from fedmpt.types import Split


def interrupted(split: Split, cache: Path) -> None:
    backbone = FakeBackbone()

    def stop(pixels: torch.Tensor) -> None:
        if len(backbone.batches) == 3:
            raise KeyboardInterrupt

    backbone.before = stop
    with pytest.raises(KeyboardInterrupt):
        open_features(backbone, split, cache=cache, batch_size=3)


def only(cache: Path) -> Record:
    (stored,) = list_features(cache)
    return stored


def test_a_complete_store(split: Split, cache: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache, data="voc:x")
    stored = only(cache)
    assert (stored["key"], stored["state"], stored["images_done"]) == (stores(cache)[0], "complete", 10)
    folder = cache / "features" / stored["key"]
    assert stored["folder"] == str(folder)
    assert (stored["rows"], stored["num_patches"], stored["width"]) == (10, 4, 6)
    assert stored["made_for"]["data"] == "voc:x"
    assert stored["last_used"] == time_text((folder / "store.json").stat().st_mtime)
    assert stored["size_bytes"] == sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_an_interrupted_build(split: Split, cache: Path) -> None:
    interrupted(split, cache)
    stored = only(cache)
    assert (stored["state"], stored["images_done"]) == ("interrupted", 6)
    assert (stored["rows"], stored["backbone"]) == (10, "fake")
    assert Path(stored["folder"]).name == f"{stored['key']}.part"
    assert stored["last_used"] == time_text((Path(stored["folder"]) / BUILD_LOG).stat().st_mtime)


def test_a_build_under_way(split: Split, cache: Path) -> None:
    seen: list[Record] = []
    kept: list[str | None] = []

    def look(pixels: torch.Tensor) -> None:
        seen.append(only(cache))
        kept.append(remove_features(seen[-1]))

    assert len(open_features(FakeBackbone(before=look), split, cache=cache, batch_size=4)) == 10
    assert [(stored["state"], stored["images_done"]) for stored in seen] == [
        ("building", 0),
        ("building", 4),
        ("building", 8),
    ]
    assert kept == ["another process is building it"] * 3


def cut_patches(folder: Path) -> None:
    os.truncate(folder / "patches.npy", 10)


@pytest.mark.parametrize("damage", [cut_patches, lambda folder: (folder / "store.json").unlink()])
def test_a_damaged_store(split: Split, cache: Path, damage: Callable[[Path], object]) -> None:
    open_features(FakeBackbone(), split, cache=cache)
    damage(cache / "features" / stores(cache)[0])
    stored = only(cache)
    assert stored["state"] == "damaged"
    assert "rows" not in stored
    assert remove_features(stored) is None
    assert list((cache / "features").iterdir()) == []


def test_last_used_comes_first_and_other_things_are_left_out(split: Split, cache: Path) -> None:
    for dtype, used in (("float16", 2000), ("bfloat16", 3000), ("float32", 1000)):
        open_features(FakeBackbone(), split, cache=cache, store_dtype=dtype)
        for path in (cache / "features").glob("*/store.json"):
            if path.stat().st_mtime > 10_000:
                os.utime(path, (used, used))
    for name in ("notes.txt", "tmp-1-a-b", "abc", "0" * 63, "0" * 64 + ".lock"):
        (cache / "features" / name).mkdir()
    found = list_features(cache)
    assert [stored["dtype"] for stored in found] == ["bfloat16", "float16", "float32"]


@pytest.mark.parametrize("is_complete", [True, False])
def test_what_nobody_uses_is_removed_and_nothing_else(split: Split, cache: Path, is_complete: bool) -> None:
    if is_complete:
        open_features(FakeBackbone(), split, cache=cache)
    else:
        interrupted(split, cache)
    (cache / "features" / "notes.txt").write_text("x")
    (cache / "scenes").mkdir()
    assert remove_features(only(cache)) is None
    assert list_features(cache) == []
    assert [path.name for path in (cache / "features").iterdir()] == ["notes.txt"]
    assert (cache / "scenes").is_dir()
    assert all(file.exists() for file in split.files)


def test_a_store_in_use_stays_until_it_is_let_go(split: Split, cache: Path) -> None:
    features: FeatureSet | None = open_features(FakeBackbone(), split, cache=cache)
    assert features is not None
    client = features.subset(torch.tensor([3]))
    features = None
    assert remove_features(only(cache)) == "another process is using it"
    assert len(client.batch(torch.tensor([0]))) == 1
    del client
    assert remove_features(only(cache)) is None


USING = """
import sys
from pathlib import Path
from fake_backbone import FakeBackbone, write_split
from fedmpt.data.features.store import open_features
features = open_features(FakeBackbone(), write_split(Path(sys.argv[1]), 10), cache=Path(sys.argv[2]))
print("using", flush=True)
sys.stdin.read()
"""


def test_a_store_that_another_process_uses_stays(split: Split, cache: Path, tmp_path: Path) -> None:
    call = python(USING, tmp_path / "images", cache)
    with subprocess.Popen(**call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"using\n"
        assert remove_features(only(cache)) == "another process is using it"
        process.communicate()
    assert remove_features(only(cache)) is None


def test_links_are_not_followed(split: Split, cache: Path, tmp_path: Path) -> None:
    open_features(FakeBackbone(), split, cache=cache)
    stored = only(cache)
    folder = Path(stored["folder"])
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    backbone = FakeBackbone()
    assert len(open_features(backbone, split, cache=cache)) == 10
    assert backbone.batches == []
    assert only(cache)["state"] == "complete"
    kept = remove_features(only(cache))
    assert kept is not None
    assert kept.startswith("it is a link")
    assert (tmp_path / "moved" / "store.json").exists()


def test_who_opens_a_store_that_is_being_removed_builds_it_again(split: Split, cache: Path) -> None:
    """The lock of the removal is held while another thread opens the features."""
    open_features(FakeBackbone(), split, cache=cache)
    folder = Path(only(cache)["folder"])
    backbone, opened = FakeBackbone(), []
    with (folder / "store.json").open("r+b") as file, hold(lock_of(folder)):
        assert lock(file.fileno(), shared=False)
        thread = threading.Thread(target=lambda: opened.append(open_features(backbone, split, cache=cache)))
        thread.start()
        folder.rename(cache / "removed")
    thread.join(60)
    assert sum(backbone.batches) == 10
    assert len(opened[0]) == 10
