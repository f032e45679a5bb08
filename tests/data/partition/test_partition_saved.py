from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmpt.data.partition import Partition, load_partition, partition_split, save_partition
from fedmpt.types import ImageData, InputError, Split

SITES = ("Nürnberg", "A", "B", "A", "B", "A", "Nürnberg", "B")


def image_data(folder: Path, *, name: str = "own", seed: int = 0, num_images: int = 8) -> ImageData:
    labels = torch.randint(-1, 2, (num_images, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    files = tuple(folder / ("left" if row % 2 else "right") / f"{row // 2}.jpg" for row in range(num_images))
    train = Split("train", files, labels, {"site": SITES[:num_images]})
    return ImageData(name, ("a", "b", "c"), train=train, test=train)


@pytest.fixture
def data(tmp_path: Path) -> ImageData:
    return image_data(tmp_path)


@pytest.fixture
def saved(tmp_path: Path, data: ImageData) -> Path:
    path = tmp_path / "partition.json"
    save_partition(path, partition_split(data.train, setting="natural", column="site"), data)
    return path


def assert_equal(one: Partition, other: Partition) -> None:
    words = [
        (parted.setting, dict(parted.options), parted.seed, parted.names, [rows.tolist() for rows in parted.rows])
        for parted in (one, other)
    ]
    assert words[0] == words[1]


@pytest.mark.parametrize(
    "options",
    [
        {"setting": "natural", "column": "site"},
        {"setting": "iid", "num_clients": 3, "seed": 7},
        {"setting": "dirichlet", "num_clients": 3, "alpha": 0.3, "min_images": 2},
        {"setting": "heterogeneous", "t": 0.7},
    ],
)
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, data: ImageData, options: dict[str, Any]) -> None:
    parted = partition_split(data.train, **options)
    save_partition(tmp_path / "p.json", parted, data)
    assert_equal(load_partition(tmp_path / "p.json", data), parted)


def test_the_file_is_plain_json_with_a_client_a_line(saved: Path) -> None:
    record = json.loads(saved.read_text())
    assert record["clients"][2] == {"name": "Nürnberg", "rows": [0, 6]}
    assert (record["version"], record["dataset"], record["num_images"]) == (1, "own", 8)
    assert sum('"rows"' in line for line in saved.read_text().splitlines()) == 3


def test_a_data_set_may_move(saved: Path, data: ImageData) -> None:
    assert_equal(load_partition(saved, image_data(Path("elsewhere/deeper"), name="copy")), load_partition(saved, data))


def with_files(data: ImageData, files: tuple[Path, ...]) -> ImageData:
    train = Split("train", files, data.train.labels)
    return ImageData(data.name, data.class_names, train=train, test=train)


def swapped(file: Path) -> Path:
    """The file of that name in the other folder."""
    return file.parents[1] / {"left": "right", "right": "left"}[file.parent.name] / file.name


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda data: image_data(Path("x"), num_images=6), r"made for other data \('own'\): 8 training images.* has 6"),
        (lambda data: image_data(Path("x"), seed=1), "the images of 'own' with other labels"),
        (lambda data: with_files(data, data.train.files[::-1]), "the names or the order of the images differ"),
        (lambda data: with_files(data, tuple(map(swapped, data.train.files))), "the names or the order"),
    ],
)
def test_other_data_are_refused(
    saved: Path, data: ImageData, other: Callable[[ImageData], ImageData], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_partition(saved, other(data))


def put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


DAMAGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (put("format", value="recipe"), "is no saved partition"),
    (put("version", value=2), "has version 2, and this fedmpt reads 1"),
    (put("num_images", value=9), "9 training images"),
    (put("labels_sha256", value=None), "other labels"),
    (lambda record: record.pop("seed"), "it has no 'seed'"),
    (put("clients", 1, "rows", value=[2, 4, 7, 0]), "is damaged: its clients do not hold each image once"),
    (put("clients", 1, "name", value=7), "is damaged: one of its clients has no name"),
    (put("clients", 1, "name", value=" "), "is damaged: one of its clients has no name"),
    (put("clients", 1, "rows", value=[2, 7]), "is damaged: its clients do not hold each image once"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_files_are_refused(
    saved: Path, data: ImageData, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    record = json.loads(saved.read_text())
    damage(record)
    saved.write_text(json.dumps(record))
    with pytest.raises(InputError, match=message) as refused:
        load_partition(saved, data)
    assert str(saved) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not valid JSON"), ('{"format": "fed', "not valid JSON"), ("[]", "is no saved partition")],
)
def test_other_files_are_refused(saved: Path, data: ImageData, content: str, message: str) -> None:
    saved.write_text(content)
    with pytest.raises(InputError, match=rf"partition\.json.*{message}"):
        load_partition(saved, data)
    with pytest.raises(InputError, match=r"missing\.json cannot be read: No such file"):
        load_partition(saved.with_name("missing.json"), data)
