"""Pseudo labels and consistency with the server's model, for labels that a client does not know, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_method import CLASSES, Toy, toy

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.data.features.store import FeatureSet
from fedmpt.federated.balance import Balance
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.seeding import generator
from fedmpt.state import Update, get_state
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, State

TRAINING = LocalTraining(batch_size=4, momentum=0.0, weight_decay=0.0, local_epochs=2)
RATE, ROUND, CLIENT, SEED = 0.5, 3, 1, 7


@pytest.fixture
def client(clients: list[FeatureSet]) -> FeatureSet:
    """Thirteen images; the first class is known in all, the second in none, the third in some."""
    labels = clients[2].labels.clone()
    labels[:, 1] = labels[::2, 2] = UNKNOWN
    return replace(clients[2], labels=labels)


def update(
    features: FeatureSet, method: Toy | None = None, *, balance: Balance | None = None, **options: Any
) -> Update:
    method = method or toy()
    shared, personal = method.split(get_state(method))
    return local_update(
        method,
        shared,
        features,
        personal=personal,
        client=CLIENT,
        round_index=ROUND,
        seed=SEED,
        learning_rate=RATE,
        training=replace(TRAINING, **options),
        balance=balance,
    ).update


def by_hand(
    features: FeatureSet,
    *,
    threshold: float = 0.0,
    weight: float = 0.0,
    balance: Balance | None = None,
    start: State | None = None,
) -> tuple[dict[str, Tensor], float]:
    """The state after SGD, and the mean loss of the labels."""
    start = get_state(toy()) if start is None else start
    pooled = torch.from_numpy(features.store.pooled)
    servers = (pooled @ start["weight"].T + start["offset"]).sigmoid()
    labels = features.labels.clone()
    for image in range(len(features)):
        for c in range(CLASSES):
            if labels[image, c] == UNKNOWN and threshold:
                if servers[image, c] >= threshold:
                    labels[image, c] = PRESENT
                elif servers[image, c] <= 1 - threshold:
                    labels[image, c] = ABSENT
    values = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    order, losses = generator(SEED, "shuffle", ROUND, CLIENT), []
    for _ in range(TRAINING.local_epochs):
        for rows in torch.randperm(len(features), generator=order).split(TRAINING.batch_size):
            found = (pooled[rows] @ values["weight"].T + values["offset"]).sigmoid()
            weights = balance.weights(labels[rows]) if balance else None
            loss = asymmetric_loss(found, labels[rows], weights)
            losses += [loss.item()] * len(rows)
            away = sum(
                (found[place, c] - servers[row, c]) ** 2
                for place, row in enumerate(rows.tolist())
                for c in range(CLASSES)
                if labels[row, c] == UNKNOWN
            )
            gradients = torch.autograd.grad(loss + weight * away / len(rows), list(values.values()))
            for value, gradient in zip(values.values(), gradients, strict=True):
                value.data -= RATE * gradient
    return {name: value.detach() for name, value in values.items()}, sum(losses) / len(losses)


@pytest.mark.parametrize(("threshold", "weight"), [(0.0, 4.0), (0.7, 0.0), (0.7, 4.0)])
def test_equals_sgd_by_hand(client: FeatureSet, threshold: float, weight: float) -> None:
    expected, loss = by_hand(client, threshold=threshold, weight=weight)
    found = update(client, pseudo_labels=threshold, global_consistency=weight)
    torch.testing.assert_close(dict(found.state), expected, atol=1e-6, rtol=1e-5)
    assert found.loss == pytest.approx(loss, rel=1e-5), "the loss of the labels alone"
    plain, _ = by_hand(client)
    assert (expected["weight"] - plain["weight"]).abs().max() > 1e-3


def test_pseudo_labels_are_weighed_as_others_are(client: FeatureSet) -> None:
    labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]], dtype=torch.int8).repeat_interleave(
        torch.tensor([30, 40, 10, 20]), 0
    )
    balance = Balance.of(count_labels(labels))
    expected, _ = by_hand(client, threshold=0.7, balance=balance)
    found = update(client, pseudo_labels=0.7, balance=balance)
    torch.testing.assert_close(dict(found.state), expected, atol=1e-6, rtol=1e-5)


def test_the_servers_model_has_the_clients_own_tensors(client: FeatureSet) -> None:
    method = toy(personal=True)
    method.offset.data += torch.tensor([0.5, -1.0, 2.0])
    start = get_state(method)
    expected, _ = by_hand(client, threshold=0.7, weight=4.0, start=start)
    found = update(client, method, pseudo_labels=0.7, global_consistency=4.0)
    torch.testing.assert_close(found.state["weight"], expected["weight"], atol=1e-6, rtol=1e-5)


def test_pseudo_labels_wait_for_their_round(client: FeatureSet) -> None:
    plain = update(client)
    early = update(client, pseudo_labels=0.7, pseudo_labels_after=ROUND)
    late = update(client, pseudo_labels=0.7, pseudo_labels_after=ROUND - 1)
    assert torch.equal(early.state["weight"], plain.state["weight"])
    assert not torch.equal(late.state["weight"], plain.state["weight"])


def test_where_all_labels_are_known_nothing_changes(clients: list[FeatureSet]) -> None:
    method, plain = toy(), update(clients[2])
    found = update(clients[2], method, pseudo_labels=0.6, global_consistency=9.0)
    assert all(torch.equal(found.state[name], plain.state[name]) for name in plain.state)
    assert len(method.seen) == 8, "the server's model is not even asked"
