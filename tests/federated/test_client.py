"""A client's local training, against SGD written out by hand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
import torch
from synthetic import feature_set
from torch import Tensor
from toy_method import CLASSES, WIDTH, Toy, toy

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.data.features.store import FeatureSet
from fedmpt.federated.balance import Balance
from fedmpt.federated.client import LocalResult, LocalTraining, local_update
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.seeding import generator
from fedmpt.state import get_state
from fedmpt.types import InputError, State

TRAINING = LocalTraining(batch_size=4, momentum=0.9, weight_decay=0.01)


def update(method: Toy, features: FeatureSet, state: State | None = None, **changed: Any) -> LocalResult:
    """A local update of client 2 in round 5 from ``state``, or from where the method stands."""
    shared, personal = method.split(get_state(method))
    arguments: dict[str, Any] = {
        "personal": personal,
        "client": 2,
        "round_index": 5,
        "seed": 1,
        "learning_rate": 0.1,
        "training": TRAINING,
    }
    return local_update(method, shared if state is None else state, features, **arguments | changed)


def order_seen(method: Toy, features: FeatureSet, **changed: Any) -> list[int]:
    """The images of `features` in the order in which training took them."""
    method.seen.clear()
    update(method, features, **changed)
    pooled = torch.from_numpy(features.store.pooled)
    return [int((pooled == row).all(1).nonzero()) for batch in method.seen for row in batch]


def plain_sgd(
    start: State,
    features: FeatureSet,
    *,
    learning_rate: float,
    epochs: int,
    proximal: float = 0.0,
    balance: Balance | None = None,
    held: Collection[str] = ("weight", "offset"),
) -> tuple[dict[str, Tensor], float]:
    """SGD with momentum and weight decay as in Sutskever et al. 2013 and torch's documentation; and the mean loss."""
    values = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    speed = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    order, losses = generator(1, "shuffle", 5, 2), []
    for _ in range(epochs):
        for rows in torch.randperm(len(features), generator=order).split(TRAINING.batch_size):
            batch = features.batch(rows)
            found = (batch.pooled @ values["weight"].T + values["offset"]).sigmoid()
            loss = asymmetric_loss(found, batch.labels, balance.weights(batch.labels) if balance else None)
            losses += [loss.item()] * len(rows)
            away = sum((value - start[name]).square().sum() for name, value in values.items() if name in held)
            gradients = torch.autograd.grad(loss + proximal / 2 * away, list(values.values()))
            for (name, value), gradient in zip(values.items(), gradients, strict=True):
                speed[name] = TRAINING.momentum * speed[name] + gradient + TRAINING.weight_decay * value.detach()
                value.data -= learning_rate * speed[name]
    return {name: value.detach() for name, value in values.items()}, sum(losses) / len(losses)


@pytest.mark.parametrize("epochs", [1, 3])
def test_equals_sgd_by_hand(clients: list[FeatureSet], epochs: int) -> None:
    method = toy()
    expected, loss = plain_sgd(get_state(method), clients[1], learning_rate=0.1, epochs=epochs)
    found = update(method, clients[1], training=replace(TRAINING, local_epochs=epochs)).update
    torch.testing.assert_close(dict(found.state), expected, atol=1e-6, rtol=1e-5)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.num_examples == 10
    assert found.client == 2


def test_balanced_labels_are_weighed_batch_by_batch(clients: list[FeatureSet]) -> None:
    labels = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1]], dtype=torch.int8).repeat_interleave(
        torch.tensor([30, 40, 10, 20]), 0
    )
    method, balance = toy(), Balance.of(count_labels(labels))
    expected, loss = plain_sgd(get_state(method), clients[1], learning_rate=0.1, epochs=2, balance=balance)
    usual, _ = plain_sgd(get_state(method), clients[1], learning_rate=0.1, epochs=2)
    found = update(method, clients[1], training=replace(TRAINING, local_epochs=2), balance=balance).update
    torch.testing.assert_close(dict(found.state), expected, atol=1e-6, rtol=1e-5)
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert (expected["weight"] - usual["weight"]).abs().max() > 1e-3


@pytest.mark.parametrize("proximal", [0.3, 5.0])
def test_fedprox_adds_half_mu_times_the_squared_distance_to_the_server(
    clients: list[FeatureSet], proximal: float
) -> None:
    method, start = toy(), get_state(toy(seed=4))
    expected, loss = plain_sgd(start, clients[1], learning_rate=0.1, epochs=2, proximal=proximal)
    options = replace(TRAINING, local_epochs=2, proximal=proximal)
    found = update(method, clients[1], start, training=options).update
    torch.testing.assert_close(dict(found.state), expected, atol=1e-6, rtol=1e-5)
    assert found.loss == pytest.approx(loss, rel=1e-5), "the loss of the images alone"
    free, _ = plain_sgd(start, clients[1], learning_rate=0.1, epochs=2)
    assert (found.state["weight"] - start["weight"]).norm() < (free["weight"] - start["weight"]).norm()


def test_fedprox_leaves_personal_tensors_and_running_statistics_free(clients: list[FeatureSet]) -> None:
    method = toy(personal=True)
    state, _ = method.split(get_state(method))
    mine = {"offset": torch.full((CLASSES,), 2.0)}
    expected, _ = plain_sgd({**state, **mine}, clients[1], learning_rate=0.1, epochs=1, proximal=5.0, held=("weight",))
    method.register_buffer("running", torch.zeros(()))
    state = {**state, "running": torch.ones(())}
    found = update(method, clients[1], state, personal=mine, training=replace(TRAINING, proximal=5.0))
    torch.testing.assert_close({**found.update.state, **found.personal}, {**expected, "running": torch.ones(())})


class Partial(Toy):
    """A parameter of the state that the loss does not reach."""

    def loss(self, batch: Any, text: Tensor | None = None) -> Tensor:
        return (batch.pooled @ self.weight.T).square().mean()


def test_fedprox_and_a_parameter_without_gradient(clients: list[FeatureSet]) -> None:
    method = Partial(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator().manual_seed(0))
    found = update(method, clients[0], training=replace(TRAINING, proximal=1.0)).update
    assert torch.equal(found.state["offset"], torch.zeros(CLASSES))


class Timed(Toy):
    """Notes what it is told of rounds, and whether training had begun."""

    def start_round(self, round_index: int) -> None:
        self.told = [*getattr(self, "told", []), (round_index, len(self.seen), self.training)]


def test_a_method_is_told_the_round_before_its_training(clients: list[FeatureSet]) -> None:
    method = Timed(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator().manual_seed(0))
    update(method, clients[0], round_index=1)
    steps = len(method.seen)
    update(method, clients[0], round_index=8)
    assert method.told == [(1, 0, True), (8, steps, True)]


class Drawing(Toy):
    """Notes a number that it draws in each step."""

    def loss(self, batch: Any, text: Tensor | None = None) -> Tensor:
        self.drawn = [*getattr(self, "drawn", []), torch.rand((), generator=self.draws).item()]
        return super().loss(batch, text)


def test_what_a_method_draws_in_training_depends_on_seed_round_and_client_alone(clients: list[FeatureSet]) -> None:
    def drawn(**changed: Any) -> list[float]:
        method = Drawing(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator().manual_seed(0))
        update(method, clients[0], round_index=1)
        start = len(method.drawn)
        update(method, clients[0], **changed)
        return method.drawn[start:]

    first = drawn()
    assert len(set(first)) == len(first) > 1
    assert drawn() == first
    for changed in ({"seed": 2}, {"round_index": 6}, {"client": 3}):
        assert not set(drawn(**changed)) & set(first)


def test_momentum_is_fresh_in_every_round(clients: list[FeatureSet]) -> None:
    method = toy()
    start = get_state(method)
    first = update(method, clients[0], start).update
    second = update(method, clients[0], start).update
    assert all(torch.equal(first.state[name], second.state[name]) for name in start)


def test_what_the_module_held_before_does_not_matter(clients: list[FeatureSet]) -> None:
    state, _ = toy(personal=True).split(get_state(toy()))
    personal = {"offset": torch.ones(CLASSES)}
    results = [update(toy(personal=True, seed=seed), clients[0], state, personal=personal) for seed in (3, 4)]
    assert torch.equal(results[0].update.state["weight"], results[1].update.state["weight"])
    assert torch.equal(results[0].personal["offset"], results[1].personal["offset"])


def test_the_servers_state_is_not_written_to(clients: list[FeatureSet]) -> None:
    method = toy(personal=True)
    state, personal = method.split(get_state(method))
    kept = {name: tensor.clone() for name, tensor in (state | personal).items()}
    result = update(method, clients[0], state, personal=personal)
    assert all(torch.equal((state | personal)[name], kept[name]) for name in kept)
    assert not torch.equal(result.update.state["weight"], kept["weight"])
    method.weight.data += 1  # Nor does what is sent change when the module goes on to the next client.
    assert not torch.equal(result.update.state["weight"], method.weight)


def test_personal_tensors_are_used_and_stay(clients: list[FeatureSet]) -> None:
    method = toy(personal=True)
    state, _ = method.split(get_state(method))
    low, high = (update(method, clients[0], state, personal={"offset": torch.full((3,), v)}) for v in (-9.0, 9.0))
    for result in (low, high):
        assert result.update.state.keys() == {"weight"}
        assert result.personal.keys() == {"offset"}
    assert low.personal["offset"].max() < 0 < high.personal["offset"].min()
    assert not torch.equal(low.update.state["weight"], high.update.state["weight"])


def test_every_image_is_seen_once_an_epoch(clients: list[FeatureSet]) -> None:
    seen = order_seen(toy(), clients[2], training=replace(TRAINING, local_epochs=2))
    assert sorted(seen[:13]) == sorted(seen[13:]) == list(range(13))
    assert seen[:13] != seen[13:]
    assert seen[:13] != list(range(13))


def test_order_depends_on_seed_round_and_client_alone(clients: list[FeatureSet]) -> None:
    features = clients[2]
    order = order_seen(toy(), features)
    torch.manual_seed(123)
    assert order_seen(toy(seed=8), features, learning_rate=0.5) == order
    for other in ({"seed": 2}, {"round_index": 6}, {"client": 3}):
        assert order_seen(toy(), features, **other) != order


@pytest.mark.parametrize("learning_rate", [1e38, float("nan")])
def test_a_loss_that_is_not_finite_names_client_and_round(clients: list[FeatureSet], learning_rate: float) -> None:
    with pytest.raises(InputError, match="client 2, round 5: the loss is nan; try a lower learning rate"):
        update(toy(), clients[0], learning_rate=learning_rate, training=replace(TRAINING, local_epochs=4))


class Bottomless(Toy):
    """A loss that a comparison with infinity does not catch."""

    def loss(self, batch: Any, text: Tensor | None = None) -> Tensor:
        return -self(batch, text).sum() / 0


def test_a_loss_of_minus_infinity_is_not_finite_either(clients: list[FeatureSet]) -> None:
    method = Bottomless(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())
    with pytest.raises(InputError, match="client 2, round 5: the loss is -inf"):
        update(method, clients[0])


def test_personal_tensors_that_are_not_finite_are_noticed_though_nobody_else_sees_them(
    clients: list[FeatureSet],
) -> None:
    one_step = replace(TRAINING, batch_size=64)  # So that no loss is computed with what the step leads to.
    with pytest.raises(InputError, match="client 2, round 5, personal: tensor 'offset' has 3 values that are not fin"):
        update(toy(personal=True), clients[0], learning_rate=float("inf"), training=one_step)


def test_a_client_without_images(clients: list[FeatureSet]) -> None:
    empty = clients[0].subset(torch.arange(0))
    with pytest.raises(InputError, match="client 2 has no images; leave it out or give it some"):
        update(toy(), empty)


def test_one_image_is_enough(clients: list[FeatureSet]) -> None:
    assert update(toy(), clients[0].subset(torch.tensor([3]))).update.num_examples == 1


def test_a_state_that_does_not_fit_names_the_client(clients: list[FeatureSet]) -> None:
    method = toy(personal=True)
    with pytest.raises(InputError, match="state for client 2: tensor 'weight' is missing"):
        update(method, clients[0], {})
    with pytest.raises(InputError, match=r"state for client 2: tensor 'offset' has shape \(7,\), expected \(3,\)"):
        update(method, clients[0], personal={"offset": torch.zeros(7)})


class WithRates(Toy):
    def learning_rate_factors(self) -> dict[str, float]:
        return {"off": 0.0}


def test_learning_rate_factors(clients: list[FeatureSet]) -> None:
    method = WithRates(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator().manual_seed(0))
    before = get_state(method)
    after = update(method, clients[0], training=replace(TRAINING, weight_decay=0.0)).update.state
    plain = update(toy(), clients[0], before, training=replace(TRAINING, weight_decay=0.0)).update.state
    assert torch.equal(after["offset"], before["offset"])
    assert not torch.equal(plain["offset"], before["offset"])
    assert not torch.equal(after["weight"], before["weight"])


def test_images_without_known_labels_leave_the_state(clients: list[FeatureSet]) -> None:
    patches = torch.from_numpy(clients[0].store.patches)
    unlabelled = feature_set(patches, torch.full((len(patches), CLASSES), -1))
    method = toy()
    before = get_state(method)
    result = update(method, unlabelled, training=replace(TRAINING, weight_decay=0.0)).update
    assert result.loss == 0
    assert all(torch.equal(result.state[name], before[name]) for name in before)
