"""Number formats of what travels between server and clients."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from fedmpt.state import Update
from fedmpt.types import InputError, State

Wire = Literal["float32", "float16"]


def as_sent(state: State, wire: Wire) -> State:
    """The server's state as it arrives at a client: in its own number formats, rounded where ``wire`` is shorter.

    Raises:
        InputError: if a value is too large for float16.
    """
    if wire == "float32":
        return state
    return {name: _rounded(tensor, name) for name, tensor in state.items()}


def changes(update: Update, received: State, wire: Wire) -> State:
    """What a client sends of an update: its state, or with float16 the change from what it ``received``.

    A change is far smaller than the state, so that rounding it loses far less.
    """
    if wire == "float32":
        return update.state
    return {
        name: (tensor - received[name]).half() if tensor.is_floating_point() else tensor
        for name, tensor in update.state.items()
    }


def restored(sent: State, received: State, wire: Wire) -> State:
    """The client's state, from `changes`. Names and shapes are checked before."""
    if wire == "float32":
        return sent
    return {
        name: received[name] + tensor.to(received[name].dtype) if tensor.is_floating_point() else tensor
        for name, tensor in sent.items()
    }


def through(update: Update, received: State, wire: Wire) -> Update:
    """An update of this process as it would be had it travelled."""
    return replace(update, state=restored(changes(update, received, wire), received, wire))


def from_exact(update: Update, received: State, exact: State, wire: Wire) -> Update:
    """The update as if the client had had the server's ``exact`` state, of which it ``received`` a shorter one.

    Without this, the server's state would be rounded in every round, and a change below half a step of float16 lost.
    """
    if wire == "float32":
        return update
    state = {
        name: (exact[name].double() + (tensor.double() - received[name].double())).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in update.state.items()
    }
    return replace(update, state=state)


def _rounded(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    short = tensor.half()
    if not short.isfinite().all():
        raise InputError(
            f"--wire float16: tensor {name!r} has values above {torch.finfo(torch.half).max:g}; leave it out"
        )
    return short.to(tensor.dtype)
