"""Clients by labels: KMeans clusters of label sets (the paper's setting), or shares from a Dirichlet distribution."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from fedmpt.seeding import generator
from fedmpt.types import PRESENT, InputError

# The paper does not say; one start, scikit-learn's default for k-means++, depends more on its seed.
KMEANS_RESTARTS = 10
# NumPy's older generator: it alone promises the same numbers in every version of NumPy.
Random: TypeAlias = np.random.RandomState


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
        # Rounded down, so that it never makes more clients than there are label sets.
        largest = min(Decimal(1), Decimal(num_distinct) / labels.shape[1]).quantize(Decimal("0.0001"), ROUND_DOWN)
        raise InputError(
            f"{num_clusters} clients need as many different label sets, and these {labels.shape[0]} images have only "
            f"{num_distinct}; the largest t that works is {largest.normalize():f}"
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


def split_by_label(
    labels: Int8[Tensor, "n C"], *, num_clients: int, alpha: float, min_images: int, seed: int
) -> list[Int64[Tensor, "rows"]]:
    """Rows of each client. Needs ``num_clients * min_images`` images at least.

    Each label's images are split over the clients by shares from a symmetric Dirichlet distribution (Yurochkin et al.
    2019, Bayesian nonparametric federated learning, sec. 4). The published definition has one label an image. Here an
    image goes by one of its present labels, drawn uniformly; images without any form a label of their own.
    """
    assert num_clients * min_images <= labels.shape[0]
    random = Random(generator(seed, "dirichlet").initial_seed() % 2**32)
    assigned_by = _one_label_each(labels == PRESENT, random)
    clients: list[list[int]] = [[] for _ in range(num_clients)]
    for label in range(labels.shape[1] + 1):
        rows = random.permutation(np.flatnonzero(assigned_by == label))
        ends = _ends(_shares(num_clients, alpha, random), len(rows), random)
        for client, part in zip(clients, np.split(rows, ends[:-1]), strict=True):
            client.extend(part.tolist())
    _fill_up(clients, min_images, random)
    return [torch.tensor(client, dtype=torch.int64).sort().values for client in clients]


def _one_label_each(present: Tensor, random: Random) -> Int64[np.ndarray, " n"]:
    """One present label of each image, C where there is none."""
    num_present = present.sum(1).numpy()
    drawn = torch.from_numpy((random.random_sample(len(present)) * num_present).astype(np.int16))
    # The first label up to which more than `drawn` are present.
    chosen = (present.cumsum(1, dtype=torch.int16) > drawn[:, None]).int().argmax(1).numpy()
    return np.where(num_present > 0, chosen, present.shape[1])


def _shares(num_clients: int, alpha: float, random: Random) -> Float64[np.ndarray, " clients"]:
    """Dirichlet(alpha, ..., alpha). In logarithms, since for a small alpha every gamma variate may be zero."""
    # Gamma(alpha) is Gamma(alpha + 1) * U ** (1 / alpha) (Marsaglia and Tsang 2000).
    uniform = 1 - random.random_sample(num_clients)  # In (0, 1].
    logarithms = np.log(random.standard_gamma(alpha + 1, num_clients)) + np.log(uniform) / alpha
    variates = np.exp(logarithms - logarithms.max())
    return variates / variates.sum()


def _ends(shares: Float64[np.ndarray, " clients"], count: int, random: Random) -> Int64[np.ndarray, " clients"]:
    """Where each client's part of ``count`` images ends.

    Systematic rounding: each part is its exact size rounded up or down, right in the mean, and none is lost. Plain
    rounding would give a label with one image to a client in the middle always.
    """
    ends = np.floor(np.cumsum(shares) * count + random.random_sample()).astype(np.int64)
    ends = np.minimum(ends, count)
    ends[-1] = count
    return ends


def _fill_up(clients: Sequence[list[int]], min_images: int, random: Random) -> None:
    """Clients with too few images take one at a time from the largest.

    Drawing again until all have enough (Li et al. 2022) may never end: with a small alpha a label has one client, and
    there can be more clients than labels.
    """
    for client in clients:
        while len(client) < min_images:
            # Larger than the minimum, since there are enough images and this one has too few.
            largest = max(clients, key=len)
            client.append(largest.pop(random.randint(len(largest))))
