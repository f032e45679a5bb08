"""Which client holds which training images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Int8, Int64
from torch import Tensor

from fedmpt.data.partition.dirichlet import split_by_label
from fedmpt.data.partition.heterogeneous import cluster, number_of_clusters
from fedmpt.data.reading import check_choice
from fedmpt.seeding import generator
from fedmpt.types import InputError

Setting = Literal["heterogeneous", "iid", "dirichlet", "natural"]

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "heterogeneous": ("t",),
    "iid": ("num_clients",),
    "dirichlet": ("num_clients", "alpha", "min_images"),
    "natural": ("column",),
}
"""The options of each setting."""

MIN_ALPHA = 1e-9
"""Far below what changes anything: at 0.001 a label nearly always has one client."""


def partition(
    labels: Int8[Tensor, "n C"],
    *,
    setting: Setting,
    t: float | None = None,
    num_clients: int | None = None,
    alpha: float | None = None,
    min_images: int | None = None,
    seed: int = 42,
) -> list[Int64[Tensor, "rows"]]:
    """Rows of ``labels`` of each client: ascending, disjoint, together all of them, no client without any.

    ``"heterogeneous"`` makes round(``t`` * C) clients (halves to even, as Python rounds; at least one), each one
    KMeans cluster of the images by the softmax of their multi-hot labels, unknown taken as absent; a larger ``t``, in
    (0, 1], gives more and purer clients. They are in the order of their first rows. The published partition has
    ``seed`` 42 whatever the seed of the run.
    ``"iid"`` shuffles the rows by ``seed`` and divides them evenly among ``num_clients`` clients.
    ``"dirichlet"`` splits the images of each label over ``num_clients`` clients by shares drawn by ``seed`` from a
    symmetric Dirichlet distribution; a smaller ``alpha``, above 0, is more skewed. An image goes by one of its
    labels, drawn uniformly; images without any are a label of their own. A client with less than ``min_images`` (1
    unless given) takes what it lacks from the largest.
    ``"natural"`` needs more than labels: see `partition_split`.

    Raises:
        InputError: if an option is missing, out of range or of another setting, or the images do not suffice.
    """
    given = {"t": t, "num_clients": num_clients, "alpha": alpha, "min_images": min_images}
    check_options(setting, [name for name, value in given.items() if value is not None])
    num_images, num_classes = labels.shape
    if setting == "natural":
        raise InputError("the natural setting needs a column of the images; labels alone do not name clients")
    if setting == "heterogeneous":
        num_clients = number_of_clusters(t, num_classes)
    if num_clients is None or num_clients < 1:
        raise InputError(f"the {setting} setting needs num_clients, at least 1; got {num_clients}")
    if num_clients > num_images:
        raise InputError(f"{num_clients} clients cannot share {num_images} images; choose fewer clients")
    if setting == "heterogeneous":
        return cluster(labels, num_clusters=num_clients, seed=seed)
    if setting == "iid":
        order = torch.randperm(num_images, generator=generator(seed, "partition"))
        return [order[client::num_clients].sort().values for client in range(num_clients)]
    if alpha is None or not MIN_ALPHA <= alpha < math.inf:
        needs = f"alpha, at least {MIN_ALPHA} (0.1 is skewed, 100 is even)"
        raise InputError(f"the dirichlet setting needs {needs}; got {alpha}")
    min_images = 1 if min_images is None else min_images
    if min_images < 1:
        raise InputError(f"min_images is {min_images}; it must be at least 1, or a client could not train")
    if num_clients * min_images > num_images:
        raise InputError(
            f"{num_clients} clients cannot have {min_images} of {num_images} images each; choose fewer clients, or "
            f"min_images of at most {num_images // num_clients}"
        )
    return split_by_label(labels, num_clients=num_clients, alpha=float(alpha), min_images=min_images, seed=seed)


def check_options(setting: str, given: Iterable[str]) -> None:
    """Whether ``given`` options are of this setting.

    Raises InputError if there is no such setting, or an option belongs to others.
    """
    check_choice("setting", setting, get_args(Setting))
    for name in given:
        if name not in OPTIONS[setting]:
            owners = " and ".join(f"the {other} setting" for other, names in OPTIONS.items() if name in names)
            raise InputError(f"{name} belongs to {owners}; {setting} takes {', '.join(OPTIONS[setting])}")
