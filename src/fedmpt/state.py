"""The state of a method: its trained tensors by name. The only thing that travels, is averaged and is stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fedmpt.types import DivergedError, InputError, State

Weighting = Literal["uniform", "data"]


@dataclass(frozen=True)
class Update:
    """What a client sends after its local training: its state, and its mean loss over ``num_examples`` images."""

    client: int
    state: State
    num_examples: int
    loss: float


def get_state(module: nn.Module) -> dict[str, Tensor]:
    """A detached copy of all trained tensors of a module, on the CPU wherever the module is."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def set_state(module: nn.Module, state: State, *, source: str = "state") -> None:
    """Overwrite a module's trained tensors in place, after `check_state`."""
    current = module.state_dict()
    check_state(state, like=current, source=source)
    with torch.no_grad():
        for name, tensor in current.items():
            tensor.copy_(state[name])


def check_state(state: State, *, like: State, source: str) -> None:
    """Names, shapes and finiteness of a state that came from elsewhere. Raises InputError naming ``source``, the tensor
    and what is wrong with it; DivergedError, which is one too, where values are not finite."""
    if missing := sorted(like.keys() - state.keys()):
        raise InputError(f"{source}: tensor {missing[0]!r} is missing ({len(missing)} in all); is it another method's?")
    if unknown := sorted(state.keys() - like.keys()):
        raise InputError(f"{source}: unknown tensor {unknown[0]!r} ({len(unknown)} in all); is it another method's?")
    for name, tensor in state.items():
        if tensor.shape != like[name].shape:
            raise InputError(
                f"{source}: tensor {name!r} has shape {tuple(tensor.shape)}, expected {tuple(like[name].shape)}; "
                "it comes from other options, classes or another backbone"
            )
        if tensor.dtype != like[name].dtype:
            raise InputError(f"{source}: tensor {name!r} is {tensor.dtype}, expected {like[name].dtype}; convert it")
        if not tensor.isfinite().all():
            raise DivergedError(
                f"{source}: tensor {name!r} has {int((~tensor.isfinite()).sum())} values that are not finite; "
                "a lower learning rate usually helps"
            )


def mix_states(trained: State, start: State, share: float) -> dict[str, Tensor]:
    """``share`` times the trained tensors plus the rest of where they started (WiSE-FT, Wortsman et al. 2022, eq. 1).

    ``share`` is in (0, 1]; 1 gives the trained tensors bit by bit. Running statistics are mixed too. Whole numbers,
    such as counters, have no mean and stay as trained. Both states have the same names and shapes.
    """
    return {
        name: start[name].double().lerp(tensor.double(), share).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in trained.items()
    }


def mean_state(updates: Iterable[Update], *, weighting: Weighting) -> dict[str, Tensor]:
    """Mean of the clients' states (FedAvg, McMahan et al. 2017), summed in double precision in the order given.

    ``uniform`` counts each client once, ``data`` by its number of images. Takes one update at a time: memory does not
    grow with their number.

    Raises:
        ValueError: if there is no update, or none has images.
    """
    total: dict[str, Tensor] = {}
    like: State = {}
    sum_of_weights = 0
    for update in updates:
        weight = 1 if weighting == "uniform" else update.num_examples
        sum_of_weights += weight
        like = update.state
        for name, tensor in update.state.items():
            term = tensor.double() * weight
            total[name] = total[name] + term if name in total else term
    if sum_of_weights == 0:
        raise ValueError("nothing to average: no update, or none with images")
    return {name: (tensor / sum_of_weights).to(like[name].dtype) for name, tensor in total.items()}


def num_parameters(state: State) -> int:
    return sum(tensor.numel() for tensor in state.values())


def num_bytes(state: State) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
