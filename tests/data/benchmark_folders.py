"""Small copies of the benchmarks' official folders, drawn and written by code, for tests of their readers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

Present = Mapping[str, Sequence[str]]
"""The classes of each image."""


def picture() -> bytes:
    """A JPEG file."""
    content = BytesIO()
    Image.new("RGB", (20, 16), (40, 90, 200)).save(content, format="JPEG")
    return content.getvalue()


def write_images(folder: Path, names: Iterable[str]) -> None:
    content = picture()
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# COCO: category ids have gaps and the file lists them in another order than that of their ids.
COCO_CATEGORIES = [(90, "toothbrush"), (1, "person"), (18, "dog"), (3, "car")]
COCO_CLASSES = ("person", "car", "dog", "toothbrush")
COCO_TRAIN: Present = {
    "COCO_train2014_000000000009.jpg": ["dog", "dog", "person"],
    "COCO_train2014_000000000025.jpg": [],
    "COCO_train2014_000000000030.jpg": ["toothbrush", "person", "car"],
}
COCO_VAL: Present = {
    "COCO_val2014_000000000042.jpg": ["car", "person"],
    "COCO_val2014_000000000073.jpg": ["dog"],
}
COCO_SPLITS = {"train2014": COCO_TRAIN, "val2014": COCO_VAL}


def instances(images: Present) -> dict[str, Any]:
    """The object of an instances file. Of each image's annotations the last is a crowd, with its outline as RLE."""
    ids = {name: category for category, name in COCO_CATEGORIES}
    image_ids = {name: int(Path(name).stem.split("_")[-1]) for name in images}
    annotations: list[dict[str, Any]] = []
    for name, shown in images.items():
        for number, class_name in enumerate(shown):
            is_crowd = number > 0 and number == len(shown) - 1
            outline = {"counts": [0, 320], "size": [16, 20]} if is_crowd else [[1.5, 2.0, 9.0, 2.0, 9.0, 7.25]]
            annotations.append(
                {
                    "segmentation": outline,
                    "area": 18.75,
                    "iscrowd": int(is_crowd),
                    "image_id": image_ids[name],
                    "bbox": [1.5, 2.0, 7.5, 5.25],
                    "category_id": ids[class_name],
                    "id": 1000 + len(annotations),
                }
            )
    return {
        "info": {"description": "COCO 2014 Dataset", "year": 2014},
        "images": [
            {"license": 5, "file_name": name, "height": 16, "width": 20, "id": image_ids[name]} for name in images
        ],
        "licenses": [{"id": 5, "name": "Attribution License"}],
        "annotations": annotations[::-1],
        "categories": [{"supercategory": "thing", "id": number, "name": name} for number, name in COCO_CATEGORIES],
    }


def write_coco(root: Path) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split, images in COCO_SPLITS.items():
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(instances(images)))
        write_images(root / split, images)
    return root


NUS_CLASSES = ("airport", "animal", "beach")
NUS_TRAIN: Present = {
    "actor\\0001_2124494179.jpg": ["airport", "beach"],
    "actor\\0002_174174086.jpg": [],
    "zoo\\0001_1.jpg": ["animal"],
    "zoo\\0002_2.jpg": ["animal", "beach", "airport"],
}
NUS_TEST: Present = {"actor\\0003_3.jpg": ["beach"], "zoo\\0003_4.jpg": ["animal", "beach"]}
NUS_SPLITS = {"Train": NUS_TRAIN, "Test": NUS_TEST}


def write_nus_wide(root: Path, *, end: str = "\n") -> Path:
    for folder in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels"):
        (root / folder).mkdir(parents=True)
    _write_lines(root / "ConceptsList" / "Concepts81.txt", NUS_CLASSES, end=end)
    for split, images in NUS_SPLITS.items():
        _write_lines(root / "ImageList" / f"{split}Imagelist.txt", images, end=end)
        for name in NUS_CLASSES:
            path = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{split}.txt"
            _write_lines(path, [str(int(name in shown)) for shown in images.values()], end=end)
        write_images(root / "Flickr", [name.replace("\\", "/") for name in images])
    return root


def _write_lines(path: Path, lines: Iterable[str], *, end: str) -> None:
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode())


MULTI_SCENE_CODE = [
    "Apron", "BaseballField", "BasketballField", "Beach", "Bridge", "Cemetery", "Commercial", "Farmland", "Woodland",
    "GolfCourse", "Greenhouse", "Helipad", "LakePond", "OilFiled", "Orchard", "ParkingLot", "Park", "Pier", "Port",
    "Quarry", "Railway", "Residential", "River", "Roundabout", "Runway", "Soccer", "SolarPannel", "SparseShrub",
    "Stadium", "StorageTank", "TennisCourt", "TrainStation", "WastewaterPlant", "WindTrubine", "Works", "Sea",
]  # fmt: skip
"""The classes as the authors' code writes them, in its order."""
MULTI_SCENE_TRAIN: Present = {"10001": ["Apron", "Runway"], "10002": ["Sea", "Beach", "LakePond"], "10003": []}
MULTI_SCENE_TEST: Present = {"20001": ["WindTrubine", "Farmland"], "20002": ["Sea"]}


def write_multi_scene(root: Path, *, header: Sequence[str] = MULTI_SCENE_CODE) -> Path:
    """Columns stand in the order of ``header``; one that names no class has the column of its place."""
    root.mkdir()
    for name, images in (("Tra.csv", MULTI_SCENE_TRAIN), ("Test.csv", MULTI_SCENE_TEST)):
        order = [column if column in MULTI_SCENE_CODE else MULTI_SCENE_CODE[at] for at, column in enumerate(header)]
        write_table(root / name, header, {image: [name in shown for name in order] for image, shown in images.items()})
        write_images(root / "images", [f"{image}.jpg" for image in images])
    return root


MLRSNET_COLUMNS = ["airplane", "bare soil", "habor", "trees"]
MLRSNET_SCENES = {"airplane": 10, "harbor&port": 7, "swimmimg_pool": 1}
"""How many images each scene has."""


def mlrsnet_rows(scene: str) -> dict[str, list[bool]]:
    """Labels that differ from image to image: the bits of its number."""
    numbers = range(1, MLRSNET_SCENES[scene] + 1)
    return {f"{scene}_{number:05d}.jpg": [bool(number >> bit & 1) for bit in range(4)] for number in numbers}


def write_mlrsnet(root: Path) -> Path:
    (root / "Labels").mkdir(parents=True)
    for scene in MLRSNET_SCENES:
        rows = mlrsnet_rows(scene)
        write_table(root / "Labels" / f"{scene}.csv", MLRSNET_COLUMNS, rows)
        write_images(root / "Images" / scene, rows)
    return root


def write_table(path: Path, header: Sequence[str], rows: Mapping[str, Sequence[bool]]) -> None:
    lines = [["image", *header], *([name, *(str(int(value)) for value in values)] for name, values in rows.items())]
    path.write_text("".join(f"{','.join(line)}\n" for line in lines))
