from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmark_folders import (
    MULTI_SCENE_CODE,
    MULTI_SCENE_TEST,
    MULTI_SCENE_TRAIN,
    write_multi_scene,
)

from fedmpt.data.datasets.multi_scene import CLASS_NAMES, load_multi_scene
from fedmpt.types import ImageData, InputError

# What of the authors' names is not the same word by word in prompts.
SLIPS = {"LakePond": "lakeorpond", "OilFiled": "oilfield", "SolarPannel": "solarpanel", "WindTrubine": "windturbine"}


def assert_is_the_small_copy(data: ImageData, root: Path) -> None:
    for split, images in ((data.train, MULTI_SCENE_TRAIN), (data.test, MULTI_SCENE_TEST)):
        assert split.files == tuple(root / "images" / f"{name}.jpg" for name in images)
        assert split.labels.tolist() == [[int(name in shown) for name in MULTI_SCENE_CODE] for shown in images.values()]
        assert split.labels.dtype == torch.int8


def test_class_names_are_words_in_the_order_of_the_authors() -> None:
    written = [SLIPS.get(name, name.lower()) for name in MULTI_SCENE_CODE]
    assert [name.replace(" ", "") for name in CLASS_NAMES] == written


@pytest.mark.parametrize(
    "names",
    [MULTI_SCENE_CODE, CLASS_NAMES, [name.upper().replace(" ", "_") for name in CLASS_NAMES], MULTI_SCENE_CODE[::-1]],
)
def test_labels_of_the_small_copy_by_any_spelling(tmp_path: Path, names: list[str]) -> None:
    root = write_multi_scene(tmp_path / "MultiScene-Clean", header=names)
    data = load_multi_scene(root)
    assert_is_the_small_copy(data, root)
    assert (data.class_names, data.notes) == (CLASS_NAMES, ())


def test_a_header_without_class_names_is_said_aloud(tmp_path: Path) -> None:
    root = write_multi_scene(tmp_path / "MultiScene-Clean", header=[str(number) for number in range(36)])
    data = load_multi_scene(root)
    assert_is_the_small_copy(data, root)
    assert data.notes == tuple(
        f"{name}: the header names no class; columns are taken in the order of the authors' code"
        for name in ("Tra.csv", "Test.csv")
    )


def test_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    root = write_multi_scene(tmp_path / "MultiScene-Clean")
    for path in root.glob("*.csv"):
        path.write_text(path.read_text().replace(",1", ",1.0").replace(",0", ", 0.0"))
    assert_is_the_small_copy(load_multi_scene(root), root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Beach", "Beech", r"Test\.csv, line 1: class is 'Beech'; did you mean 'beach'\?"),
        ("Beach", "beach,Beach ", r"Test\.csv, line 1, column 6: class 'beach' is listed twice, .* column 5"),
        ("Apron,", "", r"Test\.csv, line 1: 1 classes have no column, first 'apron'"),
        ("Apron", "Beach", r"Test\.csv, line 1: column 'Beach' is there twice"),
        ("Apron", "", r"Test\.csv, line 1: the header must name each class"),
        ("20002,0", "20002", r"Test\.csv, line 3: 36 cells, the header has 37"),
        ("20002,0", "20002,2", r"Test\.csv, line 3: 'Apron' is '2'; expected 1 \(present\) or 0 \(absent\)"),
        ("20002", "20001", r"Test\.csv, line 3: image '20001' is listed twice, first in .*line 2"),
        ("20002", "10001", r"1 images are both in train and in test, first '10001\.jpg'"),
        ("20002", "../20002", r"Test\.csv: '\.\./20002\.jpg' leads out of .*images"),
        ("20002", "20003", r"Test\.csv: image '20003\.jpg' is missing in .*images.*; 1 of 2 are missing"),
    ],
)
def test_wrong_cells_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = write_multi_scene(tmp_path / "MultiScene-Clean")
    table = (root / "Test.csv").read_text()
    if new == "beach,Beach ":  # A column more, in the lines below too.
        table = table.replace("20001,", "20001,0,").replace("20002,", "20002,0,")
    if old == "Apron,":  # A column less.
        table = table.replace("20001,0", "20001").replace("20002,0", "20002")
    (root / "Test.csv").write_text(table.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_multi_scene(root)
