"""Robust aggregation against NumPy, SciPy and plain loops, and against clients that lie."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import trim_mean
from torch import Tensor

from fedmpt.federated.robust import krum, krum_scores, median, trimmed_mean
from fedmpt.state import Update

PARAMETERS = ["weight", "scale"]


def drawn(size: int, *, seed: int = 0, spread: float = 1.0) -> list[Update]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"weight": (4, 3), "scale": (), "running": (2,)}
    return [
        update(client, **{name: spread * torch.randn(shape, generator=generator) for name, shape in shapes.items()})
        for client in range(size)
    ]


def update(client: int, **state: Tensor) -> Update:
    return Update(client=client, state=state, num_examples=client + 1, loss=0.0)


def values(updates: list[Update], name: str) -> np.ndarray:
    return np.stack([update.state[name].double().numpy() for update in updates])


@pytest.mark.parametrize("size", [3, 4, 7, 10])
def test_median_is_numpys(size: int) -> None:
    updates = drawn(size)
    found = median(updates)
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.numpy(), np.median(values(updates, name), axis=0), rtol=1e-6)
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize(("size", "cut"), [(3, 1), (10, 1), (10, 4), (7, 0)])
def test_trimmed_mean_is_scipys(size: int, cut: int) -> None:
    updates = drawn(size)
    for name, tensor in trimmed_mean(updates, cut=cut).items():
        expected = trim_mean(values(updates, name), (cut + 0.01) / size, axis=0)
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-5, atol=1e-7)


def krum_by_hand(updates: list[Update], num_faulty: int) -> list[float]:
    vectors = [np.concatenate([u.state[name].double().numpy().ravel() for name in PARAMETERS]) for u in updates]
    scores = []
    for i, mine in enumerate(vectors):
        distances = sorted(((mine - other) ** 2).sum() for j, other in enumerate(vectors) if i != j)
        scores.append(sum(distances[: len(updates) - num_faulty - 2]))
    return scores


@pytest.mark.parametrize(("size", "num_faulty"), [(5, 1), (9, 3), (9, 0), (12, 2)])
def test_krums_scores_and_choice_are_those_of_plain_loops(size: int, num_faulty: int) -> None:
    updates = drawn(size, seed=size)
    expected = krum_by_hand(updates, num_faulty)
    scores = krum_scores(updates, parameters=PARAMETERS, num_faulty=num_faulty)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-10)
    best = np.argsort(expected)[:2]
    one, two = (krum(updates, parameters=PARAMETERS, num_faulty=num_faulty, num_selected=n) for n in (1, 2))
    for name in one:
        assert torch.equal(one[name], updates[best[0]].state[name])
        np.testing.assert_allclose(two[name].numpy(), values(updates, name)[best].mean(0), rtol=1e-6)


def test_distances_of_nearly_equal_updates_keep_their_digits() -> None:
    base = 1000 + drawn(1)[0].state["weight"]
    nudges = (0.0, 1e-4, 3e-4, 4e-4, 1.0)
    updates = [update(c, weight=base.double() + nudge, scale=torch.zeros(())) for c, nudge in enumerate(nudges)]
    expected = krum_by_hand(updates, 1)
    np.testing.assert_allclose(krum_scores(updates, parameters=PARAMETERS, num_faulty=1).numpy(), expected, rtol=1e-6)


def test_of_equal_updates_the_first_wins() -> None:
    same = torch.ones(2)
    updates = [update(c, weight=same, scale=torch.zeros(()), running=torch.tensor(float(c))) for c in range(5)]
    assert krum(updates, parameters=PARAMETERS, num_faulty=1, num_selected=1)["running"] == 0


def attacked(size: int, liars: tuple[int, ...], *, lie: float) -> tuple[list[Update], Tensor]:
    """Clients around a truth, of whom some send ``lie``; and the mean of the honest ones."""
    updates = drawn(size, spread=0.1)
    honest = torch.stack([u.state["weight"] for u in updates if u.client not in liars]).mean(0)
    for client in liars:
        updates[client] = update(client, **{n: torch.full_like(t, lie) for n, t in updates[client].state.items()})
    return updates, honest


@pytest.mark.parametrize("liars", list(combinations(range(0, 9, 2), 2)))
@pytest.mark.parametrize("lie", [1e30, -50.0])
def test_two_of_nine_that_lie_are_borne_wherever_they_stand(liars: tuple[int, ...], lie: float) -> None:
    updates, honest = attacked(9, liars, lie=lie)
    for found in (
        median(updates),
        trimmed_mean(updates, cut=2),
        krum(updates, parameters=PARAMETERS, num_faulty=2, num_selected=1),
        krum(updates, parameters=PARAMETERS, num_faulty=2, num_selected=5),
    ):
        assert (found["weight"] - honest).abs().max() < 0.5


def test_more_liars_than_allowed_for_are_not() -> None:
    updates, honest = attacked(9, (0, 1, 2, 3, 4), lie=-50.0)
    assert (median(updates)["weight"] - honest).abs().max() > 40


@pytest.mark.parametrize("rule", ["median", "krum"])
def test_who_has_which_number_does_not_matter(rule: str) -> None:
    updates = drawn(8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1)).tolist()
    moved = [update(place, **updates[old].state) for place, old in enumerate(order)]
    results = [
        median(some) if rule == "median" else krum(some, parameters=PARAMETERS, num_faulty=1, num_selected=1)
        for some in (updates, moved)
    ]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_counters_stay_whole_numbers() -> None:
    updates = [update(c, batches=torch.tensor(10 + c)) for c in range(3)]
    assert median(updates)["batches"].dtype == torch.int64
    assert median(updates)["batches"] == 11
