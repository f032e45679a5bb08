"""What the server does with updates: by hand, and with updates it must not trust."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from toy_method import CLASSES, WIDTH, Toy, toy

from fedmpt.federated.aggregate import aggregate, check_fits
from fedmpt.federated.aggregation import Aggregation
from fedmpt.state import Update, Weighting, get_state
from fedmpt.types import InputError, State


def update(client: int, value: float, num_examples: int = 1) -> Update:
    state = {"weight": torch.full((CLASSES, WIDTH), value), "offset": torch.full((CLASSES,), -value)}
    return Update(client=client, state=state, num_examples=num_examples, loss=0.0)


def aggregated(updates: Iterable[Update], weighting: Weighting = "uniform") -> State:
    method = toy()
    state, memory = aggregate(method, get_state(method), updates, weighting=weighting)
    assert memory == {}
    return state


@pytest.mark.parametrize(("weighting", "expected"), [("uniform", 4.0), ("data", (1 * 1 + 30 * 2 + 9 * 9) / 40)])
def test_mean_by_hand(weighting: Weighting, expected: float) -> None:
    found = aggregated([update(0, 1.0, 1), update(4, 2.0, 30), update(7, 9.0, 9)], weighting)
    torch.testing.assert_close(dict(found), dict(update(0, expected).state))


@pytest.mark.parametrize("order", [[3, 1], [1, 1]])
def test_updates_come_in_the_order_of_clients(order: list[int]) -> None:
    message = f"client {order[1]} came after client {order[0]}; sort updates by client"
    with pytest.raises(ValueError, match=message):
        aggregated(update(client, 1.0) for client in order)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("weight", torch.full((CLASSES, WIDTH), float("nan")), "client 5: tensor 'weight' has 15 values that are not"),
        ("offset", torch.full((CLASSES,), float("inf")), "client 5: tensor 'offset' has 3 values that are not finite"),
        ("weight", torch.zeros(CLASSES, WIDTH + 1), r"client 5: tensor 'weight' has shape \(3, 6\), expected \(3, 5\)"),
        ("offset", None, "client 5: tensor 'offset' is missing"),
        ("poison", torch.zeros(1), "client 5: unknown tensor 'poison'"),
    ],
)
def test_a_bad_update_names_client_and_tensor(name: str, tensor: torch.Tensor | None, message: str) -> None:
    state = {**update(5, 1.0).state, name: tensor}
    bad = replace(update(5, 1.0), state={name: tensor for name, tensor in state.items() if tensor is not None})
    with pytest.raises(InputError, match=message):
        aggregated([update(0, 1.0), bad, update(6, 1.0)])


@pytest.mark.parametrize("num_examples", [0, -3])
@pytest.mark.parametrize("weighting", ["uniform", "data"])
def test_an_update_without_images_is_refused(num_examples: int, weighting: Weighting) -> None:
    """With a negative count, a client could turn the weighted mean against the others."""
    with pytest.raises(InputError, match=f"client 1 says it has {num_examples} images"):
        aggregated([update(0, 1.0, 10), update(1, 5.0, num_examples)], weighting)


def test_no_update() -> None:
    with pytest.raises(ValueError, match="nothing to average"):
        aggregated([])


def test_updates_are_taken_one_at_a_time() -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def arriving(number: int) -> Iterator[Update]:
        nonlocal most
        for client in range(number):
            # While this one is made, the one before may still be held, and no other.
            most = max(most, sum(1 for _ in alive.data))
            made = update(client, 1.0)
            alive.add(made.state["weight"])
            yield made
            del made

    aggregated(arriving(50))
    assert 0 < most <= 1


class Keeper(Toy):
    """A method with a rule of its own: the last client wins over what was."""

    def aggregate(
        self, previous: State, updates: Iterable[Update], *, weighting: Weighting, memory: State
    ) -> tuple[State, State]:
        *_, last = updates
        rounds = memory.get("rounds", torch.zeros(())) + 1
        return {name: (tensor + last.state[name]) / 2 for name, tensor in previous.items()}, {"rounds": rounds}


def keeper() -> Keeper:
    return Keeper(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())


def test_a_method_may_average_as_it_likes_but_what_comes_in_is_checked() -> None:
    previous = update(0, 1.0).state
    found, _ = aggregate(keeper(), previous, [update(0, 7.0), update(1, 3.0)])
    torch.testing.assert_close(dict(found), dict(update(0, 2.0).state))
    with pytest.raises(InputError, match="client 1"):
        aggregate(keeper(), previous, [update(1, float("nan"))])


def test_a_method_and_the_servers_optimiser_remember_apart() -> None:
    state, memory = update(0, 1.0).state, None
    for _ in range(3):
        state, memory = aggregate(
            keeper(), state, [update(0, 3.0)], aggregation=Aggregation(server="momentum"), memory=memory
        )
    assert memory.keys() == {"method/rounds", "server/velocity/weight", "server/velocity/offset"}
    assert memory["method/rounds"] == 3
    # Values by hand: to the middle between here and 3, with nine tenths of the velocity before.
    here, velocity = 1.0, 0.0
    for _ in range(3):
        velocity = 0.9 * velocity + (here + 3) / 2 - here
        here += velocity
    torch.testing.assert_close(dict(state), dict(update(0, here).state))


def test_a_method_with_a_mean_of_its_own_and_a_robust_rule_are_refused_together() -> None:
    with pytest.raises(InputError, match=r"Keeper has an aggregation of its own.*leave --aggregator out"):
        check_fits(keeper(), Aggregation(aggregator="median"), cohort_size=10)
    check_fits(keeper(), Aggregation(clip_norm=1.0, server="adam"), cohort_size=1)
    check_fits(toy(), Aggregation(aggregator="median"), cohort_size=3)


class OwnWeighting(Toy):
    weighting = "data"


def test_the_methods_own_weighting_holds_unless_another_is_given() -> None:
    method = OwnWeighting(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())
    updates = [update(0, 1.0, 1), update(1, 5.0, 3)]
    for given, expected in ((None, 4.0), ("data", 4.0), ("uniform", 3.0)):
        state, _ = aggregate(method, get_state(method), updates, weighting=given)
        torch.testing.assert_close(dict(state), dict(update(0, expected).state))


class WithBuffer(Toy):
    """As a method with batch normalisation: running statistics are of the state, but not trained."""

    def __init__(self) -> None:
        super().__init__(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))


def with_buffer(client: int, value: float, running: float = 0.0) -> Update:
    plain = update(client, value)
    buffers = {"running": torch.full((2,), running), "batches": torch.tensor(int(running))}
    return replace(plain, state={**plain.state, **buffers})


def test_a_long_change_is_cut_to_the_norm_and_a_short_one_is_left() -> None:
    previous = with_buffer(0, 1.0).state
    one_client = [with_buffer(0, 3.0, running=1e6)]
    # 18 values that change by 2 each: a change of length sqrt(72).
    for norm, expected in ((72**0.5 / 4, 1.5), (72**0.5 + 1e-9, 3.0), (1e9, 3.0)):
        state, _ = aggregate(WithBuffer(), previous, one_client, aggregation=Aggregation(clip_norm=norm))
        torch.testing.assert_close(dict(state), dict(with_buffer(0, expected, running=1e6).state))
        if expected == 3.0:
            assert torch.equal(state["weight"], one_client[0].state["weight"])


def test_each_client_is_cut_by_itself() -> None:
    updates = [with_buffer(0, 1000.0), with_buffer(1, -1.0), with_buffer(2, 0.5)]
    state, _ = aggregate(WithBuffer(), with_buffer(0, 0.0).state, updates, aggregation=Aggregation(clip_norm=18**0.5))
    torch.testing.assert_close(dict(state), dict(with_buffer(0, (1 - 1 + 0.5) / 3).state))


@pytest.mark.parametrize("server", ["momentum", "adam"])
def test_the_servers_optimiser_leaves_running_statistics_alone(server: Literal["momentum", "adam"]) -> None:
    updates = [with_buffer(0, 1.0, running=2.0), with_buffer(1, 1.0, running=4.0)]
    options = Aggregation(server=server, server_learning_rate=0.5)
    state, memory = aggregate(WithBuffer(), with_buffer(0, 0.0).state, updates, aggregation=options)
    assert state["running"].tolist() == [3.0, 3.0]
    assert state["batches"] == 3
    assert not any("running" in name or "batches" in name for name in memory)
    assert not torch.equal(state["weight"], updates[0].state["weight"])


def test_krum_looks_at_parameters_only() -> None:
    """Client 4's parameters are the odd ones, client 0's running statistics are."""
    values = {0: (1.0, 1e6), 1: (1.1, 0.0), 2: (0.9, 0.0), 3: (1.3, 0.0), 4: (9.0, 0.0)}
    updates = [with_buffer(client, value, running) for client, (value, running) in values.items()]
    state, _ = aggregate(WithBuffer(), updates[0].state, updates, aggregation=Aggregation(aggregator="krum"))
    assert state["weight"][0, 0] == 1.0
    assert state["running"][0] == 1e6


@pytest.mark.parametrize("aggregator", ["trimmed-mean", "median", "krum"])
def test_robust_rules_go_through_the_same_door(aggregator: Any) -> None:
    good = [update(client, 1.0 + client / 10, num_examples=1) for client in range(4)]
    options = Aggregation(aggregator=aggregator, trim=0.2) if aggregator == "trimmed-mean" else None
    options = options or Aggregation(aggregator=aggregator)
    state, memory = aggregate(toy(), update(0, 0.0).state, [*good, update(4, 1e6, 10**6)], aggregation=options)
    assert memory == {}
    assert 1.0 <= state["weight"].min() <= state["weight"].max() <= 1.3
    with pytest.raises(InputError, match="client 4: tensor 'weight' has 15 values that are not finite"):
        aggregate(toy(), update(0, 0.0).state, [*good, update(4, float("nan"))], aggregation=options)
    with pytest.raises(InputError, match=r"needs at least \d clients in a round, there are 2"):
        aggregate(toy(), update(0, 0.0).state, good[:2], aggregation=options)


def test_clipping_takes_updates_one_at_a_time_too() -> None:
    held: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()

    def arriving() -> Iterator[Update]:
        for client in range(20):
            assert sum(1 for _ in held.data) <= 1
            made = update(client, 5.0)
            held.add(made.state["weight"])
            yield made
            del made

    aggregate(toy(), update(0, 0.0).state, arriving(), aggregation=Aggregation(clip_norm=0.1, server="adam"))
