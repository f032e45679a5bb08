from __future__ import annotations

from pathlib import Path

import pytest
from own_data import both, names, write, write_images, write_jsonl

from fedmpt.data.own import load_folder
from fedmpt.types import InputError

LABELS = {"a.jpg": {"cat": 1, "dog": 1}, "b.jpg": {"cat": 0, "dog": 0}}

ROWS = {
    "lists": [{"file_name": "a.jpg", "labels": ["dog", "cat"]}, {"file_name": "b.jpg", "labels": []}],
    "text": [{"file_name": "a.jpg", "labels": "dog|cat"}, {"file_name": "b.jpg", "labels": ""}],
    "a field a class": [{"file_name": "a.jpg", "cat": 1, "dog": 1}, {"file_name": "b.jpg", "cat": 0, "dog": 0}],
    "true and false": [{"file_name": "a.jpg", "cat": True, "dog": 1.0}, {"file_name": "b.jpg", "dog": 0, "cat": False}],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path, "a.jpg", "b.jpg")
    return tmp_path


@pytest.mark.parametrize("kind", ROWS)
def test_all_ways_to_write_the_same_labels(root: Path, kind: str) -> None:
    write_jsonl(root, *ROWS[kind])
    data = load_folder(root)
    assert both(data, root) == LABELS
    assert data.class_names == ("cat", "dog")


def test_a_field_that_is_null_or_not_there_is_unknown(root: Path) -> None:
    write_jsonl(root, {"file_name": "a.jpg", "cat": 1, "dog": None}, {"file_name": "b.jpg", "dog": 0})
    assert both(load_folder(root), root) == {"a.jpg": {"cat": 1, "dog": -1}, "b.jpg": {"cat": -1, "dog": 0}}


def test_folders_of_splits(tmp_path: Path) -> None:
    for split, label in (("train", "cat"), ("validation", "dog"), ("test", "cow")):
        write_images(tmp_path, f"{split}/x.png")
        write_jsonl(tmp_path / split, {"file_name": "x.png", "labels": [label]})
    data = load_folder(tmp_path)
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (["train/x.png"], ["test/x.png"])
    assert data.class_names == ("cat", "cow", "dog")
    assert any("1 validation images are left out" in note for note in data.notes)


def test_a_train_folder_alone_has_no_test(tmp_path: Path) -> None:
    write_images(tmp_path, "train/x.png", "test/y.png")
    write_jsonl(tmp_path / "train", {"file_name": "x.png", "labels": ["cat"]})
    with pytest.raises(InputError, match="the split that is given has no test images"):
        load_folder(tmp_path)


def test_other_fields_become_columns_and_nested_ones_are_named(root: Path) -> None:
    write_jsonl(
        root,
        {"file_name": "a.jpg", "labels": ["cat"], "camera": 7, "split": "train", "objects": {"bbox": []}},
        {"file_name": "b.jpg", "labels": ["cat"], "camera": None, "split": "test"},
    )
    data = load_folder(root)
    assert (data.train.columns, data.test.columns) == ({"camera": ("7",)}, {"camera": ("",)})
    assert any("lists or objects are left out: objects" in note for note in data.notes)


def test_line_separators_within_text_and_empty_lines(root: Path) -> None:
    lines = (
        '\ufeff{"file_name": "a.jpg", "labels": ["cat"], "by": "x\u2028y"}\r\n\r\n{"file_name": "b.jpg", "labels": []}'
    )
    write(root, "metadata.jsonl", lines)
    data = load_folder(root)
    assert both(data, root) == {"a.jpg": {"cat": 1}, "b.jpg": {"cat": 0}}
    assert {*data.train.columns["by"], *data.test.columns["by"]} == {"x\u2028y", ""}


def row(rest: str, *, name: str = '"file_name": "b.jpg"') -> str:
    return f"{{{name}, {rest}}}"


WRONG = {
    "no JSON": ("{'file_name': 'b.jpg'}", r"metadata\.jsonl, line 2, column 2: not valid JSON"),
    "cut short": ('{"file_name": "b.j', r"metadata\.jsonl, line 2, column 15: not valid JSON"),
    "no object": ('["b.jpg", "cat"]', r"line 2: '\[\"b\.jpg\", \"cat\"\]' is no JSON object"),
    "field twice": (row('"labels": ["x"], "labels": ["y"]'), r"line 2: field 'labels' is there twice"),
    "no name": (row('"labels": []', name='"id": 1'), r"line 2: file_name is None; expected the path of an image"),
    "name that is a number": (row('"labels": []', name='"file_name": 7'), r"line 2: file_name is 7; expected the path"),
    "labels missing": (row('"x": 1'), r"line 2: labels is missing; expected a list of names, and \[\]"),
    "labels null": (row('"labels": null'), r"line 2: labels is null; expected a list"),
    "labels are numbers": (row('"labels": [0, 3]'), r"line 2: labels is \[0, 3\]; expected a list of names"),
    "an empty label": (row('"labels": [""]'), r"line 2: '' is no name of a class"),
    "NaN": (row('"labels": NaN'), r"line 2: NaN is no value in JSON"),
    "enormous number": (row(f'"labels": [], "x": {"9" * 5000}'), r"line 2: JSON that cannot be read"),
    "deep nesting": (row(f'"labels": [], "x": {"[" * 100_000}'), r"line 2: JSON that cannot be read"),
    "missing image": (row('"labels": []', name='"file_name": "c.jpg"'), r"line 2: image 'c\.jpg' is missing"),
    "no text": ('{"file_name": "b\\ud800.jpg", "labels": []}', r"line 2: image 'b\\ud800\.jpg' is missing"),
    "no text in a column": (row('"labels": [], "ward": "\\ud800"'), r"line 2: ward is '\\ud800', .*half of a"),
    "listed twice": ('{"file_name": "./a.jpg", "labels": []}', r"line 2: .*a\.jpg' is listed twice, first .* line 1"),
    "enormous path": (row('"labels": []', name=f'"file_name": "{"d/" * 999}c.jpg"'), r"line 2: image 'd/.* is missing"),
    "enormous name": (row('"labels": []', name=f'"file_name": "{"d" * 999}/c.jpg"'), r"line 2: image 'd.* is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_lines_are_named(root: Path, kind: str) -> None:
    line, message = WRONG[kind]
    write(root, "metadata.jsonl", '{"file_name": "a.jpg", "labels": ["cat"]}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        load_folder(root)


def test_an_empty_file(root: Path) -> None:
    write(root, "metadata.jsonl", "\n")
    with pytest.raises(InputError, match=r"metadata\.jsonl lists no images"):
        load_folder(root)
