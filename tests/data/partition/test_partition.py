from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor

from fedmpt.data.datasets.voc import load_voc
from fedmpt.data.partition import Partition, partition_split
from fedmpt.types import InputError, Split


def partition(labels: Tensor, **options: Any) -> list[Tensor]:
    """Rows of each client."""
    files = tuple(Path(f"{row}.jpg") for row in range(len(labels)))
    return list(partition_split(Split("train", files, labels), **options).rows)


def random_labels(num_images: int = 200, num_classes: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (num_images, num_classes), generator=generator, dtype=torch.int8)


def assert_is_partition(clients: list[Tensor], num_images: int) -> None:
    assert torch.equal(torch.cat(clients).sort().values, torch.arange(num_images))
    for rows in clients:
        assert rows.dtype == torch.int64
        assert len(rows) > 0
        assert torch.equal(rows, rows.sort().values)


def as_clusters(clients: list[Tensor]) -> Tensor:
    cluster = torch.empty(sum(map(len, clients)), dtype=torch.int64)
    for index, rows in enumerate(clients):
        cluster[rows] = index
    return cluster


OPTIONS: list[dict[str, Any]] = [
    {"setting": "heterogeneous", "t": 0.1},
    {"setting": "heterogeneous", "t": 0.5},
    {"setting": "heterogeneous", "t": 1.0},
    {"setting": "iid", "num_clients": 1},
    {"setting": "iid", "num_clients": 7},
    {"setting": "iid", "num_clients": 200},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_image_has_one_client_by_seed_and_present_labels_alone(options: dict[str, Any]) -> None:
    labels = random_labels()
    clients, again = partition(labels, **options), partition(labels.clamp(min=0), **options, seed=42)
    assert_is_partition(clients, 200)
    assert torch.equal(as_clusters(clients), as_clusters(again))
    if options["setting"] == "heterogeneous":
        first = [int(rows[0]) for rows in clients]
        assert first == sorted(first)


def test_iid_shuffles_by_its_seed_and_divides_evenly() -> None:
    one, other = (partition(random_labels(), setting="iid", num_clients=7, seed=seed) for seed in (1, 2))
    assert not torch.equal(as_clusters(one), as_clusters(other))
    assert sorted(map(len, one)) == [28, 28, 28, 29, 29, 29, 29]
    assert not torch.equal(one[0], torch.arange(0, 200, 7))
    assert not torch.equal(one[0], torch.arange(len(one[0])))


@pytest.mark.parametrize(
    ("num_classes", "t", "num_clients"),
    [(45, 0.7, 32), (81, 0.5, 40), (81, 0.1, 8), (20, 0.1, 2), (20, 1.0, 20), (3, 0.01, 1), (3, 0.5, 2)],
)
def test_number_of_clients_is_pythons_round(num_classes: int, t: float, num_clients: int) -> None:
    one_class_each = torch.eye(num_classes, dtype=torch.int8).repeat(2, 1)
    assert len(partition(one_class_each, setting="heterogeneous", t=t)) == num_clients


def test_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    num_used = []
    fit_predict = KMeans.fit_predict

    def watched(model: KMeans, points: Any) -> Any:
        num_used.extend(pool["num_threads"] for pool in threadpool_info())
        return fit_predict(model, points)

    monkeypatch.setattr(KMeans, "fit_predict", watched)
    labels = random_labels(3000, 20)
    with threadpool_limits(limits=1):
        one = as_clusters(partition(labels, setting="heterogeneous", t=0.5))
    with threadpool_limits(limits=4):
        other = as_clusters(partition(labels, setting="heterogeneous", t=0.5))
    assert set(num_used) == {1}
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "heterogeneous"}, "needs t"),
        ({"setting": "heterogeneous", "t": 0.0}, r"t is 0.0; it must be in \(0, 1\]"),
        ({"setting": "heterogeneous", "t": 1.1}, "t is 1.1"),
        ({"setting": "heterogeneous", "t": float("nan")}, "t is nan"),
        ({"setting": "heterogeneous", "t": 0.5, "num_clients": 3}, "num_clients belongs to the iid setting"),
        ({"setting": "iid"}, "needs num_clients"),
        ({"setting": "iid", "num_clients": 0}, "needs num_clients, at least 1; got 0"),
        ({"setting": "iid", "num_clients": 201}, "201 clients cannot share 200 images"),
        ({"setting": "iid", "num_clients": 3, "t": 0.5}, "t belongs to the heterogeneous setting"),
        (
            {"setting": "iid", "num_clients": 3, "alpha": 0.5},
            "alpha belongs to the dirichlet setting; iid takes",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        partition(random_labels(), **options)


@pytest.mark.parametrize(("num_classes", "num_sets"), [(6, 3), (7, 2), (3, 1), (81, 40)])
def test_too_few_label_sets_tell_the_largest_t_and_it_does_work(num_classes: int, num_sets: int) -> None:
    labels = torch.eye(num_classes, dtype=torch.int8)[:num_sets].repeat(num_classes, 1)
    with pytest.raises(InputError, match=f"{num_classes} clients .* only {num_sets}; the largest t that") as refused:
        partition(labels, setting="heterogeneous", t=1.0)
    largest = float(str(refused.value).rsplit(" ", 1)[1])
    assert len(partition(labels, setting="heterogeneous", t=largest)) == num_sets


def test_larger_t_is_more_skewed_on_real_labels(shared: Path) -> None:
    labels = load_voc(shared / "data" / "VOCdevkit").train.labels == 1
    shares = labels.double().mean(0)
    skews = []
    for t, num_clients in ((0.1, 2), (0.5, 10), (1.0, 20)):
        clients = partition(labels.to(torch.int8), setting="heterogeneous", t=t)
        assert len(clients) == num_clients
        assert_is_partition(clients, 2000)
        skews.append(sum(len(rows) * float((labels[rows].double().mean(0) - shares).abs().sum()) for rows in clients))
    assert skews[0] < skews[1] < skews[2]


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
    assert (parted.setting, parted.options, parted.num_images) == ("natural", {"column": "hospital"}, 6)
    other = partition_split(split(), setting="dirichlet", num_clients=2, alpha=0.5, seed=5)
    assert (other.names, other.seed) == (("client 0", "client 1"), 5)
    assert other.options == {"num_clients": 2, "alpha": 0.5}


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
    ],
)
def test_wrong_options_of_natural_clients_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        partition_split(split(), **options)


def test_images_left_out_leave_the_others_where_they_are() -> None:
    parted = partition_split(split(), setting="natural", column="hospital")
    kept = torch.tensor([0, 2, 3, 5])
    assert rows_of(parted.keep(kept)) == {"A": [2, 3], "B": [0], "C": [1]}


def test_a_client_that_keeps_no_image_is_named() -> None:
    parted = partition_split(split(), setting="natural", column="hospital")
    with pytest.raises(InputError, match="1 of 3 clients have no readable image left, first 'C'"):
        parted.keep(torch.tensor([0, 1, 3, 4, 5]))
