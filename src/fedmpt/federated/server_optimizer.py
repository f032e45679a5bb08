"""Optimisers on the server: the mean change of a round serves as a gradient, along which the server steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from fedmpt.federated.aggregation import Aggregation
from fedmpt.types import State

Kept = Mapping[str, Tensor]
"""What an optimiser keeps of one parameter from round to round, by its own names; empty before the first round."""
Rule = Callable[[Tensor, Kept, Aggregation], tuple[Tensor, Kept]]


def server_step(
    previous: State, averaged: State, memory: State, *, parameters: Sequence[str], aggregation: Aggregation
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The next state and memory. Only ``parameters`` are stepped; all else is taken as it was averaged.

    Computed in double precision, kept in the parameters' own. ``memory`` has names such as ``velocity/NAME``.
    """
    rule = RULES[aggregation.server]
    by_parameter: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for key, tensor in memory.items():
        slot, name = key.split("/", 1)
        by_parameter[name][slot] = tensor.double()
    state, remembered = dict(averaged), {}
    for name, kept in by_parameter.items():
        before = previous[name].double()
        direction, kept_now = rule(averaged[name].double() - before, kept, aggregation)
        state[name] = (before + aggregation.step * direction).to(previous[name].dtype)
        remembered.update({f"{slot}/{name}": tensor.to(previous[name].dtype) for slot, tensor in kept_now.items()})
    return state, remembered


def _momentum(change: Tensor, kept: Kept, options: Aggregation) -> tuple[Tensor, Kept]:
    """FedAvgM (Hsu et al. 2019)."""
    velocity = options.server_momentum * kept.get("velocity", 0.0) + change
    return velocity, {"velocity": velocity}


def _adam(change: Tensor, kept: Kept, options: Aggregation) -> tuple[Tensor, Kept]:
    """FedAdam (Reddi et al. 2021, algorithm 2), which does not correct the moments' bias."""
    beta1, beta2, tau = options.server_beta1, options.server_beta2, options.server_tau
    first = beta1 * kept.get("first_moment", 0.0) + (1 - beta1) * change
    # Paper starts from any value of at least tau^2; this is the least.
    second = beta2 * kept.get("second_moment", tau**2) + (1 - beta2) * change.square()
    return first / (second.sqrt() + tau), {"first_moment": first, "second_moment": second}


RULES: Mapping[str, Rule] = {"momentum": _momentum, "adam": _adam}
"""By the name that ``--server`` takes."""
