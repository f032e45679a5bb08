"""Aggregation that bears faulty or hostile clients. Every client counts once, and all updates are held at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.federated.aggregation import Aggregation, num_trimmed
from fedmpt.state import Update, mean_state

Rule = Callable[[Sequence[Update], Sequence[str], Aggregation], dict[str, Tensor]]


def trimmed_mean(updates: Sequence[Update], *, cut: int) -> dict[str, Tensor]:
    """The mean of every value without its ``cut`` smallest and largest (Yin et al. 2018), in double precision."""
    assert 2 * cut < len(updates)
    found = {}
    for name, like in updates[0].state.items():
        values = torch.stack([update.state[name] for update in updates]).sort(dim=0).values
        found[name] = values[cut : len(updates) - cut].mean(dim=0, dtype=torch.float64).to(like.dtype)
    return found


def median(updates: Sequence[Update]) -> dict[str, Tensor]:
    """The median of every value (Yin et al. 2018): with an even number of clients, the mean of the middle two."""
    return trimmed_mean(updates, cut=(len(updates) - 1) // 2)


def krum(
    updates: Sequence[Update], *, parameters: Sequence[str], num_faulty: int, num_selected: int
) -> dict[str, Tensor]:
    """The mean of the updates with the best `krum_scores`; with one, that update (Blanchard et al. 2017).

    Distances are over ``parameters``: running statistics of activations have other scales. Of equal scores, the lower
    client number wins.
    """
    scores = krum_scores(updates, parameters=parameters, num_faulty=num_faulty)
    chosen = scores.argsort(stable=True)[:num_selected].sort().values
    return mean_state((updates[index] for index in chosen.tolist()), weighting="uniform")


def krum_scores(updates: Sequence[Update], *, parameters: Sequence[str], num_faulty: int) -> Float[Tensor, " K"]:
    """Of each update, the sum of squared distances to its K - f - 2 nearest others; low is trustworthy."""
    size = len(updates)
    squares = torch.zeros(size, size, dtype=torch.float64)
    for name in parameters:
        values = torch.stack([update.state[name].flatten() for update in updates]).double()
        # Not by products of values, whose differences lose digits where updates are close.
        squares += torch.cdist(values, values, compute_mode="donot_use_mm_for_euclid_dist").square()
    squares.fill_diagonal_(torch.inf)
    return squares.sort(dim=1).values[:, : size - num_faulty - 2].sum(dim=1)


RULES: Mapping[str, Rule] = {
    "trimmed-mean": lambda updates, _, options: trimmed_mean(updates, cut=num_trimmed(options.trim, len(updates))),
    "median": lambda updates, _, options: median(updates),
    "krum": lambda updates, parameters, options: krum(
        updates, parameters=parameters, num_faulty=options.num_faulty, num_selected=options.num_selected
    ),
}
"""By the name that ``--aggregator`` takes; the mean is the method's own."""
