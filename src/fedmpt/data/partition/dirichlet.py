"""Clients whose shares of each label are drawn from a Dirichlet distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from fedmpt.seeding import generator
from fedmpt.types import PRESENT

# NumPy's older generator: it alone promises the same numbers in every version of NumPy.
Random: TypeAlias = np.random.RandomState


def split_by_label(
    labels: Int8[Tensor, "n C"], *, num_clients: int, alpha: float, min_images: int, seed: int
) -> list[Int64[Tensor, "rows"]]:
    """Rows of each client. Needs ``num_clients * min_images`` images at least.

    Each label's images are split over the clients by shares from a symmetric Dirichlet distribution (Yurochkin et al.
    2019, Bayesian nonparametric federated learning, sec. 4; Hsu et al. 2019, arXiv 1909.06335, draw a distribution
    over labels for each client instead). The published definitions have one label an image. Here an image goes by
    one of its present labels, drawn uniformly; images without any form a label of their own.
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
