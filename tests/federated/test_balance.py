"""Weights of labels: as defined, and of the effect that they are for."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.conditions.labels.ties import MIN_JOINT
from fedmpt.federated.balance import MAX_WEIGHT, Balance


def tied_labels(num_images: int = 400, seed: int = 0) -> Tensor:
    """Six classes: a street with most cars, a person with many of both, a cat alone, a sofa with some cats, and one
    class that is nowhere."""
    random = np.random.default_rng(seed)

    def drawn(chance: np.ndarray | float) -> np.ndarray:
        return random.random(num_images) < chance

    car = drawn(0.3)
    street = drawn(np.where(car, 0.8, 0.2))
    person = drawn(np.where(car, 0.5, np.where(street, 0.6, 0.1)))
    cat = drawn(np.where(street, 0.05, 0.4))
    sofa = drawn(np.where(cat, 0.3, 0.1))
    columns = [car, street, person, cat, sofa, np.zeros(num_images, dtype=bool)]
    return torch.from_numpy(np.stack(columns, 1).astype(np.int8))


def share(labels: Sequence[Sequence[int]], **values: int) -> float:
    """Of the rows that have these values, by columns such as ``c3``; rows without unknown ones among these."""
    columns = {int(name[1:]): value for name, value in values.items()}
    known = [row for row in labels if all(row[column] >= 0 for column in columns)]
    return sum(all(row[column] == value for column, value in columns.items()) for row in known) / len(known)


def by_hand(rows: Sequence[Sequence[int]], of: Sequence[Sequence[int]]) -> list[list[float]]:
    """Weights of ``rows`` before they are made one on average, by their definition; ``of`` are all clients' labels."""
    classes, found = range(len(of[0])), []
    partner = []
    for c in classes:
        lifts = {
            d: share(of, **{f"c{c}": 1, f"c{d}": 1}) / (share(of, **{f"c{c}": 1}) * share(of, **{f"c{d}": 1}))
            for d in classes
            if d != c and sum(row[c] == row[d] == 1 for row in of) >= MIN_JOINT
        }
        best = max(lifts, key=lambda d: lifts[d], default=None)
        partner.append(best if best is not None and lifts[best] > 1 else None)
    for row in rows:
        weights = []
        for c, d in zip(classes, partner, strict=True):
            if d is None or row[c] < 0 or row[d] < 0:
                weights.append(1.0)
            else:
                together = share(of, **{f"c{c}": row[c], f"c{d}": row[d]}) / share(of, **{f"c{c}": row[c]})
                exact = share(of, **{f"c{d}": row[d]}) / together if together else MAX_WEIGHT
                weights.append(min(max(exact, 1 / MAX_WEIGHT), MAX_WEIGHT))
        found.append(weights)
    return found


def test_weights_are_as_defined() -> None:
    labels = tied_labels()
    expected = torch.tensor(by_hand(labels[:50].tolist(), labels.tolist()))
    assert len(expected.unique()) > 8
    found = Balance.of(count_labels(labels)).weights(labels[:50])
    torch.testing.assert_close(found, expected / expected.mean(), rtol=1e-4, atol=0)


def test_unknown_labels_and_their_partners_weigh_one_and_do_not_enter_the_average() -> None:
    labels = tied_labels()
    some = labels[:50].masked_fill(torch.rand(50, 6, generator=torch.Generator().manual_seed(0)) < 0.4, -1)
    expected = torch.tensor(by_hand(some.tolist(), labels.tolist()))
    found = Balance.of(count_labels(labels)).weights(some)
    is_known = some != -1
    torch.testing.assert_close(found[is_known], (expected / expected[is_known].mean())[is_known], rtol=1e-4, atol=0)
    assert found[is_known].mean().item() == pytest.approx(1)


def test_the_example_of_the_words() -> None:
    """Half of 1,000 images show a street, and so do 90 of 100 with a car."""
    labels = torch.zeros(1000, 2, dtype=torch.int8)
    labels[:100, 0] = labels[10:510, 1] = 1
    balance = Balance.of(count_labels(labels))
    assert balance.partner.tolist() == [1, 0]
    assert balance.table[0, 1].tolist() == pytest.approx([0.5 / 0.1, 0.5 / 0.9])


def test_weighted_a_class_and_its_partner_are_independent() -> None:
    labels = tied_labels()
    balance = Balance.of(count_labels(labels))
    weights = balance.weights(labels).double()
    tied = [c for c in range(6) if balance.partner[c] != c]
    assert tied == [0, 1, 2, 3, 4]
    assert ((balance.table[tied] > 1 / MAX_WEIGHT) & (balance.table[tied] < MAX_WEIGHT)).all(), "none is clamped"
    for c in tied:
        d = int(balance.partner[c])
        weight = weights[:, c] / weights[:, c].sum()
        own, other = labels[:, c].double(), labels[:, d].double()
        assert (weight * own).sum().item() == pytest.approx(own.mean().item(), rel=1e-4), "as frequent as before"
        together = (weight * own * other).sum() / ((weight * own).sum() * (weight * other).sum())
        assert together.item() == pytest.approx(1, rel=1e-4)
        before = (own * other).mean() / (own.mean() * other.mean())
        assert before > 1.05


def test_a_class_that_no_client_has_weighs_one_and_changes_nothing() -> None:
    labels = tied_labels()
    balance, without = Balance.of(count_labels(labels)), Balance.of(count_labels(labels[:, :5]))
    assert balance.partner[5] == 5
    assert (balance.table[5] == 1).all()
    assert torch.equal(balance.table[:5], without.table)
    # Should somebody show it after all, it still weighs as all that is not tied.
    shown = torch.tensor([[0, 0, 0, 0, 0, 1]], dtype=torch.int8)
    assert torch.equal(balance.weights(shown)[0, :5], balance.weights(shown.clone().fill_(0))[0, :5])


@pytest.mark.parametrize("num_images", [0, 4])
def test_without_ties_all_labels_weigh_the_same(num_images: int) -> None:
    labels = torch.ones(num_images, 3, dtype=torch.int8)
    assert (Balance.of(count_labels(labels)).weights(tied_labels()[:, :3]) == 1).all()


def test_classes_that_are_never_apart_weigh_no_more_than_allowed() -> None:
    labels = torch.zeros(100, 3, dtype=torch.int8)
    labels[:10, :2] = 1
    labels[:, 2] = 1  # In all images.
    balance = Balance.of(count_labels(labels))
    assert balance.partner.tolist() == [1, 0, 2]
    both, one, none = balance.table[0, 1, 1], balance.table[0, 1, 0], balance.table[0, 0, 0]
    assert (both.item(), none.item()) == (pytest.approx(0.1), pytest.approx(0.9))
    assert one == MAX_WEIGHT, "was never seen"
    assert balance.weights(labels).isfinite().all()


def test_a_batch_without_known_labels_has_weights() -> None:
    unknown = torch.full((2, 6), -1, dtype=torch.int8)
    assert (Balance.of(count_labels(tied_labels())).weights(unknown) == 1).all()


def test_the_order_of_clients_changes_nothing() -> None:
    counts = [count_labels(part) for part in tied_labels().split([10, 0, 200, 190])]
    first, second = (Balance.of(reduce(operator.add, parts)) for parts in (counts, counts[::-1]))
    assert torch.equal(first.partner, second.partner)
    assert torch.equal(first.table, second.table)
