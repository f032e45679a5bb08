from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from own_data import both, names, write, write_csv, write_images

from fedmpt.data.own import load_folder
from fedmpt.data.own.holdout import place_of
from fedmpt.types import InputError

MANY = [f"{number:03d}.jpg" for number in range(200)]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Two hundred names of images; none is opened here, so empty files do."""
    for name in MANY:
        write(tmp_path, name, b"")
    write_table(tmp_path, MANY)
    return tmp_path


def write_table(root: Path, order: list[str]) -> None:
    write_csv(root, "path,labels", *(f"{name},{'cat' if int(name[:3]) % 2 else 'dog'}" for name in order))


def test_the_share_is_about_what_was_asked_for(many: Path) -> None:
    held_out: set[Path] = set()
    for share in (0.1, 0.2, 0.5, 0.9):
        data = load_folder(many, test_share=share)
        assert abs(len(data.test) / 200 - share) < 0.09
        assert len(data.train) + len(data.test) == 200
        assert held_out < set(data.test.files), "a larger share holds out the same and more"
        held_out = set(data.test.files)
    assert set(load_folder(many, test_share=0.9, seed=1).test.files) != held_out


def test_the_order_of_the_table_does_not_matter(many: Path) -> None:
    before = load_folder(many)
    write_table(many, MANY[::-1])
    after = load_folder(many)
    assert set(after.test.files) == set(before.test.files)
    assert both(after, many) == both(before, many)


def test_more_images_move_none(many: Path) -> None:
    before = load_folder(many)
    for name in ("900.jpg", "901.jpg", "902.jpg"):
        write(many, name, b"")
    write_table(many, ["900.jpg", *MANY[:100], "901.jpg", *MANY[100:], "902.jpg"])
    after = load_folder(many)
    assert set(before.train.files) <= set(after.train.files)
    assert set(before.test.files) <= set(after.test.files)


def test_another_place_of_the_folder_changes_nothing(many: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    os.symlink(many, elsewhere)
    assert names(load_folder(elsewhere).test, elsewhere) == names(load_folder(many).test, many)


def test_which_images_are_held_out_stays_as_it_is() -> None:
    """Between versions, too: the scores of a data set that has no split would not be comparable otherwise."""
    assert [round(place_of(key, 0), 6) for key in ("a.jpg", "b/c.jpg", "\u00e4.jpg")] == [0.069174, 0.776587, 0.055322]


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_both_parts_have_an_image(tmp_path: Path, share: float) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_csv(tmp_path, "path,labels", "a.jpg,cat", "b.jpg,dog")
    data = load_folder(tmp_path, test_share=share)
    assert (len(data.train), len(data.test)) == (1, 1)
    assert any("1 of 2 images are held out as test images" in note for note in data.notes)


def test_one_image_is_too_few(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg")
    write_csv(tmp_path, "path,labels", "a.jpg,cat")
    with pytest.raises(InputError, match="has one image only"):
        load_folder(tmp_path)


@pytest.mark.parametrize("word", ["val", "Valid", "validation"])
def test_validation_images_are_the_test_where_there_is_no_other(tmp_path: Path, word: str) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_csv(tmp_path, "path,labels,split", "a.jpg,cat,Train", f"b.jpg,dog,{word}")
    data = load_folder(tmp_path)
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (["a.jpg"], ["b.jpg"])
    assert any("the 1 validation images are the test" in note for note in data.notes)


def test_validation_images_are_left_out_beside_test_images(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write_csv(tmp_path, "path,labels,split", "a.jpg,cat,train", "b.jpg,dog,val", "c.jpg,dog,test")
    data = load_folder(tmp_path)
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (["a.jpg"], ["c.jpg"])
    assert any("1 validation images are left out" in note for note in data.notes)


def test_classes_without_positives_are_said(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_csv(tmp_path, "path,cat,dog,split", "a.jpg,1,0,train", "b.jpg,0,1,test")
    notes = load_folder(tmp_path).notes
    assert "no train image shows: dog" in notes
    assert "no test image shows: cat" in notes


def test_copies_in_train_and_test_are_said(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "c.jpg")
    write(tmp_path, "b.jpg", (tmp_path / "a.jpg").read_bytes())
    write_csv(tmp_path, "path,labels,split", "a.jpg,cat,train", "b.jpg,cat,test", "c.jpg,cat,test")
    [note] = [note for note in load_folder(tmp_path).notes if "byte for byte" in note]
    assert note.startswith("1 test pictures are training pictures")
    assert str(tmp_path / "b.jpg") in note
    assert str(tmp_path / "a.jpg") in note


@pytest.mark.parametrize("inner", ["", "images/"])
def test_folders_that_images_are_in_are_a_given_split(tmp_path: Path, inner: str) -> None:
    write_images(tmp_path, f"{inner}Train/a.jpg", f"{inner}test/a.jpg", f"{inner}test/b.jpg")
    write_csv(tmp_path, "path,labels", f"{inner}test/a.jpg,cat", f"{inner}Train/a.jpg,cat", f"{inner}test/b.jpg,dog")
    data = load_folder(tmp_path)
    assert names(data.train, tmp_path) == [f"{inner}Train/a.jpg"]
    assert names(data.test, tmp_path) == [f"{inner}test/a.jpg", f"{inner}test/b.jpg"]
    assert any("the split is that of the folders" in note for note in data.notes)


def test_images_in_other_folders_too_leave_the_split_open(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a.jpg", "test/a.jpg", "b.jpg")
    write_csv(tmp_path, "path,labels", "test/a.jpg,cat", "train/a.jpg,cat", "b.jpg,dog")
    assert any("no split is given" in note for note in load_folder(tmp_path).notes)


def test_a_relative_path_is_the_same_folder(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = load_folder(many)
    monkeypatch.chdir(many)
    for path in (Path("."), Path("../") / many.name):
        assert names(load_folder(path).test, path) == names(absolute.test, many)


def test_a_given_split_beside_folders_of_splits(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        write_images(tmp_path, f"{folder}/a.jpg")
        write_csv(tmp_path / folder, "path,labels,split", "a.jpg,cat,train")
    with pytest.raises(InputError, match=r"is a list of test images and has a column split; remove one"):
        load_folder(tmp_path)


def test_all_images_can_be_for_the_test(many: Path, tmp_path: Path) -> None:
    data = load_folder(many, test_share=1.0)
    assert (len(data.train), len(data.test)) == (0, 200)
    assert data.train.labels.shape == (0, 2)
    assert any("all 200 images are for the test" in note for note in data.notes)
    assert not any("no train image shows" in note for note in data.notes)
    write_csv(many, "path,labels,split", *(f"{name},cat,test" for name in MANY))
    given = load_folder(many)
    assert (len(given.train), len(given.test)) == (0, 200)
    assert any("no train images" in note for note in given.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"test_share": share}, "test_share is .*; it must be in ") for share in (0.0, 1.1, -0.1, float("nan"))),
        ({"separator": ""}, "separator is empty"),
    ],
)
def test_options_out_of_range(many: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_folder(many, **options)
