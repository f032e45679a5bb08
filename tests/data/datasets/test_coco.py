from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_folders import COCO_CATEGORIES, COCO_CLASSES, COCO_TRAIN, COCO_VAL, instances, write_coco
from pycocotools.coco import COCO

from fedmpt.data.datasets.coco import load_coco, read_instances
from fedmpt.types import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def random_instances(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    names = [f"COCO_train2014_{number:012d}.jpg" for number in draw.sample(range(1_000_000), 40)]
    classes = [name for _, name in COCO_CATEGORIES]
    return instances({name: draw.choices(classes, k=draw.randrange(5)) for name in names})


def labels_of_pycocotools(path: Path) -> dict[str, list[int]]:
    """By file name, a row by category id."""
    coco = COCO(path)
    categories = sorted(coco.getCatIds())
    return {
        image["file_name"]: [int(bool(coco.getAnnIds(imgIds=[image["id"]], catIds=[number]))) for number in categories]
        for image in coco.loadImgs(coco.getImgIds())
    }


def labels_by_hand(parsed: dict[str, Any]) -> dict[str, list[int]]:
    pairs = {(entry["image_id"], entry["category_id"]) for entry in parsed["annotations"]}
    categories = sorted(entry["id"] for entry in parsed["categories"])
    return {
        image["file_name"]: [int((image["id"], number) in pairs) for number in categories] for image in parsed["images"]
    }


def test_labels_of_the_small_copy(root: Path) -> None:
    shown: dict[int, set[tuple[int, int]]] = {0: set(), 1: set()}
    for one in instances(COCO_TRAIN)["annotations"]:
        shown[one["iscrowd"]].add((one["image_id"], one["category_id"]))
    assert shown[1] - shown[0] == {(9, 1), (30, 3)}, "classes that only a crowd shows are present, too"
    data = load_coco(root)
    assert data.class_names == COCO_CLASSES
    for split, folder, images in ((data.train, "train2014", COCO_TRAIN), (data.test, "val2014", COCO_VAL)):
        assert split.files == tuple(root / folder / name for name in images)
        assert split.labels.tolist() == [[int(name in shown) for name in COCO_CLASSES] for shown in images.values()]
        assert split.labels.dtype == torch.int8
    assert (data.train.name, data.test.name, data.notes) == ("train", "test", ())


@pytest.mark.parametrize("seed", range(3))
def test_random_files_agree_with_pycocotools(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(random_instances(seed)))
    found = read_instances(path)
    assert dict(zip(found.file_names, found.labels.tolist(), strict=True)) == labels_of_pycocotools(path)
    assert found.class_names == COCO_CLASSES


@pytest.mark.parametrize("seed", range(3))
def test_order_and_layout_of_the_file_change_nothing(tmp_path: Path, seed: int) -> None:
    parsed = random_instances(seed)
    before = labels_by_hand(parsed)
    keys = list(parsed)
    random.Random(seed).shuffle(keys)
    random.Random(seed).shuffle(parsed["categories"])
    random.Random(seed).shuffle(parsed["annotations"])
    path = tmp_path / "instances.json"
    text = json.dumps({key: parsed[key] for key in keys}, indent="\t", ensure_ascii=bool(seed))
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found = read_instances(path)
    assert dict(zip(found.file_names, found.labels.tolist(), strict=True)) == before


def change(key: str, number: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parsed: parsed[key][number].update(fields)


def drop(key: str, number: int, field: str) -> Callable[[dict[str, Any]], None]:
    return lambda parsed: parsed[key][number].pop(field)


def put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda parsed: parsed.update(values)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("annotations", 1, category_id=99), r"annotations\[1\]: category_id 99 is not in categories; add it"),
        (lambda parsed: [entry.update(image_id=2) for entry in parsed["annotations"][1:4]], "images, nor are 2 others"),
        (change("images", 1, file_name="../val2014/COCO_val2014_000000000042.jpg"), r"leads out of .*train2014"),
        (change("annotations", 0, category_id=True), r"annotations\[0\]: category_id is true, expected a whole number"),
        (change("annotations", 0, category_id="1"), r"annotations\[0\]: category_id is \"1\", expected a whole number"),
        (drop("annotations", 3, "image_id"), r"annotations\[3\]: image_id is missing"),
        (change("images", 2, id=9), r"images\[2\]: id 9 is listed twice, first in .*images\[0\]; remove one"),
        (change("images", 1, file_name="COCO_train2014_000000000009.jpg"), r"images\[1\]: file_name .*twice"),
        (change("images", 1, file_name=" "), r"' ' is no name of an image"),
        (change("categories", 3, id=1), r"categories\[3\]: id 1 is listed twice, first in .*categories\[1\]"),
        (change("categories", 3, name=" dog "), r"categories\[3\]: name 'dog' is listed twice, first"),
        (change("categories", 0, name=""), r"categories\[0\]: name is empty; expected a name"),
        (change("categories", 0, name=None), r"categories\[0\]: name is null, expected text"),
        (put(images=[]), r"images is empty"),
        (put(images={}), r"images is no list"),
        (put(annotations=[[1]]), r"annotations\[0\]: \[1\] is no object with image_id and category_id"),
        (lambda parsed: parsed.pop("annotations"), r"annotations is missing; expected COCO instances: one JSON object"),
    ],
)  # fmt: skip
def test_wrong_entries_are_named(root: Path, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    parsed = instances(COCO_TRAIN)
    spoil(parsed)
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(parsed))
    with pytest.raises(InputError, match=r"instances_train2014\.json: .*" + message):
        load_coco(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r", line 1, column 1: not valid JSON .*; expected COCO instances"),
        (b"[]", r" is no JSON object"),
        (b'{"images": [', r", line 1, column 13: not valid JSON"),
        (b'{"images": [{"id": 1,\n "file_name": "a.jpg"}]', r", line 2, column 24: not valid JSON"),
        (b'{"info": "\xe9"}', r", line 1: byte b'\\xe9' is not UTF-8"),
        ('{"images": []}'.encode("utf-16"), r" is UTF-16 text; save it as UTF-8"),
    ],
)
def test_what_is_no_such_json_is_refused(root: Path, content: bytes, message: str) -> None:
    (root / "annotations" / "instances_val2014.json").write_bytes(content)
    with pytest.raises(InputError, match=r"instances_val2014\.json" + message):
        load_coco(root)


def test_few_labels_leave_both_splits(root: Path) -> None:
    with pytest.raises(InputError, match=r"val2014\.json: no image has 3 labels, the most is 2; choose a smaller"):
        load_coco(root, min_labels=3)
    with pytest.raises(InputError, match="min_labels is -1; it must not be negative"):
        load_coco(root, min_labels=-1)
    data = load_coco(root, min_labels=2)
    assert [file.name[-6:] for file in data.train.files] == ["09.jpg", "30.jpg"]
    assert [file.name[-6:] for file in data.test.files] == ["42.jpg"]
    assert data.train.labels.tolist() == [[1, 0, 1, 0], [1, 1, 0, 1]]
    assert data.notes == (
        "train: 1 of 3 images have fewer than 2 labels; left out",
        "test: 1 of 2 images have fewer than 2 labels; left out",
    )


def test_two_releases_are_not_mixed(root: Path) -> None:
    parsed = instances(COCO_VAL)
    parsed["categories"][0]["name"] = "tooth brush"
    (root / "annotations" / "instances_val2014.json").write_text(json.dumps(parsed))
    with pytest.raises(
        InputError, match=r"val2014\.json: the categories differ .*: tooth brush, toothbrush; both must"
    ):
        load_coco(root)
