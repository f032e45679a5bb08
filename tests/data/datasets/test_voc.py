from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from voc_folder import TEST, TRAINVAL, VOC_NAMES, remove_class_files, value, write_annotation, write_lines, write_voc

from fedmpt.data.datasets.voc import CLASS_NAMES, load_voc
from fedmpt.types import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_voc(tmp_path)


def expected_labels(images: dict[str, list[tuple[str, int]]], *, only_difficult: int) -> list[list[int]]:
    ours = {1: 1, -1: 0, 0: only_difficult}
    return [[ours[value(objects, name)] for name in VOC_NAMES] for objects in images.values()]


def test_class_names_are_words_in_the_order_of_the_files() -> None:
    assert [name.replace(" ", "") for name in CLASS_NAMES] == VOC_NAMES
    assert [name for name in CLASS_NAMES if " " in name] == ["dining table", "potted plant", "tv monitor"]


@pytest.mark.parametrize("difficult", ["unknown", "absent"])
@pytest.mark.parametrize("source", ["class files", "annotations"])
def test_labels_of_both_sources(root: Path, difficult: str, source: str) -> None:
    if source == "annotations":
        remove_class_files(root, "trainval")
        remove_class_files(root, "test")
    else:
        for file in (root / "Annotations").iterdir():
            file.unlink()
    data = load_voc(root, difficult=difficult)
    only_difficult = {"unknown": -1, "absent": 0}[difficult]
    assert data.train.labels.tolist() == expected_labels(TRAINVAL, only_difficult=only_difficult)
    assert data.test.labels.tolist() == expected_labels(TEST, only_difficult=only_difficult)
    assert data.train.labels.dtype == torch.int8


def test_files_follow_the_list_in_the_devkit_or_the_inner_folder(root: Path) -> None:
    for data in (load_voc(root), load_voc(root.parent)):
        assert data.train.files == tuple(root / "JPEGImages" / f"{image}.jpg" for image in TRAINVAL)
        assert (data.train.name, data.test.name, len(data.test)) == ("train", "test", 2)


def test_labels_belong_to_their_ids_whatever_the_order_of_a_class_file(root: Path) -> None:
    before = load_voc(root).train.labels
    path = root / "ImageSets" / "Main" / "dog_trainval.txt"
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert torch.equal(load_voc(root).train.labels, before)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("dog_trainval.txt", ["000005 1", "000007 2"], r"dog_trainval\.txt, line 2: '000007 2'; expected an id and 1"),
        ("dog_trainval.txt", ["000005 1", "000007"], r"dog_trainval\.txt, line 2: '000007'; expected an id and 1"),
        ("dog_trainval.txt", ["000005 1", "000007 1"], r"are not those of the split's own list: 000009"),
        ("dog_trainval.txt", ["000005 1", "000001 1"], r"not those of the split's own list: 000001, 000007, 000009"),
        ("dog_trainval.txt", ["000005 1", "000005 1"], r"line 2: image id '000005' is listed twice"),
        ("trainval.txt", ["000005", "", "000007"], r"trainval\.txt, line 2: empty; expected one image id a line"),
        ("trainval.txt", ["000005", "000005"], r"line 2: image id '000005' is listed twice, first in .* line 1"),
        ("trainval.txt", ["000007", "000001"], r"1 images are both in train and in test, first '000001\.jpg'"),
        ("test.txt", ["", " "], r"test\.txt is empty; expected one image id a line"),
    ],
)
def test_wrong_lines_are_named(root: Path, name: str, lines: list[str], message: str) -> None:
    write_lines(root, name, lines)
    if name == "trainval.txt":
        remove_class_files(root, "trainval")
    with pytest.raises(InputError, match=message):
        load_voc(root)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([("train", 0), ("persn", 0)], r"000002\.xml, object 2: unknown class 'persn'; did you mean 'person'\?"),
        ([("xyzzy", 0)], r"unknown class 'xyzzy'"),
        ([("train", 7)], r"object 1: difficult is '7'; expected 0 or 1"),
    ],
)
def test_wrong_annotations_are_named(root: Path, objects: list[tuple[str, int]], message: str) -> None:
    remove_class_files(root, "test")
    write_annotation(root, "000002", objects)
    with pytest.raises(InputError, match=message):
        load_voc(root)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("ImageSets/Main/test.txt", r"test\.txt is missing; expected one image id a line"),
        ("ImageSets/Main/cow_test.txt", r"1 of 20 class files of test are missing, first cow_test\.txt"),
        ("JPEGImages/00000[79].jpg", r"trainval\.txt: image '000007\.jpg' is missing in .*; 2 of 3 are missing"),
        ("ImageSets/Main/*_test.txt Annotations/000001.xml", r"000001\.xml is missing; expected an annotation"),
        ("ImageSets/Main/*_test.txt Annotations/*", r"000001\.xml is missing; expected an annotation"),
    ],
)
def test_what_is_missing_is_named(root: Path, missing: str, message: str) -> None:
    for file in [file for pattern in missing.split() for file in root.glob(pattern)]:
        file.unlink()
    with pytest.raises(InputError, match=message):
        load_voc(root)


@pytest.mark.parametrize("inner", ["nowhere", "VOCdevkit/VOC2007/JPEGImages", "."])
def test_wrong_folder_tells_the_layout(root: Path, inner: str) -> None:
    with pytest.raises(InputError, match=r"(has no folder|is no folder; .*) VOC2007/ImageSets/Main"):
        load_voc(root.parents[1] / inner)


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_real_labels_are_those_of_the_class_files(shared: Path, split: str) -> None:
    folder = shared / "data" / "VOCdevkit"
    data = load_voc(folder)
    part = data.train if split == "trainval" else data.test
    for column, name in enumerate(VOC_NAMES):
        lines = (folder / "VOC2007" / "ImageSets" / "Main" / f"{name}_{split}.txt").read_text().split("\n")
        counts = Counter(line.split()[1] for line in lines if line)
        column_labels = part.labels[:, column]
        ours = [int((column_labels == label).sum()) for label in (1, 0, -1)]
        assert ours == [counts["1"], counts["-1"], counts["0"]]
