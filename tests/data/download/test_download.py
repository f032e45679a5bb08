"""Whole data sets: fetched, unpacked, and read by their readers."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_server import FaultyServer, cut, good, other, status
from rich.console import Console
from tiny_archives import VOC_PATH, tiny_coco_source, tiny_voc_source

from fedmpt.data.datasets.coco import load_coco
from fedmpt.data.datasets.voc import load_voc
from fedmpt.data.download import download
from fedmpt.data.download.archives import SOURCES, Source
from fedmpt.data.download.fetch import Patience
from fedmpt.data.download.report import Report, amount
from fedmpt.files import exclusive
from fedmpt.types import InputError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    source, files = tiny_voc_source(tmp_path / "made")
    monkeypatch.setitem(SOURCES, "voc2007", source)
    with FaultyServer(files) as server:
        yield server


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sets" / "VOCdevkit"


def fetch_voc(server: FaultyServer, out: Path, *parts: str, name: str = "voc2007", keep: bool = False) -> str:
    """What was said."""
    console = Console(record=True, width=1000, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        patience = Patience(sleep=lambda _: None)
        report = Report(console)
        download(name, out, report=report, parts=parts, mirror=server.url, keep_archives=keep, patience=patience)
    return console.export_text()


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_voc_is_read_from_where_it_was_put(voc: FaultyServer, out: Path, tmp_path: Path) -> None:
    said = fetch_voc(voc, out)
    made = tmp_path / "made" / "VOCdevkit"
    ours, theirs = load_voc(out), load_voc(made)
    assert ours.train.labels.tolist() == theirs.train.labels.tolist()
    assert [file.name for file in ours.test.files] == [file.name for file in theirs.test.files]
    assert files_below(out / "VOC2007") == files_below(made / "VOC2007")
    assert sorted(os.listdir(out)) == [".fedmpt-downloaded", "VOC2007"]
    assert said.count("terms of voc") == 1
    assert "test: 17 files unpacked" in said
    assert f"{out} is complete; use it with --data voc:{out}" in said


def test_coco_is_read_from_where_it_was_put(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, files = tiny_coco_source()
    monkeypatch.setitem(SOURCES, "coco2014", source)
    with FaultyServer(files) as server:
        said = fetch_voc(server, out, name="coco2014")
    assert sorted(os.listdir(out)) == [".fedmpt-downloaded", "annotations", "train2014", "val2014"]
    assert sorted(os.listdir(out / "annotations")) == ["instances_train2014.json", "instances_val2014.json"]
    assert len(os.listdir(out / "train2014")) == 3
    data = load_coco(out)
    assert data.class_names == ("person", "dog")
    assert len(data.train) == len(data.test) == 3
    assert f"--data coco:{out}" in said


def test_what_is_complete_is_left_alone(voc: FaultyServer, out: Path) -> None:
    fetch_voc(voc, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    said = fetch_voc(voc, out)
    assert "trainval: complete in " in said
    assert "terms" not in said
    assert len(voc.asked) == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_parts_come_one_after_the_other(voc: FaultyServer, out: Path) -> None:
    said = fetch_voc(voc, out, "test")
    assert f"{out} has no trainval yet; --data voc:{out} needs all parts" in said
    assert [asked.path for asked in voc.asked] == [f"{VOC_PATH}VOCtest.tar"]
    fetch_voc(voc, out, "trainval")
    assert len(load_voc(out).train) == 24


def test_archives_are_kept_if_wanted(voc: FaultyServer, out: Path) -> None:
    fetch_voc(voc, out, keep=True)
    assert (out / "VOCtest.tar").read_bytes() == voc.files[f"{VOC_PATH}VOCtest.tar"]
    shutil.rmtree(out / "VOC2007" / "ImageSets")
    said = fetch_voc(voc, out, keep=True)
    assert "trainval: 1 files are missing or changed, first VOC2007/ImageSets/Main/trainval.txt; restoring them" in said
    assert len(voc.asked) == 2
    assert len(load_voc(out).train) == 24
    assert f"{out}/VOCtest.tar is unpacked and can be removed" in fetch_voc(voc, out)


def test_an_archive_the_user_has_put_there_is_used(voc: FaultyServer, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "VOCtest.tar").write_bytes(voc.files[f"{VOC_PATH}VOCtest.tar"])
    fetch_voc(voc, out)
    assert [asked.path for asked in voc.asked] == [f"{VOC_PATH}VOCtrainval.tar"]


def test_a_failed_part_keeps_those_before_it(voc: FaultyServer, out: Path) -> None:
    voc.script[:] = [good, cut(100), *[status(500)] * 6]
    with pytest.raises(InputError, match=r"VOCtest\.tar: .* 100 bytes of .* are kept in .*VOCtest\.tar\.part"):
        fetch_voc(voc, out)
    with pytest.raises(InputError, match=r"test\.txt is missing"):
        load_voc(out)
    said = fetch_voc(voc, out)
    assert "trainval: complete" in said
    assert voc.asked[-1].start == 100
    assert len(load_voc(out).test) == 8


def test_a_wrong_archive_is_not_unpacked(voc: FaultyServer, out: Path) -> None:
    content = voc.files[f"{VOC_PATH}VOCtrainval.tar"]
    voc.script.append(other(content[:-1] + b"x"))
    with pytest.raises(InputError, match=r"VOCtrainval\.tar is not the official archive: its SHA-256 is"):
        fetch_voc(voc, out)
    assert os.listdir(out) == []


def test_leftovers_of_a_killed_process_are_removed(voc: FaultyServer, out: Path) -> None:
    (out / ".fedmpt-unpacking-trainval" / "VOC2007").mkdir(parents=True)
    (out / ".fedmpt-unpacking-trainval" / "VOC2007" / "x").write_bytes(b"x")
    fetch_voc(voc, out)
    assert sorted(os.listdir(out)) == [".fedmpt-downloaded", "VOC2007"]


def test_one_process_at_a_time(voc: FaultyServer, out: Path) -> None:
    out.mkdir(parents=True)
    with exclusive(out), pytest.raises(InputError, match=r"another process is writing to .*VOCdevkit; wait for it"):
        fetch_voc(voc, out)
    assert voc.asked == []


def needed_bytes(source: Source, *, keep: bool) -> int:
    """What the disk holds at most, of two archives."""
    first, second = source.archives
    if keep:
        return first.size_bytes + first.unpacked_bytes + second.size_bytes + second.unpacked_bytes
    return first.unpacked_bytes + max(first.size_bytes, second.size_bytes + second.unpacked_bytes)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("have", [0, 1000])
def test_room_is_looked_for_first(
    voc: FaultyServer, out: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, have: int
) -> None:
    out.mkdir(parents=True)
    (out / "VOCtrainval.tar.part").write_bytes(voc.files[f"{VOC_PATH}VOCtrainval.tar"][:have])
    needed = needed_bytes(SOURCES["voc2007"], keep=keep) - have
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed - 1))
    with pytest.raises(InputError, match=rf"free, and {amount(needed)} are needed for archives and files; make room"):
        fetch_voc(voc, out, keep=keep)
    assert voc.asked == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, needed))
    fetch_voc(voc, out, keep=keep)


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("voc2012", [], "unknown data set 'voc2012'; did you mean 'voc2007'.*there are: voc2007, coco2014"),
        ("voc2007", ["trainvall"], "unknown part 'trainvall'; did you mean 'trainval'.*parts are: trainval, test"),
        ("coco2014", ["test"], "unknown part 'test'.*parts are: annotations, val, train"),
    ],
)
def test_wrong_names(voc: FaultyServer, out: Path, name: str, parts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fetch_voc(voc, out, *parts, name=name)
    assert not out.exists()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_there_is_a_line_now_and_then() -> None:
    clock, console = Clock(), Console(record=True, width=1000, quiet=False, file=open(os.devnull, "w"))  # noqa: SIM115
    with (
        console.file,
        Report(console, line_every_s=30, clock=clock).bar("a.tar", total=1_000_000, done=400_000) as show,
    ):
        for seconds, done in ((10, 450_000), (30, 550_000), (50, 600_000), (60, 700_000), (100, 1_000_000)):
            clock.now = seconds
            show(done)
    assert console.export_text().splitlines() == [
        "a.tar: 550.0 kB of 1.0 MB, 5.0 kB/s, 0:01:30 left",
        "a.tar: 700.0 kB of 1.0 MB, 5.0 kB/s, 0:01:00 left",
    ]


def test_lines_of_a_file_that_stands_or_begins_anew() -> None:
    clock, console = Clock(), Console(record=True, width=1000, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file, Report(console, line_every_s=30, clock=clock).bar("[a].tar", total=1000, done=400) as show:
        for seconds, done in ((30, 400), (40, 0), (90, 500)):
            clock.now = seconds
            show(done)
    assert console.export_text().splitlines() == [
        "[a].tar: 400 bytes of 1.0 kB, 0 bytes/s, unknown time left",
        "[a].tar: 500 bytes of 1.0 kB, 10 bytes/s, 0:00:50 left",
    ]


def test_a_terminal_shows_a_bar_that_may_begin_anew() -> None:
    console = Console(record=True, width=100, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file, Report(console).bar("[a].tar", total=1_000_000, done=500_000) as show:
        show(900_000)
        show(0)
        show(300_000)
    assert "[a].tar" in console.export_text()


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (460_032_000, "460.0 MB"), (13_510_573_713, "13.5 GB")],
)
def test_amounts(num_bytes: int, text: str) -> None:
    assert amount(num_bytes) == text
