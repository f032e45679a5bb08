"""Folders as people and programs get them wrong, or odd and right: what has to come of each."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = str | bytes | None
"""What a file holds; None stands for a picture of its own."""


@dataclass(frozen=True)
class Case:
    """``refused`` is a pattern for the message of the error; without it ``labels`` are to come out.

    ``labels`` are the classes that each image shows, ``?`` before one that is unknown: ``"cat|?dog"``. ``prepare`` does
    what files alone cannot. ``clients`` says that the folder holds one folder a client.
    """

    files: Mapping[str, Content]
    refused: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda root: None
    options: Mapping[str, Any] = field(default_factory=dict)
    clients: bool = False

    def write(self, root: Path) -> None:
        root.mkdir()
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = name if content is None else content
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.prepare(root)


# Tables: what follows "labels.csv" in the message.
WRONG_TABLES: Mapping[str, tuple[str | bytes, str]] = {
    "nothing": ("", " is empty"),
    "header only": ("path,labels\n", " lists no images"),
    "no header": ("a.png,cat\nb.png,dog\n", r", line 1: no column is called path; the columns are 'a\.png'"),
    "latin-1": ("path,labels\na.png,pâté\n".encode("latin-1"), r", line 2: byte b'\\xe2' is not UTF-8; save the file"),
    "UTF-16": ("path,labels\na.png,cat\n".encode("utf-16"), " is UTF-16 text; save it as UTF-8"),
    "column twice": ("path,labels,labels\na.png,x,y\n", ", line 1: column 'labels' is there twice"),
    "column without a name": ("path,labels,\na.png,x,y\n", ": column 3 has no name"),
    "no labels": ("path,size\na.png,12\nb.png,44\n", r": no column labels, and none whose cells .* path, size"),
    "no labels at all": ("path,labels\na.png,\nb.png,\n", "data: no image has a label"),
    "row too short": ("path,labels,split\na.png,cat\n", ", line 2: 2 cells, the header has 3"),
    "row too long": (
        "path,labels\na.png,cat\nb.png,cat,dog\n",
        ", line 3: 3 cells, .* put names that hold ',' in quot",
    ),
    "open quote": ('path,labels\na.png,"cat\nb.png,dog\n', ", line 3: unexpected end of data"),
    "enormous cell": (f"path,labels\na.png,{'x' * 1_100_000}\n", ", line 2: field larger than"),
    "label NaN": ("path,labels\na.png,cat\nb.png,NaN\n", ", line 3: label 'NaN' stands for a missing value"),
    "cell NaN": ("path,cat\na.png,1\nb.png,0\nc.png,nan\n", ", line 4: 'cat' is 'nan', and 1, 0, -1 or empty in most"),
    "cell two": ("path,cat\na.png,1\nb.png,0\nc.png,2\n", ", line 4: 'cat' is '2'"),
    "bits for names": ("path,label\na.png,1\nb.png,0\n", ": column 'label' has nothing but 0 and 1 in it, .*classes="),
    "label in two cases": ("path,labels\na.png,cat\nb.png,CAT\n", ", line 3: class 'CAT' is written 'cat' in .*line 2"),
    "invisible letter": ("path,labels\na.png,cat\nb.png,c\u200bat\n", r", line 3: class .* invisible .*U\+200B"),
    "two separators": ("path,labels\na.png,a|b\nb.png,a;b\n", r", line 3: labels 'a;b' hold ';', those of line 2 '\|'"),
    "comma in a cell": ('path,labels\na.png,"a, b"\n', ", line 2: labels 'a, b' hold a comma; .* separator=comma"),
    "unknown split": ("path,labels,split\na.png,cat,tarin\n", ", line 2: split is 'tarin'; did you mean"),
    "split left out": ("path,labels,split\na.png,cat,train\nb.png,cat,\n", ", line 3: split is ''"),
    "only train": ("path,labels,split\na.png,x,train\nb.png,x,train\n", "split that is given has no test images"),
    "path twice": ("path,labels\na.png,cat\n.//a.png,dog\n", r", line 3: .*a\.png' is listed twice, first .* line 2"),
    "missing pictures": (
        "path,labels\na.png,x\nx.png,x\ny.png,x\n",
        r", line 3: image 'x\.png' is missing in .*did you mean .*; 2 of 3 are missing, also 'y\.png'; restore",
    ),
    "picture in another case": ("path,labels\nA.PNG,cat\nb.png,cat\n", r", line 2: image 'A\.PNG' .*mean 'a\.png'"),
    "no path": ("path,labels\na.png,cat\n,dog\n", ", line 3: '' is no name of an image"),
    "absolute path": ("path,labels\na.png,cat\n/etc/passwd,dog\n", ", line 3: '/etc/passwd' leads out of"),
    "path upwards": ("path,labels\na.png,cat\nsub/../../b.png,dog\n", r", line 3: 'sub/\.\./\.\./b\.png' leads out of"),
    "path upwards on Windows": ("path,labels\na.png,cat\n..\\b.png,dog\n", ", line 3: .* leads out of"),
}

DECOMPOSED, COMPOSED = unicodedata.normalize("NFD", "été.png"), unicodedata.normalize("NFC", "été.png")

NAMES: Mapping[str, tuple[str, str]] = {
    "spaces": (" two  spaces .png", " two  spaces .png"),
    "comma": ("a,b.png", "a,b.png"),
    "Windows' slashes": ("sub/deep/a.png", "sub\\deep\\a.png"),
    "dot before": ("sub/a.png", "./sub/./a.png"),
    "decomposed in the table": (COMPOSED, DECOMPOSED),
    "decomposed on disk": (DECOMPOSED, COMPOSED),
}
"""A picture's name on disk, and in the table."""

# metadata.jsonl: the second line, about b.png, and what follows "metadata.jsonl" in the message.
WRONG_JSON_LINES: Mapping[str, tuple[str | bytes, str]] = {
    "single quotes": ("{'file_name': 'b.png'}", ", line 2, column 2: not valid JSON"),
    "cut short": ('{"file_name": "b.pn', ", line 2, column 15: not valid JSON"),
    "list": ('["b.png", "cat"]', r", line 2: '\[\"b\.png\", \"cat\"\]' is no JSON object"),
    "no name": ('{"labels": []}', ", line 2: file_name is None; expected the path of an image"),
    "labels missing": (
        '{"file_name": "b.png", "x": 1}',
        r", line 2: labels is missing; expected a list of names, and \[",
    ),
    "labels null": ('{"file_name": "b.png", "labels": null}', ", line 2: labels is null"),
    "numbers for labels": ('{"file_name": "b.png", "labels": [0, 3]}', r", line 2: labels is \[0, 3\]"),
    "empty label": ('{"file_name": "b.png", "labels": [""]}', ", line 2: '' is no name of a class"),
    "number of 5000 digits": ('{"file_name": ' + "9" * 5000, ", line 2: JSON that cannot be read"),
    "nested": ('{"file_name": ' + "[" * 100_000, ", line 2: JSON that cannot be read"),
    "path upwards": ('{"file_name": "../b.png", "labels": []}', ", line 2: .* leads out of"),
}

INSTANCES: Mapping[str, Any] = {
    "images": [{"id": 3, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}],
    "annotations": [{"id": 1, "image_id": 3, "category_id": 9}],
    "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
}
# COCO: what an instances file has otherwise. `tests/data/datasets/test_coco.py` has what is wrong in any of them.
WRONG_COCO: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "absolute path": ({"images": [{"id": 3, "file_name": "/x.png"}]}, r", images\[0\]: '/x\.png' leads out of"),
    "missing picture": ({"images": [{"id": 3, "file_name": "x.png"}]}, r", images\[0\]: image 'x\.png' is missing"),
    "picture twice": (
        {"images": [*INSTANCES["images"], {"id": 4, "file_name": "./a.png"}]},
        r", images\[2\]: .*a\.png' is listed twice, first in .*images\[0\]",
    ),
    "category in two cases": (
        {"categories": [*INSTANCES["categories"], {"id": 1, "name": "Cat"}]},
        ", categories: class .* is written",
    ),
    "categories that are one class": (
        {"categories": [*INSTANCES["categories"], {"id": 1, "name": "hot dog"}, {"id": 4, "name": "hot  dog"}]},
        ", categories: 'hot dog' and 'hot  dog' are one class",
    ),
    "no lists": ({"images": {}}, ": images is no list"),
}


def thing(name: str, rest: str = "<difficult>0</difficult>") -> str:
    return f"<object><name>{name}</name>{rest}</object>"


def annotation(*things: str) -> str:
    return f"<annotation>{''.join(things)}</annotation>"


# VOC: the annotation of b, what b shows, and what follows "b.xml" in the message.
XML: Mapping[str, tuple[str | bytes, str, str]] = {
    "plain": (annotation(thing("cat")), "cat", ""),
    "byte order mark and CRLF": ("\ufeff<?xml version='1.0' encoding='utf-8'?>\r\n<annotation/>\r\n", "", ""),
    "latin-1": (
        f"<?xml version='1.0' encoding='iso-8859-1'?>{annotation(thing('pât'))}".encode("latin-1"), "pât", "",
    ),
    "UTF-16": (f"<?xml version='1.0' encoding='utf-16'?>{annotation(thing('cat'))}".encode("utf-16"), "cat", ""),
    "space around words": (annotation(thing("\n  cat\n", "<difficult> 0 </difficult>")), "cat", ""),
    "no difficult": (annotation(thing("cat", "")), "cat", ""),
    "difficult": (annotation(thing("cat", "<difficult>1</difficult>")), "?cat", ""),
    "difficult and not": (annotation(thing("cat", "<difficult>1</difficult>"), thing("cat")), "cat", ""),
    "parts of objects": (annotation(thing("cat", "<part><name>head</name></part>")), "cat", ""),
    "empty": ("", "", " is no well-formed XML: no element found"),
    "cut short": ("<annotation><object><name>cat</na", "", " is no well-formed XML"),
    "web page": ("<html><body><p>404</p></body></html>", "", ": the outermost element is 'html'"),
    "object without a name": (annotation(thing("cat"), "<object/>"), "", ", object 2: '' is no name of a class"),
    "difficult in words": (
        annotation(thing("cat", "<difficult>yes</difficult>")), "", ", object 1: difficult is 'yes'; expected 0 or 1",
    ),
    "class in two cases": (
        annotation(thing("Cat")), "", ", object 1: class 'Cat' is written 'cat' in .*a.xml, object 2",
    ),
}  # fmt: skip


TABLE = "path,labels\nodd.png,cat\nplain.png,dog\n"


def folder(prepare: Callable[[Path], object], refused: str = "", *, table: str = TABLE, **rest: Any) -> Case:
    """``odd.png`` comes to be by ``prepare``."""
    labels = {"odd.png": "cat", "plain.png": "dog"}
    return Case({"plain.png": None, "labels.csv": table}, refused=refused, labels=labels, prepare=prepare, **rest)


def link_out(name: str) -> Callable[[Path], None]:
    """``name`` is a link to something beside the data set."""

    def prepare(root: Path) -> None:
        outside = root.parent / "outside"
        outside.mkdir()
        (outside / "odd.png").write_text("odd")
        (root / name).symlink_to(outside / "odd.png" if "." in name else outside)

    return prepare


SITE: Mapping[str, Content] = {"A/a.png": None, "A/b.png": None, "A/labels.csv": "path,labels\na.png,cat\nb.png,dog\n"}


def clients(files: Mapping[str, Content], refused: str, **rest: Any) -> Case:
    """A sound client A, and what ``files`` adds."""
    return Case({**SITE, **files}, refused=refused, clients=True, **rest)


FOLDERS: Mapping[str, Case] = {
    "link out": folder(link_out("odd.png"), "line 2: 'odd.png' is a link out of .*outside.*load with links=follow"),
    "link out, wanted": folder(link_out("odd.png"), options={"links": "follow"}),
    "linked folder": folder(
        link_out("sub"), "line 2: 'sub/odd.png' is a link out of", table=TABLE.replace("odd", "sub/odd")
    ),
    "link within": folder(
        lambda root: (root / "odd.png").symlink_to((root / "real.png").write_text("odd") and "real.png")
    ),
    "folder called like a picture": folder(
        lambda root: (root / "odd.png").mkdir(), r"line 2: image 'odd\.png' is missing .*that is a folder"
    ),
    "file where a folder should be": folder(
        lambda root: None, "line 2: image 'plain.png/odd.png' is missing", table=TABLE.replace("odd", "plain.png/odd")
    ),
    "table that is a link out": Case({}, r"'labels\.csv' is a link out of", prepare=link_out("labels.csv")),
    "table that is a folder": Case({"labels.csv/x.png": None}, refused="data has no labels in it"),
    "nothing": Case({}, refused=r"data has nothing in it; expected .*labels\.csv .*; or metadata\.jsonl"),
    "pictures alone": Case({"a.png": None}, refused="data has no labels in it"),
    "two tables": Case({"x.csv": "path", "y.csv": "path"}, r"several tables: x\.csv, y\.csv; call the one"),
    "two COCO files": Case(
        {"x.json": json.dumps(INSTANCES), "y.json": json.dumps(INSTANCES)}, r"several COCO files: x\.json, y\.json"
    ),
    "JSON that is no COCO": Case({"x.json": "{}", "y.json": "[]"}, r"none of x\.json, y\.json has annotations\.json"),
    "two formats": Case(
        {"labels.csv": "path", "metadata.jsonl": "{}"}, r"several formats: csv \(labels\.csv\), imagefolder .*format="
    ),
    "VOC picture missing": Case(
        {"JPEGImages/a.png": None, "Annotations/z.xml": annotation()}, r"z\.xml: image 'z\.jpg' is missing in .*JPEG"
    ),
    "VOC pictures to choose from": Case(
        {"JPEGImages/a.png": None, "JPEGImages/a.jpg": None, "Annotations/a.xml": annotation()},
        r"a\.xml: a\.jpg and a\.png may be its image; keep one",
    ),
    "client with nothing": clients({"B/.keep": ""}, "B has no labels in it"),
    "client with a wrong line": clients({"B/labels.csv": "path,labels\nx.png\n"}, r"B/labels\.csv, line 2: 1 cells"),
    "client with a picture of another": clients(
        {"B/labels.csv": "path,labels\n../A/a.png,cat\n"}, r"B/labels\.csv, line 2: '../A/a\.png' leads out of"
    ),
    "client that is a link out": clients({}, r"'B' is a link out of .*links=follow", prepare=link_out("B")),
    "clients that disagree on a name": clients(
        {"B/x.png": None, "B/labels.csv": "path,labels\nx.png,CAT\n"},
        r"B/labels\.csv, line 2: class 'CAT' is written 'cat' in .*A/labels\.csv, line 2",
    ),
    "no clients": Case(
        {"labels.csv": "path"}, r"data has no subfolders; .* holds labels\.csv: .*write folder:", clients=True
    ),
}  # fmt: skip


def corpus() -> dict[str, Case]:
    """Every case by its name."""
    pictures: Mapping[str, Content] = {"a.png": None, "b.png": None, "c.png": None, "sub/d.png": None}
    cases = {f"folder: {name}": case for name, case in FOLDERS.items()}
    for name, (content, refused) in WRONG_TABLES.items():
        before = "" if refused[0] in "ds" else r"labels\.csv"
        cases[f"table: {name}"] = Case({**pictures, "labels.csv": content}, before + refused)
    for name, (on_disk, in_table) in NAMES.items():
        table = f'path,labels\n"{in_table}",cat\nb.png,dog\n'
        cases[f"name: {name}"] = Case(
            {on_disk: None, "b.png": None, "labels.csv": table}, labels={on_disk: "cat", "b.png": "dog"}
        )
    for name, (line, refused) in WRONG_JSON_LINES.items():
        second = line.encode() if isinstance(line, str) else line
        content = b'{"file_name": "a.png", "labels": ["cat", "dog"]}\n' + second
        cases[f"jsonl: {name}"] = Case({**pictures, "metadata.jsonl": content}, rf"metadata\.jsonl{refused}")
    for name, (fields, refused) in WRONG_COCO.items():
        content = json.dumps({**INSTANCES, **fields})
        cases[f"coco: {name}"] = Case({**pictures, "annotations.json": content}, rf"annotations\.json{refused}")
    for name, (content, shown, refused) in XML.items():
        files = {"JPEGImages/a.png": None, "JPEGImages/b.png": None, "Annotations/b.xml": content}
        files["Annotations/a.xml"] = annotation(thing("dog"), thing("cat"))
        labels = {"JPEGImages/a.png": "cat|dog", "JPEGImages/b.png": shown}
        cases[f"voc: {name}"] = Case(files, refused and rf"b\.xml{refused}", labels)
    return cases
