"""COCO files and metadata.jsonl that are wrong, or odd and right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from malformed_case import Case

IMAGES: list[Any] = [{"id": 3, "file_name": "a.png"}, {"id": 1, "file_name": "sub/b.png"}]
ANNOTATIONS: list[Any] = [{"id": 1, "image_id": 3, "category_id": 9}, {"id": 2, "image_id": 3, "category_id": 2}]
CATEGORIES: list[Any] = [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}]
SHOWN = {"a.png": "cat|dog", "sub/b.png": ""}


def instances(**fields: Any) -> str:
    content = {"images": IMAGES, "annotations": ANNOTATIONS, "categories": CATEGORIES, **fields}
    return json.dumps({key: value for key, value in content.items() if value is not None})


def coco(content: str | bytes, refused: str = "", **rest: Any) -> Case:
    files = {"a.png": None, "sub/b.png": None, "annotations.json": content}
    return Case(files, refused=rf"annotations\.json{refused}" if refused else "", labels=SHOWN, **rest)


def jsonl(line: str | bytes, refused: str = "", *, shown: str = "cat", **rest: Any) -> Case:
    """A sound first line, then ``line``, which is about ``sub/b.png``."""
    second = line.encode() if isinstance(line, str) else line
    content = b'{"file_name": "a.png", "labels": ["cat", "dog"]}\n' + second
    files = {"a.png": None, "sub/b.png": None, "metadata.jsonl": content}
    labels = {"a.png": "cat|dog", "sub/b.png": shown}
    return Case(files, refused=rf"metadata\.jsonl{refused}" if refused else "", labels=labels, **rest)


def b(fields: str) -> str:
    return f'{{"file_name": "sub/b.png", {fields}}}'


JSON: Mapping[str, Case] = {
    "coco plain": coco(instances()),
    "coco byte order mark": coco("\ufeff" + instances()),
    "coco indented": coco(json.dumps(json.loads(instances()), indent=2).replace("\n", "\r\n")),
    "coco more fields": coco(instances(info={"year": None}, licenses=[{"x": [[[]]]}])),
    "coco with outlines": coco(instances(annotations=[{**a, "segmentation": [[0.5] * 400]} for a in ANNOTATIONS])),
    "coco numbers of other fields that are NaN": coco(instances(info=float("nan"))),
    "coco escaped names": coco(instances().replace("a.png", "\\u0061.png")),
    "coco empty": coco("", ", line 1, column 1|.*is no JSON object"),
    "coco cut short": coco(instances()[:-30], ", line 1, column .*: not valid JSON"),
    "coco comment": coco("// mine\n" + instances(), ".* is no JSON object"),
    "coco comma at the end": coco(instances()[:-1] + ",}", ", line 1, column .*: not valid JSON"),
    "coco single quotes": coco(instances().replace('"', "'"), ", line 1, column .*: not valid JSON"),
    "coco list": coco("[]", " is no JSON object"),
    "coco latin-1": coco(instances().replace("cat", "pât").encode("latin-1"), ", line 1: byte .* is not UTF-8"),
    "coco UTF-16": coco(instances().encode("utf-16"), " is UTF-16 text"),
    "coco deep nesting": coco(instances(info=None)[:-1] + ', "x": ' + "[" * 200_000, ": JSON that cannot be read"),
    "coco enormous number": coco(instances()[:-1] + f', "x": {"9" * 5000}}}', ": JSON that cannot be read"),
    "coco without images": coco(instances(images=None), ": images is missing"),
    "coco without annotations": coco(instances(annotations=None), ": annotations is missing"),
    "coco without categories": coco(instances(categories=None), ": categories is missing"),
    "coco no images": coco(instances(images=[], annotations=[]), ": images is empty"),
    "coco images no list": coco(instances(images={}), ": images is no list"),
    "coco image no object": coco(instances(images=["a.png"]), r": images\[0\]: .* is no object"),
    "coco image without a file": coco(instances(images=[IMAGES[0], {"id": 1}]), r": images\[1\]: file_name is missing"),
    "coco image id twice": coco(
        instances(images=[IMAGES[0], {"id": 3, "file_name": "c"}]), r": images\[1\]: id 3 is that"
    ),
    "coco image id that is true": coco(
        instances(images=[{"id": True, "file_name": "a.png"}]), r": images\[0\]: id is true"
    ),
    "coco annotation of no image": coco(
        instances(annotations=[{"image_id": 77, "category_id": 9}]), r": annotations\[0\]: image_id 77 is not in images"
    ),
    "coco annotation of no category": coco(
        instances(annotations=[{"image_id": 3, "category_id": 77}]), r": annotations\[0\]: category_id 77 is not in cat"
    ),
    "coco annotation id NaN": coco(
        instances(annotations=[{"image_id": float("nan"), "category_id": 9}]), r": annotations\[0\]: image_id is NaN"
    ),
    "coco category twice": coco(
        instances(categories=[*CATEGORIES, {"id": 1, "name": "cat"}]), r": categories\[2\]: name \"cat\" is that of"
    ),
    "coco category in two cases": coco(
        instances(categories=[*CATEGORIES, {"id": 1, "name": "Cat"}]), ", categories: class .* is written"
    ),
    "coco category without a name": coco(
        instances(categories=[*CATEGORIES, {"id": 1, "name": " "}]), r": categories\[2\]"
    ),
    "coco list twice": coco(instances()[:-1] + ', "images": []}', ": images is given twice"),
    "coco absolute path": coco(
        instances(images=[{"id": 3, "file_name": "/etc/passwd"}]), r", images\[0\]: '/etc/passwd' leads out of"
    ),
    "coco path upwards": coco(
        instances(images=[{"id": 3, "file_name": "../a.png"}]), r", images\[0\]: '../a.png' leads out of"
    ),
    "coco missing picture": coco(
        instances(images=[*IMAGES, {"id": 4, "file_name": "c.png"}]), r", images\[2\]: image 'c.png' is missing"
    ),
    "coco picture twice": coco(
        instances(images=[*IMAGES, {"id": 4, "file_name": "./a.png"}]), r", images\[2\]: .*a.png' is listed twice"
    ),
    "jsonl plain": jsonl(b('"labels": ["cat"]')),
    "jsonl CRLF and blank lines": jsonl("\r\n\r\n" + b('"labels": ["cat"]') + "\r\n"),
    "jsonl spaces": jsonl(b('  "labels" : [ " cat " ]   ')),
    "jsonl escaped": jsonl(b('"labels": ["\\u0063at"]')),
    "jsonl no labels": jsonl(b('"labels": []'), shown=""),
    "jsonl text for a list": jsonl(b('"labels": "cat|dog"'), shown="cat|dog"),
    "jsonl cut short": jsonl(b('"labels": ["cat"]')[:-4], ", line 2, column .*: not valid JSON"),
    "jsonl two objects in a line": jsonl(b('"labels": []') * 2, ", line 2, column .*: not valid JSON"),
    "jsonl list": jsonl('["sub/b.png"]', ", line 2: .* is no JSON object"),
    "jsonl null": jsonl("null", ", line 2: 'null' is no JSON object"),
    "jsonl field twice": jsonl(b('"labels": [], "labels": ["cat"]'), ", line 2: field 'labels' is there twice"),
    "jsonl NaN": jsonl(b('"labels": [], "age": NaN'), ", line 2: NaN is no value in JSON"),
    "jsonl infinity": jsonl(b('"labels": [], "age": -Infinity'), ", line 2: -Infinity is no value in JSON"),
    "jsonl enormous number": jsonl(b(f'"labels": [], "age": {"9" * 5000}'), ", line 2: JSON that cannot be read"),
    "jsonl deep nesting": jsonl(b('"labels": ' + "[" * 200_000), ", line 2: JSON that cannot be read"),
    "jsonl numbers for labels": jsonl(b('"labels": [0, 1]'), r", line 2: labels is \[0, 1\]"),
    "jsonl object for labels": jsonl(b('"labels": {"cat": 1}'), r", line 2: labels is \{"),
    "jsonl null for labels": jsonl(b('"labels": null'), ", line 2: labels is null"),
    "jsonl labels missing": jsonl(b('"label_": []'), ", line 2: labels is missing"),
    "jsonl number for a name": jsonl('{"file_name": 7, "labels": []}', ", line 2: file_name is 7"),
    "jsonl name missing": jsonl('{"labels": []}', ", line 2: file_name is None"),
    "jsonl half a letter": jsonl('{"file_name": "\\ud83d.png", "labels": []}', ", line 2: image '.*' is missing"),
    "jsonl half a letter in a label": jsonl(
        b('"labels": ["\\ud83d"]'), r", line 2: class .* invisible character, U\+D83D"
    ),
    "jsonl zero byte": jsonl('{"file_name": "a\\u0000.png", "labels": []}', ", line 2: .* is no name of an image"),
    "jsonl path upwards": jsonl('{"file_name": "sub/../../b.png", "labels": []}', ", line 2: .* leads out of"),
    "jsonl latin-1": jsonl(b('"labels": ["p\xe2t\xe9"]').encode("latin-1"), ", line 2: byte .* is not UTF-8"),
}
