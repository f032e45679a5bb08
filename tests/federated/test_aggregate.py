"""What the server does with updates: by hand, and with updates it must not trust."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
import torch
from toy_method import CLASSES, WIDTH, Toy, toy

from fedmpt.federated.aggregate import aggregate
from fedmpt.state import Update, Weighting, get_state
from fedmpt.types import InputError, State


def update(client: int, value: float, num_examples: int = 1) -> Update:
    state = {"weight": torch.full((CLASSES, WIDTH), value), "offset": torch.full((CLASSES,), -value)}
    return Update(client=client, state=state, num_examples=num_examples, loss=0.0)


def aggregated(updates: Iterable[Update], weighting: Weighting = "uniform") -> State:
    method = toy()
    return aggregate(method, get_state(method), updates, weighting=weighting)


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

    def aggregate(self, previous: State, updates: Iterable[Update], *, weighting: Weighting) -> State:
        *_, last = updates
        return {name: (tensor + last.state[name]) / 2 for name, tensor in previous.items()}


def test_a_method_may_average_as_it_likes_but_what_comes_in_is_checked() -> None:
    method = Keeper(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())
    previous = update(0, 1.0).state
    found = aggregate(method, previous, [update(0, 7.0), update(1, 3.0)], weighting="uniform")
    torch.testing.assert_close(dict(found), dict(update(0, 2.0).state))
    with pytest.raises(InputError, match="client 1"):
        aggregate(method, previous, [update(1, float("nan"))], weighting="uniform")
