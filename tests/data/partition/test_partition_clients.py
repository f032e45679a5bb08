from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedmpt.data.partition import Partition, partition, partition_split
from fedmpt.types import InputError, Split

SITES = ("B", " A", "C", "A", "B", "A ")


def split(sites: tuple[str, ...] = SITES) -> Split:
    labels = torch.randint(-1, 2, (len(sites), 3), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    files = tuple(Path(f"photos/{row}.jpg") for row in range(len(sites)))
    return Split("train", files, labels, {"hospital": sites, "camera": ("x",) * len(sites)})


def rows_of(parted: Partition) -> dict[str, list[int]]:
    return {name: rows.tolist() for name, rows in zip(parted.names, parted.rows, strict=True)}


def test_natural_makes_a_client_of_each_value_of_the_column() -> None:
    parted = partition_split(split(), setting="natural", column="hospital")
    assert rows_of(parted) == {"A": [1, 3, 5], "B": [0, 4], "C": [2]}
    assert list(parted.names) == ["A", "B", "C"]
    assert (parted.setting, parted.options, parted.num_images) == (
        "natural",
        {"column": "hospital"},
        6,
    )


def test_images_without_a_value_are_named() -> None:
    with pytest.raises(InputError, match=r"2 of 4 images have no value: photos/1\.jpg, photos/3\.jpg; fill them in"):
        partition_split(split(("A", "", "B", "  ")), setting="natural", column="hospital")
    with pytest.raises(InputError, match=r"7 of 8 images .*photos/5\.jpg and 2 more; fill"):
        partition_split(split(("A", *[""] * 7)), setting="natural", column="hospital")
    bare = Split("train", split().files, split().labels)
    with pytest.raises(InputError, match="the train images have no columns"):
        partition_split(bare, setting="natural", column="hospital")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "natural"}, "needs a column .*; the train images have camera, hospital"),
        ({"setting": "natural", "column": "hopsital"}, "no column 'hopsital'; did you mean 'hospital'"),
        ({"setting": "natural", "column": "hospital", "num_clients": 3}, "num_clients belongs to the iid setting"),
        ({"setting": "iid", "num_clients": 3, "column": "hospital"}, "column belongs to the natural setting"),
        ({"setting": "dirichlet", "num_clients": 3}, "needs alpha"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        partition_split(split(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"setting": "iid", "num_clients": 2, "seed": 5},
        {"setting": "dirichlet", "num_clients": 2, "alpha": 0.5, "min_images": 2, "seed": 5},
        {"setting": "heterogeneous", "t": 0.7},
    ],
)
def test_a_split_is_divided_as_its_labels_are(options: dict[str, Any]) -> None:
    parted = partition_split(split(), **options)
    expected = partition(split().labels, **options)
    assert [rows.tolist() for rows in parted.rows] == [rows.tolist() for rows in expected]
    assert parted.names == tuple(f"client {number}" for number in range(len(expected)))
    assert {"setting": parted.setting, "seed": parted.seed, **parted.options} == {
        "seed": 42,
        **options,
    }


def test_images_left_out_leave_the_others_where_they_are() -> None:
    parted = partition_split(split(), setting="natural", column="hospital")
    kept = torch.tensor([0, 2, 3, 5])
    assert rows_of(parted.keep(kept)) == {"A": [2, 3], "B": [0], "C": [1]}


def test_a_client_that_keeps_no_image_is_named() -> None:
    parted = partition_split(split(), setting="natural", column="hospital")
    with pytest.raises(InputError, match="1 of 3 clients have no readable image left, first 'C'"):
        parted.keep(torch.tensor([0, 1, 3, 4, 5]))
