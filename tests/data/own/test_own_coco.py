from __future__ import annotations

from pathlib import Path

import pytest
from own_data import both, load_folder, names, write, write_coco, write_images

from fedmpt.types import InputError


def test_categories_are_classes_sorted_by_name(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "images/b.jpg", "c.jpg")
    write_coco(
        tmp_path,
        {"a.jpg": ["dog", "cat", "dog"], "images/b.jpg": [], "c.jpg": ["dog"]},
        categories=["dog", "zebra", "cat"],
    )
    data = load_folder(tmp_path)
    assert data.class_names == ("cat", "dog", "zebra")
    assert both(data, tmp_path) == {
        "a.jpg": {"cat": 1, "dog": 1, "zebra": 0},
        "images/b.jpg": {"cat": 0, "dog": 0, "zebra": 0},
        "c.jpg": {"cat": 0, "dog": 1, "zebra": 0},
    }


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.json", "val.json"),
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("my_train_v2.json", "my_test_v2.json"),
    ],
)
@pytest.mark.parametrize("folders", [("train", "val"), ("images/train", "images/val")])
def test_pairs_are_a_given_split(tmp_path: Path, train: str, test: str, folders: tuple[str, str]) -> None:
    inner = {"2017": "2017"}.get(train[-9:-5], "")
    word = "valid" if "valid/" in test else "test" if "test" in test else "val"
    images = [f"{folders[0]}{inner}/x.jpg", f"{folders[1].replace('val', word)}{inner}/x.jpg"]
    if "coco" in train:
        images = ["train/x.jpg", "valid/images/x.jpg"]
    write_images(tmp_path, *images)
    write_coco(tmp_path, {"x.jpg": ["cat"]}, categories=["cat", "dog"], name=train)
    write_coco(tmp_path, {"x.jpg": ["dog"]}, categories=["dog", "cat"], name=test)
    if train.startswith("annotations"):
        write(tmp_path, "annotations/captions_train2017.json", '{"images": [], "annotations": []}')
    data = load_folder(tmp_path)
    assert (names(data.train, tmp_path), names(data.test, tmp_path)) == (images[:1], images[1:])
    assert both(data, tmp_path) == {images[0]: {"cat": 1, "dog": 0}, images[1]: {"cat": 0, "dog": 1}}


def test_a_category_of_one_file_only_is_unknown_in_the_other(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_coco(tmp_path, {"a.jpg": ["cat"]}, categories=["cat", "dog"], name="train.json")
    write_coco(tmp_path, {"b.jpg": ["cat"]}, categories=["cat"], name="test.json")
    data = load_folder(tmp_path)
    assert both(data, tmp_path)["b.jpg"] == {"cat": 1, "dog": -1}
    assert any("test.json says nothing of dog" in note for note in data.notes)


def test_two_formats_have_to_be_chosen_from(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path, "labels.csv", "path,labels\na.jpg,cat\nb.jpg,cat\n")
    write(tmp_path, "settings.json", "{}")
    assert load_folder(tmp_path).class_names == ("cat",)
    write_coco(tmp_path, {"a.jpg": ["dog"], "b.jpg": ["dog"]}, categories=["dog"])
    with pytest.raises(
        InputError, match=r"several formats: csv \(labels\.csv\), coco \(annotations\.json\); choose one"
    ):
        load_folder(tmp_path)
    assert load_folder(tmp_path, format="csv").class_names == ("cat",)
    assert load_folder(tmp_path, format="coco").class_names == ("dog",)


def test_given_classes_leave_out_what_annotates_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    write_coco(tmp_path, {"a.jpg": ["dog"], "b.jpg": ["cat"]}, categories=["everything", "dog", "cat"])
    data = load_folder(tmp_path, classes=write(tmp_path, "names.txt", "dog\ncat\n"))
    assert both(data, tmp_path) == {"a.jpg": {"dog": 1, "cat": 0}, "b.jpg": {"dog": 0, "cat": 1}}
    assert any("categories without annotations, left out: everything" in note for note in data.notes)
    with pytest.raises(InputError, match=r"annotations\.json, categories: class 'cat' is not in .*few\.txt"):
        load_folder(tmp_path, classes=write(tmp_path, "few.txt", "dog\n"))
