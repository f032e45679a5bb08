"""Files are the old one or the new one, and unreadable ones are explained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fedmpt.files import building, exclusive, hold, is_held, publish, read_json, write_atomically, write_json
from fedmpt.types import InputError


def test_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old, and longer", b"new", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_threads_may_write_one_file_at_a_time(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(4)]

    def write(content: bytes) -> None:
        for _ in range(20):
            write_atomically(tmp_path / "file", content)
            assert (tmp_path / "file").read_bytes() in contents

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "gone" / "a.json", b"")
    assert caught.value.filename == str(tmp_path / "gone" / "a.json")


def test_content_is_on_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (steps.append("fsync"), fsync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda path, to: (steps.append("replace"), replace(path, to))[1])
    write_atomically(tmp_path / "file", b"x")
    assert steps == ["fsync", "replace"]


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "ä": {"b": "c"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert (tmp_path / "x.json").read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused_and_the_old_file_kept(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"new": value})
    assert json.loads(path.read_text()) == {"old": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b": }', "x.json, line 2: not valid JSON"),
        (b"", "x.json, line 1: not valid JSON"),
        (b'{"a": "\xff"}', r"x.json is not UTF-8 text \(byte 7\)"),
        (b"[" * 100_000, "x.json: JSON that cannot be read"),
        (b"9" * 5000, "x.json: JSON that cannot be read"),
    ],
)
def test_unreadable_json_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json")


def test_missing_json_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file or directory"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match=f"{tmp_path.name} cannot be read: "):
        read_json(tmp_path)


HOLD = """
import sys
import threading
import time
from pathlib import Path
from fedmpt.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"another process is writing to .*{tmp_path.name}; wait for it"):
            exclusive(tmp_path).__enter__()
        other.kill()
    for _ in range(2):
        with exclusive(tmp_path):
            pass


def test_what_blocks_within_a_held_folder_is_not_taken_for_another_process(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError, match="a pipe"), exclusive(tmp_path):
        raise BlockingIOError("a pipe")


def test_a_folder_that_is_only_read_needs_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with exclusive(tmp_path):
        assert os.listdir(tmp_path) == []


def test_threads_are_never_within_together(tmp_path: Path) -> None:
    within, seen = [0], []

    def work() -> None:
        for _ in range(5):
            with hold(tmp_path / "lock", on_wait=lambda: None):
                within[0] += 1
                seen.append(within[0])
                time.sleep(0)
                within[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 20


def test_a_lock_file_that_was_left_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    path.write_text("12 node\n")
    assert not is_held(path)
    with hold(path):
        assert is_held(path)
        with pytest.raises(TimeoutError):
            hold(path).__enter__()


def test_what_is_built_gets_its_name_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "a"
    with building(folder, on_wait=print) as part:
        (part / "first").write_text("x")
    folder.mkdir()
    (folder / "damaged").write_text("x")
    with building(folder, on_wait=print) as part:
        assert os.listdir(part) == ["first"]
        publish(part, folder)
    assert os.listdir(tmp_path / "new") == ["a"]
    assert os.listdir(folder) == ["first"]
