from __future__ import annotations

from pathlib import Path

import pytest
from own_data import both, load_folder, names, write, write_images, write_jsonl

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
