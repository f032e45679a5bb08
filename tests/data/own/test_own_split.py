from __future__ import annotations

import os
from pathlib import Path

import pytest
from own_data import both, load_folder, names, write, write_csv, write_images

from fedmpt.data.own.folder import place_of

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


def test_more_images_and_another_order_move_none(many: Path) -> None:
    before = load_folder(many)
    for name in ("900.jpg", "901.jpg", "902.jpg"):
        write(many, name, b"")
    write_table(many, ["900.jpg", *MANY[:100], "901.jpg", *MANY[:99:-1], "902.jpg"])
    after = load_folder(many)
    assert both(before, many).items() <= both(after, many).items()
    assert set(before.train.files) <= set(after.train.files)
    assert set(before.test.files) <= set(after.test.files)


def test_which_images_are_held_out_stays_as_it_is() -> None:
    """Between versions, too: the scores of a data set that has no split would not be comparable otherwise."""
    assert [round(place_of(key, 0), 6) for key in ("a.jpg", "b/c.jpg", "\u00e4.jpg")] == [0.069174, 0.776587, 0.055322]


# The table, images of train, images of test, and what the notes say.
SPLITS = {
    "validation is the test": (
        "path,labels,split;a.jpg,cat,Train;b.jpg,cat,Valid", "a.jpg", "b.jpg", "the 1 validation images are the test",
    ),
    "validation beside a test": (
        "path,labels,split;a.jpg,cat,train;b.jpg,cat,val;c.jpg,cat,test", "a.jpg", "c.jpg",
        "1 validation images are left out",
    ),
    "classes without positives": (
        "path,cat,dog,split;a.jpg,1,0,train;b.jpg,0,1,test", "a.jpg", "b.jpg", "no train image shows: dog",
    ),
    "folders": (
        "path,labels;test/a.jpg,cat;Train/a.jpg,cat;test/b.jpg,cat", "Train/a.jpg", "test/a.jpg test/b.jpg",
        "the split is that of the folders",
    ),
    "folders within images": (
        "path,labels;images/test/a.jpg,cat;images/train/a.jpg,cat", "images/train/a.jpg", "images/test/a.jpg",
        "the split is that of the folders",
    ),
    "folders, and other images": (
        "path,labels;test/a.jpg,cat;train/a.jpg,cat;b.jpg,cat", "test/a.jpg b.jpg", "train/a.jpg", "no split is given",
    ),
    "two images": ("path,labels;a.jpg,cat;b.jpg,cat", "a.jpg", "b.jpg", "1 of 2 images are held out as test images"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPLITS)
def test_splits(tmp_path: Path, kind: str) -> None:
    table, train, test, said = SPLITS[kind]
    header, *lines = table.split(";")
    write_images(tmp_path, *(line.split(",")[0] for line in lines))
    write_csv(tmp_path, header, *lines)
    data = load_folder(tmp_path, test_share=1e-9)
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (train.split(), test.split())
    assert any(said in note for note in data.notes)


def test_copies_in_train_and_test_are_said(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "c.jpg")
    write(tmp_path, "b.jpg", (tmp_path / "a.jpg").read_bytes())
    write_csv(tmp_path, "path,labels,split", "a.jpg,cat,train", "b.jpg,cat,test", "c.jpg,cat,test")
    [note] = [note for note in load_folder(tmp_path).notes if "byte for byte" in note]
    assert note.startswith("1 test pictures are training pictures")
    assert str(tmp_path / "b.jpg") in note
    assert str(tmp_path / "a.jpg") in note


def test_another_path_is_the_same_folder(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = load_folder(many)
    monkeypatch.chdir(many)
    os.symlink(many, many / "itself")
    for path in (Path("."), Path("../") / many.name, Path("itself")):
        assert names(load_folder(path).test, path) == names(absolute.test, many)


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
