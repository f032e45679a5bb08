"""How far clients are from the whole: sizes, labels, and labels that are together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from fedmpt.data.partition.settings import Partition
from fedmpt.types import PRESENT


@dataclass(frozen=True, eq=False)
class PartitionStatistics:
    """Counts of each client's images; unknown labels count as not there.

    A pair is two different classes present in one image. Distances are Jensen-Shannon distances of a client's
    distribution over its present labels, or pairs, from that of all clients together: the square root of the
    divergence in bits, 0 (alike) to 1 (nothing in common), NaN for a client that has no label, or no pair.
    """

    names: tuple[str, ...]
    sizes: Int64[Tensor, "clients"]
    num_unlabelled: Int64[Tensor, "clients"]
    class_counts: Int64[Tensor, "clients C"]
    num_pairs: Int64[Tensor, "clients"]
    label_distances: Float64[Tensor, "clients"]
    pair_distances: Float64[Tensor, "clients"]

    @property
    def gini(self) -> float:
        """Gini coefficient of the sizes: 0 where all are the same, near 1 where one client has nearly all images."""
        sizes, n = self.sizes.sort().values.double(), len(self.sizes)
        return float(2 * (sizes * torch.arange(1, n + 1)).sum() / (n * sizes.sum()) - (n + 1) / n)

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """A summary and the clients, as JSON holds them: distances that do not exist are None, pairs only counted."""
        sizes = self.sizes

        def by_name(counts: Int64[Tensor, "C"]) -> dict[str, int]:
            return dict(zip(class_names, counts.tolist(), strict=True))

        return {
            "num_clients": len(self.names),
            "num_images": int(sizes.sum()),
            "num_unlabelled": int(self.num_unlabelled.sum()),
            "images_per_class": by_name(self.class_counts.sum(0)),
            "sizes": {
                "min": int(sizes.min()),
                "mean": float(sizes.double().mean()),
                "max": int(sizes.max()),
                "gini": self.gini,
            },
            "label_distance": _mean_and_max(self.label_distances),
            "pair_distance": _mean_and_max(self.pair_distances),
            "clients": [
                {
                    "name": name,
                    "num_images": int(sizes[client]),
                    "num_unlabelled": int(self.num_unlabelled[client]),
                    "num_pairs": int(self.num_pairs[client]),
                    "label_distance": _or_none(self.label_distances[client]),
                    "pair_distance": _or_none(self.pair_distances[client]),
                    "images_per_class": by_name(self.class_counts[client]),
                }
                for client, name in enumerate(self.names)
            ],
        }


def partition_statistics(partition: Partition, labels: Tensor) -> PartitionStatistics:
    """Statistics of the images [images, C] that were divided."""
    assert partition.num_images == len(labels)
    clients = [labels[rows] == PRESENT for rows in partition.rows]
    class_counts = torch.stack([present.sum(0) for present in clients])
    # One client at a time: a table of clients and pairs would take 20 GB for 300 clients and 3,000 classes.
    all_pairs = _pairs(labels == PRESENT)
    pairs = [(counts.sum(), _distance(counts, all_pairs)) for counts in map(_pairs, clients)]
    return PartitionStatistics(
        names=partition.names,
        sizes=torch.tensor([len(rows) for rows in partition.rows]),
        num_unlabelled=torch.stack([(~present.any(1)).sum() for present in clients]),
        class_counts=class_counts,
        num_pairs=torch.stack([total for total, _ in pairs]),
        label_distances=torch.stack([_distance(row, class_counts.sum(0)) for row in class_counts]),
        pair_distances=torch.stack([distance for _, distance in pairs]),
    )


def _pairs(present: Bool[Tensor, "n C"]) -> Int64[Tensor, "C C"]:
    """Images that show each pair of classes, above the diagonal; fp32 is exact up to 16 million."""
    shown = present.float()
    return (shown.T @ shown).round().long().triu(diagonal=1)


def _distance(counts: Int64[Tensor, "*kinds"], whole: Int64[Tensor, "*kinds"]) -> Float64[Tensor, ""]:
    """Jensen-Shannon distance of the distribution of ``counts`` from that of the whole; NaN where all are 0."""
    p, q = counts.double() / counts.sum(), whole.double() / whole.sum()
    entropy = torch.special.entr
    bits = (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2).sum() / math.log(2)
    return bits.clamp(0, 1).sqrt()


def _mean_and_max(distances: Float64[Tensor, "clients"]) -> dict[str, float | None]:
    known = distances[~distances.isnan()].tolist()
    return {"mean": sum(known) / len(known), "max": max(known)} if known else {"mean": None, "max": None}


def _or_none(value: Float64[Tensor, ""]) -> float | None:
    return None if value.isnan() else float(value)
