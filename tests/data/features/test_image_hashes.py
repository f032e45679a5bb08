"""Unchanged images are not read again, and no change goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmpt.data.features import fingerprint as module
from fedmpt.data.features.fingerprint import common_folder, image_hashes
from fedmpt.types import InputError

DAY_NS = 86_400_000_000_000

pytestmark = pytest.mark.usefixtures("a_day_later")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = []
    for number in range(70):  # More than one thread takes at a time.
        path = tmp_path / "images" / str(number % 3) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"picture {number:03d}".encode())
        found.append(path)
    return found


@pytest.fixture
def a_day_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are hashed a day after they were written."""
    time_ns = module.time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: time_ns() + DAY_NS)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images whose bytes were read."""
    names: list[str] = []
    file_digest = hashlib.file_digest

    def watched(file: Any, algorithm: str) -> Any:
        names.append(Path(file.name).name)
        return file_digest(file, algorithm)

    monkeypatch.setattr(module.hashlib, "file_digest", watched)
    return names


def hashes(files: list[Path], cache: Path | None) -> list[bytes]:
    return list(image_hashes(files, cache=cache, progress=False))


def expected(files: list[Path]) -> list[bytes]:
    return [hashlib.sha256(file.read_bytes()).digest() for file in files]


def index_of(cache: Path) -> Path:
    (path,) = (cache / "image_hashes").iterdir()
    return path


def test_the_second_time_nothing_is_read(files: list[Path], cache: Path, read: list[str]) -> None:
    assert hashes(files, cache) == expected(files)
    assert sorted(read) == sorted(file.name for file in files)
    read.clear()
    assert hashes(files, cache) == expected(files)
    assert hashes(files[::-2], cache) == expected(files[::-2])
    assert read == []


def replace_keeping_times(file: Path) -> None:
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def another_file_in_its_place(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes()[::-1])
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda file: file.write_bytes(b"another picture"),
    "content, size and time of change kept": replace_keeping_times,
    "another file with the same size and time": another_file_in_its_place,
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed(files: list[Path], cache: Path, read: list[str], change: str) -> None:
    before = hashes(files, cache)
    read.clear()
    CHANGES[change](files[40])
    after = hashes(files, cache)
    assert after == expected(files)
    assert [one != other for one, other in zip(before, after, strict=True)].index(True) == 40
    assert read == ["40.jpg"]


@pytest.mark.parametrize(("age_ns", "is_trusted"), [(0, False), (2_000_000_000, False), (2_000_000_001, True)])
def test_a_file_just_written_is_read_again(
    files: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch, read: list[str], age_ns: int, is_trusted: bool
) -> None:
    latest = max(max(file.stat().st_ctime_ns, file.stat().st_mtime_ns) for file in files)
    newest = [file.name for file in files if latest in (file.stat().st_ctime_ns, file.stat().st_mtime_ns)]
    monkeypatch.setattr(module.time, "time_ns", lambda: latest + age_ns)
    hashes(files, cache)
    read.clear()
    assert hashes(files, cache) == expected(files)
    assert set(newest).isdisjoint(read) == is_trusted


def test_a_file_that_changes_while_it_is_read_is_not_trusted(
    files: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_digest = hashlib.file_digest

    def changed_meanwhile(file: Any, algorithm: str) -> Any:
        digest = file_digest(file, algorithm)
        if file.name == str(files[5]):
            files[5].write_bytes(b"PICTURE 005")
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(module.hashlib, "file_digest", changed_meanwhile)
        hashes(files, cache)
    assert hashes(files, cache) == expected(files)


def edit(index: Path, change: Callable[[dict[str, Any]], object]) -> None:
    words = json.loads(index.read_text())
    change(words)
    index.write_text(json.dumps(words))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda index: index.write_bytes(b""),
    "a list": lambda index: index.write_text("[]"),
    "nothing in it": lambda index: index.write_text("{}"),
    "another kind of images": lambda index: edit(index, lambda words: words.update(images=[1])),
    "other entries": lambda index: edit(index, lambda words: words.update(images=dict.fromkeys(words["images"], 5))),
    "other hashes": lambda index: edit(index, lambda words: [entry.append("x") for entry in words["images"].values()]),
    "another version": lambda index: edit(index, lambda words: words.update(format=2)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_ignored(files: list[Path], cache: Path, read: list[str], damage: str) -> None:
    hashes(files, cache)
    DAMAGE[damage](index_of(cache))
    read.clear()
    assert hashes(files, cache) == expected(files)
    assert "40.jpg" in read
    read.clear()
    assert hashes(files, cache) == expected(files)
    assert read == []


def test_the_index_keeps_other_images_of_its_folder_and_forgets_those_that_are_gone(
    files: list[Path], cache: Path
) -> None:
    hashes(files[:3], cache)
    (index,) = (cache / "image_hashes").iterdir()
    files[1].unlink()
    hashes([files[0], *files[2:]], cache)
    words = json.loads(index.read_text())
    assert words["root"] == str(files[0].parents[1])
    assert len(words["images"]) == 69
    files[2].unlink()
    hashes(files[3:5] + files[6:9], cache)
    assert "/2/2.jpg" in json.loads(index.read_text())["images"], "nothing new, nothing written"


def test_a_cache_that_cannot_be_written(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert hashes(files, tmp_path / "cache") == expected(files)


def test_an_image_that_is_missing(files: list[Path], cache: Path) -> None:
    hashes(files, cache)
    files[7].unlink()
    with pytest.raises(
        InputError, match=r"7\.jpg: the image cannot be read: No such file .*; check the data set's folder"
    ):
        hashes(files, cache)


def test_the_folder_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert common_folder([Path("a/b/1.jpg"), Path("a/c/2.jpg")]) == str(tmp_path / "a")
    assert common_folder([Path("a/1.jpg"), Path("a/2.jpg")]) == str(tmp_path / "a")
    assert common_folder([Path("/1.jpg"), Path("/a/2.jpg")]) == "/"
    assert common_folder([]) == ""
