from __future__ import annotations

from pathlib import Path

import pytest
from own_data import (
    both,
    load_clients,
    names,
    write,
    write_coco,
    write_csv,
    write_images,
    write_jsonl,
    write_voc_annotation,
)

from fedmpt.types import InputError


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Four sites, each in a format of its own, each with a training and a test image."""
    root = tmp_path / "sites"
    write_images(root, *(f"{site}/{image}" for site in ("table", "coco", "jsonl") for image in ("x.jpg", "y.jpg")))
    write_images(root, "voc/JPEGImages/x.jpg", "voc/JPEGImages/y.jpg")
    write_csv(root / "table", "path,cat,dog,camera,split", "x.jpg,1,,left,train", "y.jpg,0,1,right,test")
    write_coco(root / "coco", {"x.jpg": ["cow"]}, categories=["cow", "dog"], name="train.json")
    write_coco(root / "coco", {"y.jpg": []}, categories=["cow", "dog"], name="val.json")
    write_jsonl(
        root / "jsonl",
        {"file_name": "x.jpg", "labels": ["dog"], "split": "train"},
        {"file_name": "y.jpg", "labels": [], "split": "test"},
    )
    write_voc_annotation(root / "voc", "x", ("cat", 0))
    write_voc_annotation(root / "voc", "y", ("cow", 1))
    write(root, "voc/ImageSets/Main/train.txt", "x\n")
    write(root, "voc/ImageSets/Main/test.txt", "y\n")
    return root


def test_sites_of_all_formats_share_a_class_list(sites: Path) -> None:
    data = load_clients(sites)
    assert data.class_names == ("cat", "cow", "dog")
    assert data.client_column == "client"
    assert data.train.columns["client"] == data.test.columns["client"] == ("coco", "jsonl", "table", "voc")
    assert data.train.columns["camera"] == ("", "", "left", "")
    assert names(data.train, sites) == ["coco/x.jpg", "jsonl/x.jpg", "table/x.jpg", "voc/JPEGImages/x.jpg"]


def test_what_a_site_says_nothing_of_is_unknown_there(sites: Path) -> None:
    labels = {image: list(row.values()) for image, row in both(load_clients(sites), sites).items()}
    assert labels == {
        "coco/x.jpg": [-1, 1, 0],
        "coco/y.jpg": [-1, 0, 0],
        "jsonl/x.jpg": [-1, -1, 1],
        "jsonl/y.jpg": [-1, -1, 0],
        "table/x.jpg": [1, -1, -1],
        "table/y.jpg": [0, -1, 1],
        "voc/JPEGImages/x.jpg": [1, 0, -1],
        "voc/JPEGImages/y.jpg": [0, -1, -1],
    }
    notes = load_clients(sites).notes
    remedy = "; unlisted=absent makes them negatives"
    assert f"client jsonl: its labels say nothing of cat, cow: unknown in its images{remedy}" in notes
    assert "client table: its labels say nothing of cow: unknown in its images" in notes


def test_absent_is_what_a_list_of_labels_leaves_out_but_not_a_column(sites: Path) -> None:
    data = load_clients(sites, unlisted="absent")
    labels = {image: list(row.values()) for image, row in both(data, sites).items()}
    assert labels["jsonl/x.jpg"] == [0, 0, 1]
    assert labels["voc/JPEGImages/x.jpg"] == [1, 0, 0]
    assert labels["table/x.jpg"] == [1, -1, -1]
    assert labels["coco/y.jpg"] == [-1, 0, 0]
    assert (
        "client jsonl: its labels say nothing of cat, cow: absent in its images, as unlisted=absent says" in data.notes
    )


def test_a_given_class_list_is_shared_in_its_order(sites: Path) -> None:
    data = load_clients(sites, classes=write(sites.parent, "names.txt", "zebra\ndog\ncow\ncat\n"))
    assert data.class_names == ("zebra", "dog", "cow", "cat")
    assert both(data, sites)["jsonl/x.jpg"] == {"zebra": -1, "dog": 1, "cow": -1, "cat": -1}
    with pytest.raises(InputError, match=r"coco.*train\.json, categories: class 'cow' is not in .*few\.txt"):
        load_clients(sites, classes=write(sites.parent, "few.txt", "dog\ncat\n"))


def test_hidden_folders_and_files_are_left_out(sites: Path) -> None:
    (sites / ".cache").mkdir()
    write(sites, "readme.md", "x")
    assert f"{sites}: no folders of clients, left out: readme.md" in load_clients(sites).notes


def test_a_site_of_one_image_trains_with_it(sites: Path) -> None:
    write_images(sites, "small/x.jpg")
    write_csv(sites / "small", "path,labels", "x.jpg,dog")
    data = load_clients(sites)
    assert "small" in data.train.columns["client"]
    assert "small" not in data.test.columns["client"]
    assert any(note.startswith("client small: ") and "its only image is for training" in note for note in data.notes)


def test_a_site_may_have_no_test_images_but_needs_training_images(sites: Path) -> None:
    write_csv(sites / "table", "path,cat,dog,split", "x.jpg,1,,train", "y.jpg,0,1,train")
    data = load_clients(sites)
    assert data.train.columns["client"].count("table") == 2
    assert any(note.startswith("client table: ") and "no test images" in note for note in data.notes)
    write_csv(sites / "table", "path,cat,dog,split", "x.jpg,1,,test", "y.jpg,0,1,test")
    with pytest.raises(InputError, match=r"table: the split that is given has no train images"):
        load_clients(sites)
    write_csv(sites / "alone" / "a", "path,labels", "1.jpg,cat")
    write_images(sites, "alone/a/1.jpg")
    with pytest.raises(InputError, match="no site has test images"):
        load_clients(sites / "alone")


def test_a_column_called_client_gives_way(sites: Path) -> None:
    write_csv(sites / "table", "path,labels,client", "x.jpg,cat,me", "y.jpg,cat,me")
    data = load_clients(sites)
    assert "table" in data.train.columns["client"]
    assert "me" not in data.train.columns["client"]
    assert any(note.startswith("client table: its column client gives way") for note in data.notes)
