from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from fedmpt.data.partition import Partition, partition_split, partition_statistics
from fedmpt.types import Split


def random_labels(num_images: int = 150, num_classes: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (num_images, num_classes), generator=generator, dtype=torch.int8)


def divided(labels: Tensor, num_clients: int = 4) -> Partition:
    split = Split("train", tuple(Path(f"{row}.jpg") for row in range(len(labels))), labels)
    return partition_split(split, setting="dirichlet", num_clients=num_clients, alpha=0.3)


def by_hand(*rows: list[int]) -> Partition:
    names = tuple(f"client {number}" for number in range(len(rows)))
    return Partition("natural", {}, 42, names, tuple(torch.tensor(part) for part in rows))


def pair_counts(shown: list[set[int]]) -> list[int]:
    return [sum({a, b} <= classes for classes in shown) for a, b in combinations(range(5), 2)]


def shown_classes(labels: Tensor, rows: Tensor) -> list[set[int]]:
    return [{c for c, label in enumerate(labels[row].tolist()) if label == 1} for row in rows.tolist()]


def test_counts_are_those_of_plain_python() -> None:
    labels = random_labels()
    parted = divided(labels)
    found = partition_statistics(parted, labels)
    for client, rows in enumerate(parted.rows):
        shown = shown_classes(labels, rows)
        assert found.sizes[client] == len(rows)
        assert found.num_unlabelled[client] == sum(not classes for classes in shown)
        assert found.class_counts[client].tolist() == [sum(c in classes for classes in shown) for c in range(5)]
        pairs = pair_counts(shown)
        assert found.num_pairs[client] == sum(pairs)


def test_distances_are_those_of_scipy() -> None:
    labels = random_labels()
    parted = divided(labels)
    found = partition_statistics(parted, labels)
    pairs = np.array([pair_counts(shown_classes(labels, rows)) for rows in parted.rows])
    for counts, distances in ((found.class_counts.numpy(), found.label_distances), (pairs, found.pair_distances)):
        expected = [jensenshannon(row, counts.sum(0), base=2) for row in counts]
        assert distances.numpy() == pytest.approx(np.array(expected))


def test_distances_go_from_alike_to_nothing_in_common() -> None:
    labels = torch.tensor([[1, 1, 0, 0]] * 4, dtype=torch.int8)
    alike = partition_statistics(by_hand([0, 2], [1, 3]), labels)
    assert alike.label_distances.tolist() == alike.pair_distances.tolist() == [0, 0]
    # One image against 9999 others: the whole is nearly the others', so this client has next to nothing in common.
    labels = torch.tensor([[1, 1, 0, 0]] + [[0, 0, 1, 1]] * 9999, dtype=torch.int8)
    apart = partition_statistics(by_hand([0], list(range(1, 10_000))), labels)
    assert 0.99 < float(apart.label_distances[0]) <= 1
    assert float(apart.label_distances[1]) < 0.01


def test_gini_is_the_mean_difference_of_sizes() -> None:
    labels = random_labels()
    found = partition_statistics(divided(labels, 7), labels)
    sizes = found.sizes.tolist()
    expected = np.mean([[abs(a - b) for a in sizes] for b in sizes]) / (2 * np.mean(sizes))
    assert found.gini == pytest.approx(expected)
    assert partition_statistics(by_hand([0, 1], [2, 3]), labels[:4]).gini == pytest.approx(0)


def test_clients_without_labels_or_pairs_have_no_distance() -> None:
    labels = torch.tensor([[1, 1], [1, 0], [0, -1]], dtype=torch.int8)
    found = partition_statistics(by_hand([0], [1], [2]), labels)
    assert [math.isnan(value) for value in found.label_distances.tolist()] == [False, False, True]
    assert [math.isnan(value) for value in found.pair_distances.tolist()] == [False, True, True]
    record = json.loads(json.dumps(found.to_json(["cat", "dog"]), allow_nan=False))
    assert record["clients"][2]["label_distance"] is None
    assert record["pair_distance"] == {"mean": 0.0, "max": 0.0}
    nothing = partition_statistics(by_hand([0], [1]), torch.zeros(2, 2, dtype=torch.int8))
    assert nothing.to_json(["cat", "dog"])["label_distance"] == {"mean": None, "max": None}


def test_json_has_the_summary_and_each_client() -> None:
    labels = torch.tensor([[1, 1], [1, 0], [0, -1], [0, 1]], dtype=torch.int8)
    record = partition_statistics(by_hand([0, 1, 2], [3]), labels).to_json(["cat", "dog"])
    assert record["images_per_class"] == {"cat": 2, "dog": 2}
    assert record["sizes"] == {"min": 1, "mean": 2.0, "max": 3, "gini": pytest.approx(0.25)}
    assert (record["num_clients"], record["num_images"], record["num_unlabelled"]) == (2, 4, 1)
    first = record["clients"][0]
    assert (first["name"], first["num_images"], first["num_pairs"]) == ("client 0", 3, 1)
    assert first["images_per_class"] == {"cat": 2, "dog": 1}
    assert record["label_distance"]["max"] == pytest.approx(jensenshannon([0, 1], [2, 2], base=2))
