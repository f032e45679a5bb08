from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_data import both, load_folder, names, write, write_images, write_voc_annotation

from fedmpt.data.datasets.voc import VOC_NAMES, load_voc
from fedmpt.types import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.png", "JPEGImages/c.jpg")
    write_voc_annotation(tmp_path, "a", ("dog", 0), ("dog", 1), ("cat", 1))
    write_voc_annotation(tmp_path, "b")
    write_voc_annotation(tmp_path, "c", ("cat", 0), ("hot dog", 1), ("hot dog", 1))
    return tmp_path


def test_classes_come_from_the_objects_and_difficult_ones_are_unknown(root: Path) -> None:
    data = load_folder(root)
    assert data.class_names == ("cat", "dog", "hot dog")
    assert both(data, root) == {
        "JPEGImages/a.jpg": {"cat": -1, "dog": 1, "hot dog": 0},
        "JPEGImages/b.png": {"cat": 0, "dog": 0, "hot dog": 0},
        "JPEGImages/c.jpg": {"cat": 1, "dog": 0, "hot dog": -1},
    }


def lists(root: Path, **ids: str) -> None:
    for name, content in ids.items():
        write(root, f"ImageSets/Main/{name}.txt", "".join(f"{word}\n" for word in content.split()))


@pytest.mark.parametrize(
    ("given", "train", "test", "said"),
    [
        ({"train": "a c", "test": "b"}, "a.jpg c.jpg", "b.png", ""),
        ({"train": "c", "val": "a b"}, "c.jpg", "a.jpg b.png", "2 validation images are the test"),
        ({"train": "c", "val": "a", "test": "b"}, "c.jpg", "b.png", "1 validation images are left out"),
        ({"train": "c", "val": "a", "trainval": "a c", "test": "b"}, "a.jpg c.jpg", "b.png", ""),
        ({"train": "c", "test": "b"}, "c.jpg", "b.png", "in no list of ImageSets/Main, left out: a"),
    ],
)
def test_lists_are_a_given_split(root: Path, given: dict[str, str], train: str, test: str, said: str) -> None:
    lists(root, **given)
    data = load_folder(root)
    assert names(data.train, root / "JPEGImages") == train.split()
    assert names(data.test, root / "JPEGImages") == test.split()
    assert said in "\n".join(data.notes)


@pytest.mark.parametrize("inner", ["images/", ""])
def test_images_elsewhere(tmp_path: Path, inner: str) -> None:
    write_images(tmp_path, f"{inner}a.jpg", f"{inner}b.jpg")
    for stem in "ab":
        write_voc_annotation(tmp_path, stem, ("cat", 0))
    assert set(both(load_folder(tmp_path), tmp_path)) == {f"{inner}a.jpg", f"{inner}b.jpg"}


def test_annotations_beside_images_in_folders_of_splits(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a.jpg", "test/a.jpg")
    write_voc_annotation(tmp_path, "a", ("cat", 0), folder="train")
    write_voc_annotation(tmp_path, "a", ("dog", 0), folder="test")
    data = load_folder(tmp_path)
    assert both(data, tmp_path) == {"train/a.jpg": {"cat": 1, "dog": 0}, "test/a.jpg": {"cat": 0, "dog": 1}}
    assert names(data.train, tmp_path) == ["train/a.jpg"]


def test_what_is_left_out_is_said(root: Path) -> None:
    write_images(root, "JPEGImages/extra.jpg", "JPEGImages/.hidden.jpg")
    write(root, "JPEGImages/readme.txt", "no picture")
    write(root, "Annotations/._a.xml", b"\0\5\x16\7")
    lists(root, trainval="a b c")
    data = load_folder(root)
    assert len(data.train) + len(data.test) == 3
    for note in (
        f"{root}: pictures that no list names are left out: JPEGImages/extra.jpg",
        f"{root}/Annotations: left out: ._a.xml",
        f"{root}/ImageSets/Main: trainval alone gives no split; not used",
    ):
        assert note in data.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nx", r"test\.txt, line 2: image id 'x' has no annotation x\.xml"),
        ("a\na", r"test\.txt, line 2: image id 'a' is listed twice"),
        ("c", r"test\.txt, line 1: image id 'c' is listed twice \(earlier in train\)"),
    ],
)
def test_wrong_lists_are_named(root: Path, content: str, message: str) -> None:
    lists(root, train="c", test=content)
    with pytest.raises(InputError, match=message):
        load_folder(root)


def test_the_real_set_is_read_as_its_own_reader_reads_it(shared: Path) -> None:
    root = shared / "data" / "VOCdevkit" / "VOC2007"
    ours, theirs = load_folder(root, format="voc"), load_voc(root)
    assert ours.class_names == VOC_NAMES
    assert ours.notes == ()
    for split, expected in ((ours.train, theirs.train), (ours.test, theirs.test)):
        order = [split.files.index(file) for file in expected.files]
        assert len(order) == len(split)
        assert torch.equal(split.labels[order], expected.labels)


def test_an_annotation_that_is_a_folder_is_refused(root: Path) -> None:
    (root / "Annotations/d.xml").mkdir()
    with pytest.raises(InputError, match=r"d\.xml cannot be read: Is a directory; expected an annotation"):
        load_folder(root)
