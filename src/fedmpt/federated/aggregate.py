"""The server's step of a round: the clients' updates become the next state.

In this order: check, clip, average (by the method or by a robust rule), noise, step of the server's optimiser. It knows
nothing of who calls it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from torch import Tensor

from fedmpt.federated import server_optimizer
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.privacy import EXACT, Privacy
from fedmpt.federated.protect import Noise, clipped, noised, parameters_of
from fedmpt.federated.robust import RULES
from fedmpt.methods import Method
from fedmpt.state import Update, Weighting, check_state
from fedmpt.types import DivergedError, InputError, State

MEAN = Aggregation()
METHOD, SERVER = "method/", "server/"
"""Whose a tensor of the server's memory is: the method's own aggregation's, or the server optimiser's."""


def aggregate(
    method: Method,
    previous: State,
    updates: Iterable[Update],
    *,
    weighting: Weighting | None = None,
    aggregation: Aggregation = MEAN,
    memory: State | None = None,
    privacy: Privacy = EXACT,
    noise: Noise | None = None,
) -> tuple[State, State]:
    """The next state, and what the server has to be given back as ``memory`` in the next round.

    ``updates`` come in the order of client numbers. The mean takes them one at a time, robust rules hold them all.
    ``weighting`` is the method's own unless given. Where the server adds the noise of ``privacy``, it is drawn from
    ``noise``; where clients do, their updates have it and are not clipped again.

    Raises:
        InputError: if an update has missing, unknown, misshapen or non-finite tensors, or no images, naming the
            client; if a robust rule meets too few clients or a method with an aggregation of its own; or if noise does
            not cover what the method sends.
        ValueError: if there is no update, or they are out of order.
    """
    memory = {} if memory is None else memory
    parameters = parameters_of(method, previous)
    clients: list[int] = []
    checked = _checked(updates, previous, clients)
    if aggregation.clip_norm is not None and not privacy.is_at_sites:
        norm = aggregation.clip_norm
        checked = (clipped(update, previous, parameters=parameters, norm=norm) for update in checked)
    if privacy.is_on:
        privacy.check(aggregation)
        privacy.check_fits(method, weighting)
    if aggregation.aggregator == "mean":
        weighting = weighting or method.weighting
        state, kept = method.aggregate(previous, checked, weighting=weighting, memory=_of(METHOD, memory))
    else:
        together = list(checked)
        check_fits(method, aggregation, cohort_size=len(together))
        state, kept = RULES[aggregation.aggregator](together, parameters, aggregation), {}
    if privacy.is_on and not privacy.is_at_sites:
        assert aggregation.clip_norm is not None, "see Privacy.check"
        assert noise is not None, "the server's noise needs a source"
        deviation = privacy.dp_noise * aggregation.clip_norm / len(clients)
        state = noised(state, parameters=parameters, deviation=deviation, noise=noise)
    remembered = _under(METHOD, kept)
    if aggregation.server != "none":
        state, kept = server_optimizer.server_step(
            previous, state, _of(SERVER, memory), parameters=parameters, aggregation=aggregation
        )
        remembered |= _under(SERVER, kept)
    return state, remembered


def check_fits(
    method: Method,
    aggregation: Aggregation,
    *,
    cohort_size: int,
    privacy: Privacy = EXACT,
    weighting: Weighting | None = None,
) -> None:
    """Raises InputError if the options of aggregation do not fit the method or the number of clients in a round."""
    privacy.check_fits(method, weighting)
    if aggregation.aggregator != "mean" and type(method).aggregate is not Method.aggregate:
        raise InputError(
            f"{type(method).__name__} has an aggregation of its own, which --aggregator {aggregation.aggregator} "
            "would replace; leave --aggregator out or choose another --method"
        )
    aggregation.check_cohort(cohort_size)


def _checked(updates: Iterable[Update], like: State, clients: list[int]) -> Iterator[Update]:
    """The updates as they come; ``clients`` becomes the list of whose they are."""
    last = -1
    for update in updates:
        if update.client <= last:
            raise ValueError(f"client {update.client} came after client {last}; sort updates by client")
        last = update.client
        if update.num_examples < 1:
            raise InputError(f"client {update.client} says it has {update.num_examples} images; leave it out")
        if not math.isfinite(update.loss):
            raise DivergedError(f"client {update.client} reports a loss of {update.loss}; try a lower learning rate")
        check_state(update.state, like=like, source=f"client {update.client}")
        clients.append(update.client)
        yield update


def _of(owner: str, memory: State) -> dict[str, Tensor]:
    return {name.removeprefix(owner): tensor for name, tensor in memory.items() if name.startswith(owner)}


def _under(owner: str, kept: State) -> dict[str, Tensor]:
    return {f"{owner}{name}": tensor for name, tensor in kept.items()}
