"""All of an archive or nothing, whatever stops it, and nobody's files are overwritten."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_archives import member, tar_of, zip_of
from unpacking import FILES, REPORT, content_of, unpack, write

from fedmpt.data.download import unpack as unpack_module
from fedmpt.data.download.unpack import missing_files, remove_leftovers, unpack_archive
from fedmpt.types import InputError


@pytest.mark.parametrize("kind", ["tar", "zip", "packed zip"])
def test_files_are_those_of_the_archive(out: Path, kind: str) -> None:
    content = tar_of(FILES) if kind == "tar" else zip_of({**FILES}, compressed=kind == "packed zip")
    archive = unpack(out, content, name=f"files.{kind[-3:]}")
    assert content_of(out) == FILES
    assert missing_files(out, archive) == []


def test_the_root_of_the_archive_is_left_away(out: Path) -> None:
    unpack(out, tar_of({f"./kit/{name}": content for name, content in FILES.items()}), root="kit")
    assert content_of(out) == FILES


def test_folders_in_the_archive_are_no_files(out: Path) -> None:
    unpack(out, tar_of(FILES, member("set", tarfile.DIRTYPE), member("/", tarfile.DIRTYPE)))
    assert content_of(out) == FILES
    shutil.rmtree(out / "set")
    unpack(out, zip_of({"set/": b"", **FILES}), name="files.zip")
    assert content_of(out) == FILES


def test_two_archives_share_a_folder(out: Path) -> None:
    first = unpack(out, tar_of(FILES))
    second = unpack(out, tar_of({"set/images/3.jpg": b"three", "other/x": b"x"}), name="second.tar")
    assert content_of(out) == FILES | {"set/images/3.jpg": b"three", "other/x": b"x"}
    assert missing_files(out, first) == missing_files(out, second) == []


@pytest.mark.parametrize("step", range(12))
def test_a_stop_at_any_step_leaves_nothing_taken_for_whole(
    out: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A step is a file opened, or a file or folder renamed."""
    (out / "set").mkdir()  # So that files are moved one by one.
    path, archive = write(out, tar_of({**FILES, "top/x": b"x"}))
    left = step

    def stopping(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(unpack_module, "_write_member", stopping(unpack_module._write_member))
        patched.setattr(Path, "replace", stopping(Path.replace))
        patched.setattr(Path, "rename", stopping(Path.rename))
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # As after a kill: nothing is tidied up.
        if step < 11:
            with pytest.raises(KeyboardInterrupt):
                unpack_archive(path, archive, out, REPORT)
        else:
            unpack_archive(path, archive, out, REPORT)
    assert missing_files(out, archive) == (None if step < 11 else [])
    if (out / "set/ids/train.txt").exists():
        assert (out / "set/images/1.jpg").exists()  # A list is there after what it lists.
    remove_leftovers(out)
    unpack_archive(path, archive, out, REPORT)
    assert content_of(out) == {**FILES, "top/x": b"x", archive.file_name: path.read_bytes()}


def test_missing_and_changed_files_are_noticed_and_restored(out: Path) -> None:
    archive = unpack(out, tar_of(FILES))
    (out / "set/a.xml").unlink()
    (out / "set/images/1.jpg").write_bytes(b"cut")
    (out / "set/ids/train.txt").write_bytes(b"1\n")
    assert missing_files(out, archive) == ["set/a.xml", "set/ids/train.txt"]
    unpack(out, tar_of(FILES))
    assert content_of(out) == FILES
    shutil.rmtree(out / "set")
    assert missing_files(out, archive) == sorted(FILES)


def test_a_foreign_file_is_not_overwritten(out: Path) -> None:
    (out / "set").mkdir()
    (out / "set/a.xml").write_bytes(b"of the user")
    path, archive = write(out, tar_of(FILES))
    with pytest.raises(InputError, match=r"set/a\.xml is in the way: .*remove it or change --out"):
        unpack_archive(path, archive, out, REPORT)
    assert content_of(out / "set") == {"a.xml": b"of the user"}
    assert missing_files(out, archive) is None


@pytest.mark.parametrize("name", ["set", "set/images", "set/images/1.jpg"])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_is_in_the_way_is_named(out: Path, name: str, kind: str) -> None:
    if kind == "folder":
        name = "set/images/1.jpg"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        (out / name).mkdir()
    elif kind == "file":
        (out / name).write_bytes(b"of the user")
    else:
        (out / name).symlink_to("nowhere")
    path, archive = write(out, tar_of(FILES))
    with pytest.raises(InputError, match=r"set.* is in the way.*; remove it or change --out"):
        unpack_archive(path, archive, out, REPORT)
    assert missing_files(out, archive) is None
    assert not [entry for entry in os.listdir(out) if entry.startswith(".")]


def test_a_folder_on_another_disk_is_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_disk(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (out / "set").mkdir()
    path, archive = write(out, tar_of(FILES))
    monkeypatch.setattr(Path, "replace", other_disk)
    with pytest.raises(InputError, match=r"set.* is on another disk; give --out a folder without links in it"):
        unpack_archive(path, archive, out, REPORT)


def test_a_full_disk(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path, archive = write(out, tar_of(FILES))
    monkeypatch.setattr(unpack_module, "_write_member", full)
    with pytest.raises(InputError, match=r"the disk of .*out is full; make room, then the same command goes on"):
        unpack_archive(path, archive, out, REPORT)
    assert os.listdir(out) == [archive.file_name]


@pytest.mark.parametrize(
    "damage",
    [b"", b"[]", b"{}", b'{"sha256": 3}', b'{"sha256": "SUM", "files": 3}', b'{"sha256": "SUM", "files": {"a": "b"}}'],
)
def test_a_damaged_record_counts_as_none(out: Path, damage: bytes) -> None:
    archive = unpack(out, tar_of(FILES))
    record = out / ".fedmpt-downloaded" / "files.tar.json"
    record.write_bytes(damage.replace(b"SUM", archive.sha256.encode()))
    assert missing_files(out, archive) is None
    unpack(out, tar_of(FILES))
    assert missing_files(out, archive) == []


def test_a_record_of_another_archive_counts_as_none(out: Path) -> None:
    archive = unpack(out, tar_of(FILES))
    assert missing_files(out, replace(archive, sha256="0" * 64)) is None
