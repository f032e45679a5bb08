"""Which client holds which training images."""

from __future__ import annotations

import warnings
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from fedmpt.seeding import generator
from fedmpt.types import PRESENT, InputError

Setting = Literal["heterogeneous", "iid"]

# The paper does not say; one start, scikit-learn's default for k-means++, depends more on its seed.
KMEANS_RESTARTS = 10


def partition(
    labels: Int8[Tensor, "n C"],
    *,
    setting: Setting,
    t: float | None = None,
    num_clients: int | None = None,
    seed: int = 42,
) -> list[Int64[Tensor, "rows"]]:
    """Rows of ``labels`` of each client: ascending, disjoint, together all of them, no client without any.

    ``"heterogeneous"`` makes round(``t`` * C) clients (halves to even, as Python rounds; at least one), each one
    KMeans cluster of the images by the softmax of their multi-hot labels, unknown taken as absent; a larger ``t``, in
    (0, 1], gives more and purer clients. They are in the order of their first rows. The published partition has
    ``seed`` 42 whatever the seed of the run.
    ``"iid"`` shuffles the rows by ``seed`` and deals them to ``num_clients`` clients evenly.

    Raises:
        InputError: if an option is missing, out of range or of the other setting, or the images do not suffice.
    """
    if setting == "heterogeneous":
        if num_clients is not None:
            raise InputError("num_clients belongs to the iid setting; heterogeneous takes its number from t")
        return _heterogeneous(labels, num_clusters=_num_clusters(t, labels.shape[1]), seed=seed)
    if setting == "iid":
        if t is not None:
            raise InputError("t belongs to the heterogeneous setting; iid takes num_clients")
        return _iid(labels.shape[0], num_clients=num_clients, seed=seed)
    raise InputError(f"setting is {setting!r}; it may be: {', '.join(get_args(Setting))}")


def _iid(num_images: int, *, num_clients: int | None, seed: int) -> list[Int64[Tensor, "rows"]]:
    if num_clients is None or num_clients < 1:
        raise InputError(f"the iid setting needs num_clients, at least 1; got {num_clients}")
    _check_enough_images(num_images, num_clients)
    order = torch.randperm(num_images, generator=generator(seed, "partition"))
    return [order[client::num_clients].sort().values for client in range(num_clients)]


def _num_clusters(t: float | None, num_classes: int) -> int:
    if t is None:
        raise InputError("the heterogeneous setting needs t, in (0, 1]: the number of clients over that of classes")
    if not 0 < t <= 1:
        raise InputError(f"t is {t}; it must be in (0, 1]: the number of clients over that of classes")
    # Decimal, because 0.7 * 45 is 31.499... in binary.
    return max(1, int((Decimal(str(t)) * num_classes).to_integral_value(ROUND_HALF_EVEN)))


def _heterogeneous(labels: Int8[Tensor, "n C"], *, num_clusters: int, seed: int) -> list[Int64[Tensor, "rows"]]:
    _check_enough_images(labels.shape[0], num_clusters)
    points = torch.softmax((labels == PRESENT).double(), dim=1)
    # Counted on the points, not on the labels: all present and all absent have the same softmax.
    num_distinct = len(np.unique(points.numpy(), axis=0))
    if num_distinct < num_clusters:
        raise InputError(
            f"{num_clusters} clients need as many different label sets, and these {labels.shape[0]} images have only "
            f"{num_distinct}; the largest t that works is {_largest_t(num_distinct, labels.shape[1])}"
        )
    clusters = _kmeans(points, num_clusters=num_clusters, seed=seed)
    clients = [(clusters == cluster).nonzero().flatten() for cluster in range(num_clusters)]
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


def _check_enough_images(num_images: int, num_clients: int) -> None:
    if num_clients > num_images:
        raise InputError(f"{num_clients} clients cannot share {num_images} images; choose fewer clients")
