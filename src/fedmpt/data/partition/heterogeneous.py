"""The paper's setting: one client for each KMeans cluster of the images' label sets."""

from __future__ import annotations

import warnings
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from fedmpt.types import PRESENT, InputError

# The paper does not say; one start, scikit-learn's default for k-means++, depends more on its seed.
KMEANS_RESTARTS = 10


def number_of_clusters(t: float | None, num_classes: int) -> int:
    """round(``t`` * C), halves to even, at least one. Raises InputError if ``t`` is missing or not in (0, 1]."""
    if t is None:
        raise InputError("the heterogeneous setting needs t, in (0, 1]: the number of clients over that of classes")
    if not 0 < t <= 1:
        raise InputError(f"t is {t}; it must be in (0, 1]: the number of clients over that of classes")
    # Decimal, because 0.7 * 45 is 31.499... in binary.
    return max(1, int((Decimal(str(t)) * num_classes).to_integral_value(ROUND_HALF_EVEN)))


def cluster(labels: Int8[Tensor, "n C"], *, num_clusters: int, seed: int) -> list[Int64[Tensor, "rows"]]:
    """Rows of each KMeans cluster of the softmax of the labels, in the order of their first rows.

    Raises InputError if there are fewer different label sets than clusters, or a cluster got no image.
    """
    points = torch.softmax((labels == PRESENT).double(), dim=1)
    # Counted on the points, not on the labels: all present and all absent have the same softmax.
    num_distinct = len(np.unique(points.numpy(), axis=0))
    if num_distinct < num_clusters:
        raise InputError(
            f"{num_clusters} clients need as many different label sets, and these {labels.shape[0]} images have only "
            f"{num_distinct}; the largest t that works is {_largest_t(num_distinct, labels.shape[1])}"
        )
    clusters = _kmeans(points, num_clusters=num_clusters, seed=seed)
    clients = [(clusters == index).nonzero().flatten() for index in range(num_clusters)]
    num_empty = sum(rows.numel() == 0 for rows in clients)
    if num_empty:
        raise InputError(f"{num_empty} of {num_clusters} clients got no image; choose a smaller t")
    return sorted(clients, key=lambda rows: int(rows[0]))


def _kmeans(points: Float64[Tensor, "n C"], *, num_clusters: int, seed: int) -> Int64[Tensor, "n"]:
    # Imported here: they take a second, and most commands never partition.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = KMeans(n_clusters=num_clusters, random_state=seed, n_init=KMEANS_RESTARTS)
    # One thread: with more, sums of points come in another order, and images between two clusters change sides.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Empty clusters are an error of ours.
        return torch.from_numpy(model.fit_predict(points.numpy())).long()


def _largest_t(num_distinct: int, num_classes: int) -> str:
    # Rounded down, so that it never makes more clients than there are label sets.
    exact = min(Decimal(1), Decimal(num_distinct) / num_classes)
    return f"{exact.quantize(Decimal('0.0001'), ROUND_DOWN).normalize():f}"
