from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_data import both, load_folder, write, write_csv, write_images

from fedmpt.types import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path, "a.jpg", "b.jpg", "sub/c.png")
    return tmp_path


LABELS = {
    "a.jpg": {"cat": 1, "dining table": 1, "dog": 0},
    "b.jpg": {"cat": 0, "dining table": 0, "dog": 0},
    "sub/c.png": {"cat": 0, "dining table": 0, "dog": 1},
}

TABLES = {
    "bars": "path,labels\na.jpg,cat|dining table\nb.jpg,\nsub/c.png,dog\n",
    "semicolons": "path,labels\na.jpg,cat;dining table\nb.jpg,\nsub/c.png,dog\n",
    "space around and within": "path,labels\n a.jpg , cat |  dining   table \nb.jpg, \nsub/c.png,dog|\n",
    "quotes": '"path","labels"\n"a.jpg","cat|dining table"\n"b.jpg",""\n"sub/c.png","dog"\n',
    "byte order mark and CRLF": "\ufeffpath,labels\r\na.jpg,cat|dining table\r\nb.jpg,\r\nsub/c.png,dog\r\n",
    "old line ends": "path,labels\ra.jpg,cat|dining table\rb.jpg,\rsub/c.png,dog\r",
    "spreadsheet with semicolons": "path;labels\r\na.jpg;cat|dining table\r\nb.jpg;\r\nsub/c.png;dog\r\n",
    "spreadsheet that says so": "sep=;\r\npath;labels\r\na.jpg;cat|dining table\r\nb.jpg;\r\nsub/c.png;dog\r\n",
    "semicolons in both": 'path;labels\na.jpg;"cat;dining table"\nb.jpg;\nsub/c.png;dog\n',
    "tabs": "path\tlabels\na.jpg\tcat|dining table\nb.jpg\t\nsub/c.png\tdog\n",
    "other names and order": "Labels,File_Name\ncat|dining table,a.jpg\n,b.jpg\ndog,sub/c.png\n",
    "numbered rows": ",path,labels\n0,a.jpg,cat|dining table\n1,b.jpg,\n2,sub/c.png,dog\n",
    "empty lines and columns": "path,labels,,\n\na.jpg,cat|dining table,,\nb.jpg,,,\n,,,\nsub/c.png,dog,,\n\n",
    "mixed line ends": "path,labels\r\na.jpg,cat|dining table\nb.jpg,\rsub/c.png,dog",
    "line separator within a label": "path,labels\na.jpg,cat\u2028|dining table\nb.jpg,\nsub/c.png,dog\n",
    "a long cell": f"path,labels,note\na.jpg,cat|dining table,{'x' * 200_000}\nb.jpg,,\nsub/c.png,dog,\n",
    "label twice": "path,labels\na.jpg,cat|cat|dining table\nb.jpg,\nsub/c.png,dog\n",
    "other spellings of paths": "path,labels\n./a.jpg,cat|dining table\nb.jpg,\nsub\\c.png,dog\n",
    "a column a class": "path,dog,cat,dining table\na.jpg,0,1,1\nb.jpg,0,0,0\nsub/c.png,1,0,0\n",
    "numbers with points": "path,dog,cat,dining table\na.jpg,0.0,1.0,1\nb.jpg,0,0,0\nsub/c.png,1.0,0.0,0\n",
    "true and false": "path,dog,cat,dining table\na.jpg,False,True,TRUE\nb.jpg,0,0,0\nsub/c.png,true,false,0\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_all_ways_to_write_the_same_labels(root: Path, kind: str) -> None:
    write(root, "labels.csv", TABLES[kind])
    data = load_folder(root)
    assert both(data, root) == LABELS
    assert data.class_names == ("cat", "dining table", "dog")
    assert data.train.labels.dtype == torch.int8


def test_empty_and_minus_one_are_unknown(root: Path) -> None:
    write_csv(root, "path,cat,dog", "a.jpg,1,", "b.jpg,-1,0", "sub/c.png,,1.0")
    assert [list(row.values()) for _, row in sorted(both(load_folder(root), root).items())] == [
        [1, -1],
        [-1, 0],
        [-1, 1],
    ]


@pytest.mark.parametrize(
    ("separator", "cell"), [("comma", '"cat,dog"'), ("space", "cat dog"), ("/", "cat/dog"), ("semicolon", "cat;dog")]
)
def test_a_separator_that_is_given(root: Path, separator: str, cell: str) -> None:
    write_csv(root, "path,labels", f"a.jpg,{cell}", "b.jpg,dog")
    assert both(load_folder(root, separator=separator), root)["a.jpg"] == {"cat": 1, "dog": 1}


def test_classes_from_a_file_keep_their_order(root: Path) -> None:
    write_csv(root, "path,labels", "a.jpg,cat", "b.jpg,dog")
    classes = write(root, "names.txt", "dog\r\nzebra\r\ncat\r\n")
    data = load_folder(root, classes=classes)
    assert data.class_names == ("dog", "zebra", "cat")
    assert list(both(data, root)["a.jpg"].values()) == [0, 0, 1]
    assert any("image shows: " in note and "zebra" in note for note in data.notes)


def test_classes_choose_among_the_columns(root: Path) -> None:
    write_csv(root, "path,cat,indoor,dog", "a.jpg,1,1,0", "b.jpg,0,0,1")
    data = load_folder(root, classes=write(root, "names.txt", "cat\ndog\n"))
    assert data.class_names == ("cat", "dog")
    assert {*data.train.columns["indoor"], *data.test.columns["indoor"]} == {"0", "1"}
    assert any("no classes: indoor" in note for note in data.notes)


def test_other_columns_stay_with_their_images(root: Path) -> None:
    write_csv(
        root, "hospital,path,labels,split", "North,a.jpg,cat,train", "South,b.jpg,dog,test", "South,sub/c.png,cat,train"
    )
    data = load_folder(root)
    assert data.train.columns == {"hospital": ("North", "South")}
    assert data.test.columns == {"hospital": ("South",)}
    assert data.client_column is None


def test_what_was_taken_for_a_class_is_said(root: Path) -> None:
    write_csv(root, "path,cat,camera", "a.jpg,1,left", "b.jpg,0,right")
    data = load_folder(root)
    assert data.class_names == ("cat",)
    assert any("1, 0, -1 and empty cells: cat; no classes: camera" in note for note in data.notes)


def test_a_column_that_is_all_empty_is_no_class(root: Path) -> None:
    write_csv(root, "path,cat,remark", "a.jpg,1,", "b.jpg,0,")
    data = load_folder(root)
    assert data.class_names == ("cat",)
    assert data.train.columns == {}


def test_a_class_without_a_column_in_one_table_is_unknown_there(root: Path) -> None:
    write_csv(root, "path,cat,dog", "a.jpg,1,0", name="train.csv")
    write_csv(root, "path,cat", "b.jpg,0", name="test.csv")
    data = load_folder(root)
    assert both(data, root)["b.jpg"] == {"cat": 0, "dog": -1}
    assert any("test.csv says nothing of dog" in note for note in data.notes)


def test_images_in_a_folder_of_their_own(tmp_path: Path) -> None:
    write_images(tmp_path, "images/a.jpg", "images/b.jpg")
    write_csv(tmp_path, "path,labels", "a.jpg,cat", "b.jpg,dog")
    assert set(both(load_folder(tmp_path), tmp_path)) == {"images/a.jpg", "images/b.jpg"}


def test_a_label_that_is_none_of_the_classes(root: Path) -> None:
    write_csv(root, "path,labels", "a.jpg,cat", "b.jpg,cat|dgo")
    with pytest.raises(InputError, match=r"line 3: class 'dgo' is not in .*names\.txt; did you mean 'dog'\?"):
        load_folder(root, classes=write(root, "names.txt", "cat\ndog\n"))


def test_a_class_without_a_column(root: Path) -> None:
    write_csv(root, "path,cat,dog", "a.jpg,1,0", "b.jpg,0,1")
    with pytest.raises(InputError, match=r"names\.txt: class 'dgo' is in no column .*did you mean 'dog'\?"):
        load_folder(root, classes=write(root, "names.txt", "cat\ndgo\n"))


def test_columns_of_bits_beside_a_column_of_labels_are_said(root: Path) -> None:
    write_csv(root, "path,labels,dog", "a.jpg,cat,1", "b.jpg,cat,0", "sub/c.png,cat,1")
    data = load_folder(root)
    assert data.class_names == ("cat",)
    assert any("labels are those of the column labels" in note and note.endswith(": dog") for note in data.notes)
