from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmark_folders import MLRSNET_COLUMNS, MLRSNET_SCENES, mlrsnet_rows, write_images, write_mlrsnet, write_table

from fedmpt.data.datasets.mlrsnet import load_mlrsnet
from fedmpt.types import ImageData, InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_mlrsnet(tmp_path / "MLRSNet")


def names(data: ImageData, split: str) -> list[str]:
    return [file.name for file in getattr(data, split).files]


def test_every_image_is_in_one_split_with_its_own_labels(root: Path) -> None:
    data = load_mlrsnet(root)
    assert data.class_names == ("airplane", "bare soil", "harbor", "trees")
    expected = {
        root / "Images" / scene / name: [int(value) for value in row]
        for scene in MLRSNET_SCENES
        for name, row in mlrsnet_rows(scene).items()
    }
    files = [*data.train.files, *data.test.files]
    assert len(files) == len(expected)
    for split in (data.train, data.test):
        assert split.columns == {"scene": tuple(file.parent.name for file in split.files)}
    assert dict(zip(files, [*data.train.labels.tolist(), *data.test.labels.tolist()], strict=True)) == expected
    assert data.train.labels.dtype == torch.int8


@pytest.mark.parametrize(("share", "airplane", "harbor"), [(0.2, 2, 1), (0.5, 5, 4), (0.001, 1, 1), (0.999, 9, 6)])
def test_a_share_of_each_scene_is_test(root: Path, share: float, airplane: int, harbor: int) -> None:
    scenes = load_mlrsnet(root, test_share=share).test.columns["scene"]
    assert {scene: scenes.count(scene) for scene in MLRSNET_SCENES} == {
        "airplane": airplane,
        "harbor&port": harbor,
        "swimmimg_pool": 0,
    }


def test_the_split_is_that_of_every_machine(root: Path) -> None:
    # Another process hashes strings its own way; the order is that of sha256sum on the printed words.
    held_out = [name for name in names(load_mlrsnet(root), "test") if name.startswith("airplane")]
    lines = [f"0/airplane/airplane_{number:05d}.jpg" for number in range(1, 11)]
    code = (
        "import hashlib, sys; print(*sorted(sys.argv[1:], key=lambda word: hashlib.sha256(word.encode()).hexdigest()))"
    )
    output = subprocess.run([sys.executable, "-c", code, *lines], check=True, capture_output=True, text=True).stdout
    assert sorted(held_out) == sorted(Path(word).name for word in output.split()[:2])


def test_columns_go_by_their_names_and_lines_may_have_any_order(root: Path) -> None:
    before = load_mlrsnet(root)
    scene = "harbor&port"
    rows = {name: row[::-1] for name, row in reversed(mlrsnet_rows(scene).items())}
    write_table(root / "Labels" / f"{scene}.csv", MLRSNET_COLUMNS[::-1], rows)
    after = load_mlrsnet(root)
    assert after.train.files != before.train.files
    for one, other in ((before.train, after.train), (before.test, after.test)):
        labels, others = (dict(zip(split.files, split.labels.tolist(), strict=True)) for split in (one, other))
        assert labels == others


def test_folders_without_a_table_are_said_aloud(root: Path) -> None:
    write_images(root / "Images" / "wetland", ["wetland_00001.jpg"])
    assert load_mlrsnet(root).notes == ("1 folders of images have no table and are left out: wetland",)


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_a_wrong_share_is_refused(root: Path, share: float) -> None:
    with pytest.raises(InputError, match=r"test_share is .*; it must lie between 0 and 1"):
        load_mlrsnet(root, test_share=share)


def test_tables_of_two_releases_are_not_mixed(root: Path) -> None:
    path = root / "Labels" / "harbor&port.csv"
    path.write_text(path.read_text().replace("habor", "harbor"))
    with pytest.raises(
        InputError, match=r"harbor&port\.csv, line 1: other classes than in airplane\.csv: habor, harbor"
    ):
        load_mlrsnet(root)
