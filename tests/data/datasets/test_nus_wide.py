from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmark_folders import NUS_CLASSES, NUS_TEST, NUS_TRAIN, write_nus_wide

from fedmpt.data.datasets.nus_wide import load_nus_wide
from fedmpt.types import ImageData, InputError

CONCEPTS = "ConceptsList/Concepts81.txt"
TEST_LIST = "ImageList/TestImagelist.txt"
AIRPORT = "Groundtruth/TrainTestLabels/Labels_airport_Train.txt"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_nus_wide(tmp_path / "NUS-WIDE")


def assert_is_the_small_copy(data: ImageData, images: Path) -> None:
    assert data.class_names == NUS_CLASSES
    for split, shown in ((data.train, NUS_TRAIN), (data.test, NUS_TEST)):
        assert split.files == tuple(images / name.replace("\\", "/") for name in shown)
        assert split.labels.tolist() == [[int(name in row) for name in NUS_CLASSES] for row in shown.values()]
        assert split.labels.dtype == torch.int8


def test_labels_of_the_small_copy(root: Path) -> None:
    data = load_nus_wide(root)
    assert_is_the_small_copy(data, root / "Flickr")
    assert (data.train.name, data.test.name, data.notes) == ("train", "test", ())


@pytest.mark.parametrize(("between", "end"), [("\r\n", "\r\n"), (" \n", ""), ("\n", "\n\n"), ("\n\t", " \r\n \r\n")])
def test_ends_of_lines_and_of_files_change_nothing(tmp_path: Path, between: str, end: str) -> None:
    root = write_nus_wide(tmp_path / "NUS-WIDE", end=between)
    for path in (*root.glob("*List/*.txt"), *root.glob("Groundtruth/*/*.txt")):
        path.write_bytes(path.read_bytes().rstrip() + end.encode())
    assert_is_the_small_copy(load_nus_wide(root), root / "Flickr")


def test_other_places_of_the_parts(root: Path) -> None:
    (root / "Flickr").rename(root / "images")
    (root / "Groundtruth" / "TrainTestLabels").rename(root / "TrainTestLabels")
    for path in root.glob("*List/*.txt"):
        path.rename(root / path.name)
    assert_is_the_small_copy(load_nus_wide(root), root / "images")


def rewrite(path: str, *lines: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text("\n".join(lines)) and None


def remove(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).rename(root / "elsewhere") and None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rewrite(AIRPORT, "1", "0", "2", "1"), r"Labels_airport_Train\.txt, line 3: '2', expected 1 \(present\) or 0"),
        (rewrite(AIRPORT, "1", "0", "1"), r"Labels_airport_Train\.txt: 3 lines, but .*TrainImagelist\.txt has 4"),
        (rewrite(AIRPORT), r"Labels_airport_Train\.txt is empty; expected 1 or 0 for each line of .*TrainImagelist"),
        (remove(AIRPORT), r"Labels_airport_Train\.txt is missing; expected 1 or 0 for each line of .*TrainImagelist"),
        (rewrite(CONCEPTS), r"Concepts81\.txt is empty; expected one class a line"),
        (rewrite(CONCEPTS, "a", "b", "a"), r"Concepts81\.txt, line 3: class 'a' is listed twice, first in .*line 1"),
        (rewrite(CONCEPTS, "airports"), r"Labels_airports_Train\.txt is missing"),
        (rewrite(TEST_LIST, "a.jpg", "", "b.jpg"), r"TestImagelist\.txt, line 2: empty"),
        (rewrite(TEST_LIST, "a.jpg", "a.jpg"), r"TestImagelist\.txt, line 2: image 'a\.jpg' is listed twice"),
        (rewrite(TEST_LIST, "zoo\\0003_4.jpg", "zoo\\0001_1.jpg"), r"1 images are both in train and in test, first"),
        (rewrite(TEST_LIST, "a.jpg", "..\\a.jpg"), r"TestImagelist\.txt: '\.\.\\\\a\.jpg' leads out of"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(root: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(root)
    with pytest.raises(InputError, match=message):
        load_nus_wide(root)


def test_few_labels_leave_both_splits(root: Path) -> None:
    (root / "Flickr" / "actor" / "0002_174174086.jpg").unlink()  # Only images that are kept need to be there.
    data = load_nus_wide(root, min_labels=2)
    assert [file.name for file in data.train.files] == ["0001_2124494179.jpg", "0002_2.jpg"]
    assert data.train.labels.tolist() == [[1, 0, 1], [1, 1, 1]]
    assert [file.name for file in data.test.files] == ["0003_4.jpg"]
    assert data.notes == (
        "train: 2 of 4 images have fewer than 2 labels; left out",
        "test: 1 of 2 images have fewer than 2 labels; left out",
    )


def test_missing_images_are_an_error_or_left_out_with_a_note(root: Path) -> None:
    (root / "Flickr" / "actor" / "0002_174174086.jpg").unlink()
    (root / "Flickr" / "zoo" / "0001_1.jpg").unlink()
    message = r"TrainImagelist\.txt: image 'actor.*' is missing in .*Flickr.*; 2 of 4 are missing.* with missing=skip"
    with pytest.raises(InputError, match=message):
        load_nus_wide(root)
    data = load_nus_wide(root, missing="skip")
    assert [file.name for file in data.train.files] == ["0001_2124494179.jpg", "0002_2.jpg"]
    assert data.train.labels.tolist() == [[1, 0, 1], [1, 1, 1]]
    assert data.notes == (r"train: 2 of 4 images are missing, first 'actor\\0002_174174086.jpg'; left out",)
    assert len(data.test) == 2
