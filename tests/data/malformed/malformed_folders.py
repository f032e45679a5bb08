"""Folders: links, pipes, things that are not what their names say, and several clients in one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from malformed_case import Case, Content, draw, png
from picture_files import PICTURE, jpeg

TABLE = "path,labels\nodd.png,cat\nplain.png,dog\n"


def folder(prepare: Callable[[Path], object], refused: str = "", *, table: str = TABLE, **rest: Any) -> Case:
    """``odd.png`` comes to be by ``prepare``."""
    labels = {"odd.png": "cat", "plain.png": "dog"}
    return Case({"plain.png": None, "labels.csv": table}, refused=refused, labels=labels, prepare=prepare, **rest)


def outside(root: Path) -> Path:
    """A folder beside the data set, with the picture of ``odd.png`` in it."""
    place = root.parent / "outside"
    place.mkdir()
    (place / "odd.png").write_bytes(png(draw("odd.png")))
    return place


def link_out(root: Path) -> None:
    (root / "odd.png").symlink_to(outside(root) / "odd.png")


def relative_link_out(root: Path) -> None:
    outside(root)
    (root / "odd.png").symlink_to(Path("..") / "outside" / "odd.png")


def link_chain_out(root: Path) -> None:
    (root / "step").symlink_to(outside(root) / "odd.png")
    (root / "odd.png").symlink_to("step")


def linked_folder(root: Path) -> None:
    (root / "sub").symlink_to(outside(root))


def link_within(root: Path) -> None:
    (root / "real").mkdir()
    (root / "real" / "x.png").write_bytes(png(draw("odd.png")))
    (root / "odd.png").symlink_to(Path("real") / "x.png")


def link_loop(root: Path) -> None:
    (root / "odd.png").symlink_to("other.png")
    (root / "other.png").symlink_to("odd.png")


def second_name(root: Path) -> None:
    (root / "odd.png").symlink_to("plain.png")


def bind_socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(root)  # The path of a socket may not be long.
        try:
            server.bind("odd.png")
        finally:
            os.chdir(here)


def name_in_bytes(root: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/\xff.png")).write_bytes(jpeg())
    except OSError:
        pytest.skip("this file system takes Unicode names only")


NO_FILE = r"odd\.png: the image cannot be read \(it is no regular file\)"
SITE: Mapping[str, Content] = {"A/a.png": None, "A/b.png": None, "A/labels.csv": "path,labels\na.png,cat\nb.png,dog\n"}


def clients(
    files: Mapping[str, Content], refused: str = "", *, labels: Mapping[str, str] | None = None, **rest: Any
) -> Case:
    """A sound client A, and what ``files`` adds."""
    shown = {"A/a.png": "cat", "A/b.png": "dog", **(labels or {})}
    return Case({**SITE, **files}, refused=refused, labels=shown, clients=True, **rest)


FOLDERS: Mapping[str, Case] = {
    "link out of the folder": folder(link_out, "labels.csv, line 2: 'odd.png' is a link out of"),
    "link out of the folder, relative": folder(relative_link_out, "labels.csv, line 2: 'odd.png' is a link out of"),
    "link out of the folder in two steps": folder(link_chain_out, "labels.csv, line 2: 'odd.png' is a link out of"),
    "link out of the folder, wanted": folder(link_out, options={"links": "follow"}),
    "linked folder": folder(
        linked_folder, "line 2: 'sub/odd.png' is a link out of", table=TABLE.replace("odd", "sub/odd")
    ),
    "link to a device": folder(
        lambda root: (root / "odd.png").symlink_to("/dev/zero"), "line 2: 'odd.png' is a link out of"
    ),
    "link to a device, followed": folder(
        lambda root: (root / "odd.png").symlink_to("/dev/zero"), NO_FILE, options={"links": "follow"}
    ),
    "link within the folder": folder(link_within),
    "link to nothing": folder(lambda root: (root / "odd.png").symlink_to("nowhere"), r"odd\.png: no such image"),
    "link to itself": folder(link_loop, r"odd\.png: the image cannot be read"),
    "second name of a picture": folder(second_name, r"line 3: .*plain\.png' is listed twice"),
    "folder called like a picture": folder(
        lambda root: (root / "odd.png").mkdir(), r"line 2: image 'odd\.png' is missing .*that is a folder"
    ),
    "link to a folder called like a picture": folder(lambda root: (root / "odd.png").symlink_to("."), NO_FILE),
    "pipe called like a picture": folder(lambda root: os.mkfifo(root / "odd.png"), NO_FILE),
    "socket called like a picture": folder(bind_socket, NO_FILE),
    "file where a folder should be": folder(
        lambda root: None, "line 2: image 'plain.png/odd.png' is missing", table=TABLE.replace("odd", "plain.png/odd")
    ),
    "name that is not Unicode": Case(
        {"plain.png": None, "metadata.jsonl": '{"file_name": "\\udcff.png", "labels": ["x"]}\n'},
        refused=r"metadata\.jsonl, line 1: the name .* on disk is not Unicode",
        prepare=name_in_bytes,
    ),
    "table called in capitals": Case(
        {"a.png": None, "b.png": None, "LABELS.CSV": "path,labels\na.png,cat\nb.png,dog\n"},
        labels={"a.png": "cat", "b.png": "dog"},
    ),
    "table that is a folder": Case({"labels.csv/x.png": None}, refused="data has no labels in it"),
    "table that is a link out": Case(
        {"a.png": None},
        refused=r"labels\.csv' is a link out of",
        prepare=lambda root: (root / "labels.csv").symlink_to(outside(root) / "odd.png"),
    ),
    "hidden table beside the table": Case(
        {"a.png": None, "b.png": None, "table.csv": "path,labels\na.png,cat\nb.png,dog\n", "._table.csv": b"\0\5\x16"},
        labels={"a.png": "cat", "b.png": "dog"},
    ),
    "nothing": Case({}, refused="data has nothing in it"),
    "pictures alone": Case({"a.png": None, "b.png": None}, refused="data has no labels in it"),
    "two tables": Case({"x.csv": "path", "y.csv": "path"}, refused=r"several tables: x\.csv, y\.csv"),
    "two formats": Case(
        {"labels.csv": "path", "metadata.jsonl": "{}"}, refused=r"several formats: csv \(labels\.csv\), imagefolder"
    ),
    "same name in two folders": Case(
        {"cat/1.png": None, "dog/1.png": None, "labels.csv": "path,labels\ncat/1.png,cat\ndog/1.png,dog\n"},
        labels={"cat/1.png": "cat", "dog/1.png": "dog"},
    ),
    "copy of a picture": Case(
        {"a.jpg": jpeg(), "b.jpg": jpeg(), "labels.csv": "path,labels\na.jpg,cat\nb.jpg,dog\n"},
        labels={"a.jpg": "cat", "b.jpg": "dog"},
        pictures={"a.jpg": PICTURE, "b.jpg": PICTURE},
        tolerance=6,
    ),
    "clients with names of all kinds": clients(
        {"Ü 2/x.png": None, "Ü 2/labels.csv": "path,labels\nx.png,dog\n", ".git/config": "x", "notes.txt": "x"},
        labels={"A/a.png": "cat", "A/b.png": "dog", "Ü 2/x.png": "?cat|dog"},
    ),
    "client with nothing": clients({"B/.keep": ""}, r"B has no labels in it"),
    "client without labels": clients({"B/x.png": None}, r"B has no labels in it"),
    "client with a wrong line": clients({"B/labels.csv": "path,labels\nx.png\n"}, r"B/labels\.csv, line 2: 1 cells"),
    "client with a picture of another": clients(
        {"B/labels.csv": "path,labels\n../A/a.png,cat\n"}, r"B/labels\.csv, line 2: '../A/a\.png' leads out of"
    ),
    "client with an empty picture": clients(
        {"B/x.png": b"", "B/labels.csv": "path,labels\nx.png,cat\n"}, r"B/x\.png: the image file is empty"
    ),
    "client that is a link out": clients(
        {}, "'B' is a link out of", prepare=lambda root: (root / "B").symlink_to(outside(root))
    ),
    "clients that disagree on a name": clients(
        {"B/x.png": None, "B/labels.csv": "path,labels\nx.png,CAT\n"},
        r"data/B: class 'CAT' is written 'cat' in .*data/A",
    ),
    "no clients": Case({"labels.csv": "path"}, refused="data has no subfolders", clients=True),
}
