"""What the server does with a round's updates. It knows nothing of who calls it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from fedmpt.methods import Method
from fedmpt.state import Update, Weighting, check_state
from fedmpt.types import InputError, State


def aggregate(method: Method, previous: State, updates: Iterable[Update], *, weighting: Weighting) -> State:
    """The next state. ``updates`` come in the order of client numbers and are taken one at a time.

    Raises:
        InputError: if an update has missing, unknown, misshapen or non-finite tensors, or no images, naming the client.
        ValueError: if there is no update, or they are out of order.
    """
    return method.aggregate(previous, _checked(updates, previous), weighting=weighting)


def _checked(updates: Iterable[Update], like: State) -> Iterator[Update]:
    last = -1
    for update in updates:
        if update.client <= last:
            raise ValueError(f"client {update.client} came after client {last}; sort updates by client")
        last = update.client
        if update.num_examples < 1:
            raise InputError(f"client {update.client} says it has {update.num_examples} images; leave it out")
        if not math.isfinite(update.loss):
            raise InputError(f"client {update.client} reports a loss of {update.loss}; try a lower learning rate")
        check_state(update.state, like=like, source=f"client {update.client}")
        yield update
