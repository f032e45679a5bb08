"""`fedmpt.data.download`: whole data sets from a server that fails, stopped anywhere, and read by their readers."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faulty_server import Behaviour, FaultyServer, cut, good, hang, other, page, status, without_ranges
from rich.filesize import decimal
from tiny_archives import VOC_PATH, tiny_coco_source, tiny_voc_source

from fedmpt.data import download as module
from fedmpt.data.archives import SOURCES
from fedmpt.data.datasets.coco import load_coco
from fedmpt.data.datasets.voc import load_voc
from fedmpt.data.download import download
from fedmpt.files import exclusive
from fedmpt.types import InputError

TEST = f"{VOC_PATH}VOCtest.tar"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    source, files = tiny_voc_source(tmp_path / "made")
    monkeypatch.setitem(SOURCES, "voc2007", source)
    with FaultyServer(files) as server:
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def out(tmp_path: Path, waits: list[float]) -> Path:
    return tmp_path / "sets" / "VOCdevkit"


def fetch(server: FaultyServer, out: Path, *parts: str, name: str = "voc2007", keep: bool = False) -> str:
    """What was said."""
    said: list[str] = []
    download(name, out, say=said.append, parts=parts, mirror=server.url, keep_archives=keep)
    return "\n".join(said)


def part_of(out: Path, content: bytes) -> Path:
    """An earlier call has left this of the archive of the part test."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "VOCtest.tar.part").write_bytes(content)
    return out / "VOCtest.tar.part"


def listed(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != ".fedmpt.lock")


def assert_test_is_there(out: Path) -> None:
    assert listed(out) == [".fedmpt-downloaded", "VOC2007"]
    assert (out / "VOC2007/ImageSets/Main/test.txt").is_file()


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_voc_is_read_from_where_it_was_put(voc: FaultyServer, out: Path, tmp_path: Path) -> None:
    said = fetch(voc, out)
    made = tmp_path / "made" / "VOCdevkit"
    ours, theirs = load_voc(out), load_voc(made)
    assert ours.train.labels.tolist() == theirs.train.labels.tolist()
    assert [file.name for file in ours.test.files] == [file.name for file in theirs.test.files]
    assert files_below(out / "VOC2007") == files_below(made / "VOC2007")
    assert_test_is_there(out)
    assert said.count("terms of voc") == 1
    assert "test: 17 files unpacked" in said
    assert f"{out} is complete; use it with --data voc:{out}" in said


def test_coco_is_read_from_where_it_was_put(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, files = tiny_coco_source()
    monkeypatch.setitem(SOURCES, "coco2014", source)
    with FaultyServer(files) as server:
        said = fetch(server, out, name="coco2014")
    assert listed(out) == [".fedmpt-downloaded", "annotations", "train2014", "val2014"]
    data = load_coco(out)
    assert data.class_names == ("person", "dog")
    assert len(data.train) == len(data.test) == 3
    assert f"--data coco:{out}" in said


def test_what_is_complete_is_left_alone(voc: FaultyServer, out: Path) -> None:
    assert f"{out} has no trainval yet; --data voc:{out} needs all parts" in fetch(voc, out, "test")
    assert [asked.path for asked in voc.asked] == [TEST]
    fetch(voc, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    said = fetch(voc, out)
    assert "trainval: complete in " in said
    assert "terms" not in said
    assert len(voc.asked) == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_kept_archives_restore_what_is_missing(voc: FaultyServer, out: Path) -> None:
    fetch(voc, out, keep=True)
    assert (out / "VOCtest.tar").read_bytes() == voc.files[TEST]
    (out / "VOC2007/ImageSets/Main/trainval.txt").write_text("cut")
    said = fetch(voc, out, keep=True)
    assert "trainval: 1 files are missing or changed, first VOC2007/ImageSets/Main/trainval.txt; restoring them" in said
    assert len(voc.asked) == 2
    assert len(load_voc(out).train) == 24


def test_an_archive_that_the_user_has_put_there(voc: FaultyServer, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "VOCtest.tar").write_bytes(voc.files[TEST])
    fetch(voc, out, "test")
    assert voc.asked == []
    shutil.rmtree(out / "VOC2007")
    (out / "VOCtest.tar").write_bytes(b"another")
    assert "is not the official archive" in fetch(voc, out, "test")
    assert_test_is_there(out)


def test_a_dropped_connection_is_gone_on_with(voc: FaultyServer, out: Path, waits: list[float]) -> None:
    voc.script[:] = [cut(1000)]
    fetch(voc, out, "test")
    assert [asked.start for asked in voc.asked] == [0, 1000]
    assert voc.sent_bytes == len(voc.files[TEST])
    assert waits == [1]
    assert_test_is_there(out)


def test_a_part_of_an_earlier_call_is_gone_on_with(voc: FaultyServer, out: Path) -> None:
    part_of(out, voc.files[TEST][:1000])
    said = fetch(voc, out, "test")
    assert [asked.start for asked in voc.asked] == [1000]
    assert ", 1.0 kB are there" in said
    assert_test_is_there(out)


def test_a_server_without_ranges_sends_all(voc: FaultyServer, out: Path) -> None:
    part_of(out, voc.files[TEST][:1000])
    voc.script[:] = [without_ranges]
    fetch(voc, out, "test")
    assert voc.sent_bytes == len(voc.files[TEST])


def test_a_part_of_another_file_is_begun_anew(voc: FaultyServer, out: Path) -> None:
    part_of(out, b"x" * 1000)
    said = fetch(voc, out, "test")
    assert [asked.start for asked in voc.asked] == [1000, 0]
    assert "; fetching it anew" in said
    assert_test_is_there(out)


def test_a_silent_server_is_left_after_a_while(voc: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)
    voc.script[:] = [hang(1000)]
    assert "VOCtest.tar: the connection broke (timed out); trying again in 1 s" in fetch(voc, out, "test")
    assert [asked.start for asked in voc.asked] == [0, 1000]


def test_whatever_ends_a_connection_is_no_end_of_it(
    voc: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, failed = HTTPResponse.read1, list[bool]()

    def once_unreachable(answer: HTTPResponse, most: int = -1) -> bytes:
        if not failed:
            failed.append(True)
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return read(answer, most)

    monkeypatch.setattr(HTTPResponse, "read1", once_unreachable)
    assert "No route to host); trying again in 1 s" in fetch(voc, out, "test")
    assert_test_is_there(out)


def test_waits_grow_and_start_again_with_every_progress(voc: FaultyServer, out: Path, waits: list[float]) -> None:
    nothing = status(503)
    voc.script[:] = [nothing, nothing, nothing, cut(1000), nothing, status(429)]
    fetch(voc, out, "test")
    assert waits == [1, 2, 4, 1, 1, 2]


def test_a_server_that_brings_nothing_further_is_given_up(voc: FaultyServer, out: Path, waits: list[float]) -> None:
    voc.script[:] = [good, cut(1000), *[status(500)] * 20]
    with pytest.raises(
        InputError, match=r"500 .*6 tries in a row .* 1\.0 kB of .* are kept in .*VOCtest\.tar\.part; the same command"
    ):
        fetch(voc, out)
    assert waits == [1, 1, 2, 4, 8, 16]
    with pytest.raises(InputError, match=r"test\.txt is missing"):
        load_voc(out)
    voc.script.clear()
    assert "trainval: complete" in fetch(voc, out)
    assert voc.asked[-1].start == 1000
    assert len(load_voc(out).test) == 8


def test_no_server_at_all(voc: FaultyServer, out: Path) -> None:
    voc.__exit__(None, None, None)
    with pytest.raises(InputError, match=r"Connection refused.*; 6 tries in a row brought nothing further"):
        fetch(voc, out, "test")
    voc.__init__({})  # type: ignore[misc]  # For the fixture to end.
    voc.__enter__()


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (status(403), r"VOCtest\.tar: the server answers 403 .*; take another address with --mirror"),
        (page, "sends a web page, not the archive; open the address in a browser"),
        (other(b"x" * 1234), r"VOCtest\.tar has 1,234 bytes, the official archive "),
    ],
)
def test_a_refusal_is_final(voc: FaultyServer, out: Path, behaviour: Behaviour, message: str) -> None:
    part = part_of(out, voc.files[TEST][:1000])
    voc.script[:] = [behaviour]
    with pytest.raises(InputError, match=message):
        fetch(voc, out, "test")
    assert len(voc.asked) == 1
    assert part.read_bytes() == voc.files[TEST][:1000]


def test_a_wrong_archive_is_not_unpacked(voc: FaultyServer, out: Path) -> None:
    voc.script[:] = [other(voc.files[TEST][:-1] + b"x")]
    with pytest.raises(InputError, match=r"VOCtest\.tar is not the official archive: its SHA-256 is not"):
        fetch(voc, out, "test")
    assert listed(out) == []
    part_of(out, b"x")
    voc.script[:] = [good, other(voc.files[TEST][:-1] + b"x")]
    with pytest.raises(InputError, match=r"VOCtest\.tar is not the official archive: .*--mirror"):
        fetch(voc, out, "test")
    assert listed(out) == []


def test_what_fails_while_an_archive_is_fetched_anew_is_said(voc: FaultyServer, out: Path) -> None:
    part_of(out, b"x")
    voc.script[:] = [good, status(403)]
    with pytest.raises(InputError, match=r"VOCtest\.tar: the server answers 403"):
        fetch(voc, out, "test")


def test_a_missing_file_is_looked_for_by_its_bare_name(voc: FaultyServer, out: Path, waits: list[float]) -> None:
    voc.files["/VOCtest.tar"] = voc.files.pop(TEST)
    fetch(voc, out, "test")
    assert [asked.path for asked in voc.asked] == [TEST, "/VOCtest.tar"]
    assert waits == []
    voc.files.clear()
    with pytest.raises(InputError, match=r"/VOCtrainval\.tar: the server answers 404 .*--mirror"):
        fetch(voc, out)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("have", [0, 1000])
def test_room_is_looked_for_first(
    voc: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, have: int
) -> None:
    """What the disk holds at most, of two archives."""
    part_of(out, voc.files[TEST][:have])
    first, second = (archive.size_bytes for archive in SOURCES["voc2007"].archives)  # Tars: as large unpacked.
    needed = 2 * first + 2 * second - have if keep else max(2 * first, first + 2 * second - have)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(InputError, match=rf"free, and {decimal(needed)} are needed for archives and files; make ro"):
        fetch(voc, out, keep=keep)
    assert voc.asked == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    fetch(voc, out, keep=keep)


@pytest.mark.parametrize("step", ["_receive", "_extract"])
def test_a_full_disk(voc: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, step, full)
        with pytest.raises(InputError, match=r"the disk of .* is full; make room, then the same command goes on"):
            fetch(voc, out, "test")
    fetch(voc, out, "test")
    assert_test_is_there(out)


@pytest.mark.parametrize("step", range(0, 19, 3))
def test_a_stop_at_any_step_leaves_nothing_taken_for_whole(
    voc: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A step is a file that gets its name, of 19. Nothing is tidied up, as after a kill."""
    fetch(voc, out, "trainval")  # So that files are moved one by one.
    left = step

    def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return function(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopping(Path.replace))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            fetch(voc, out, "test")
    if (out / "VOC2007/ImageSets/Main/test.txt").exists():
        assert len(load_voc(out).test) == 8  # A list is there after what it lists.
        assert len(list((out / "VOC2007/JPEGImages").iterdir())) == 32
    said = fetch(voc, out, "test")
    assert "test: 17 files unpacked" in said
    assert len(voc.asked) == 2
    assert len(load_voc(out).test) == 8
    assert_test_is_there(out)


def test_a_foreign_file_is_not_overwritten(voc: FaultyServer, out: Path) -> None:
    (out / "VOC2007/ImageSets/Main").mkdir(parents=True)
    own = out / "VOC2007/ImageSets/Main/test.txt"
    own.write_bytes(b"of the user")
    with pytest.raises(InputError, match=r"test\.txt is in the way: .*remove it or change --out"):
        fetch(voc, out, "test")
    assert files_below(out / "VOC2007") == {"ImageSets/Main/test.txt"}
    own.unlink()
    fetch(voc, out, "test")
    assert len(voc.asked) == 1


def test_one_process_at_a_time(voc: FaultyServer, out: Path) -> None:
    out.mkdir(parents=True)
    with exclusive(out), pytest.raises(InputError, match=r"another process is writing to .*VOCdevkit; wait for it"):
        fetch(voc, out)
    assert voc.asked == []
