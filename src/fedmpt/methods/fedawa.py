"""FedAWA (Shi et al. 2025): PromptFL on the clients; the server learns how much each of them counts.

Let w be the server's parameters, w_k a client's after its training, D_k = w_k - w, and p = softmax(theta) over the
clients of a round. The server takes one step of Adam on theta against

    sum_k p_k ||D_k - sum_j p_j D_j||  +  sum_k p_k (1 - cos(w_g, w_k)),     w_g = sum_j p_j w_j,

and goes on from sum_k p_k w_k. Clients that pull away from what most agree on come to count less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.promptfl import PromptFL, PromptFLConfig
from fedmpt.state import Update, Weighting
from fedmpt.types import Backbone, State, check_options

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's own (Kingma and Ba 2015)."""
SLOTS = ("theta", "first_moment", "second_moment", "steps")
"""What the server remembers of each client: theta_k, and the state of Adam for it."""


class FedAWA(PromptFL):
    """State: as PromptFL's. The server's memory has a row for every client that has taken part, see `SLOTS`."""

    weighting: Weighting = "data"

    def __init__(
        self, config: FedAWAConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        check_options(config, "(0, inf)", "weights_rate")
        super().__init__(config, backbone, class_names, generator=generator)
        self.weights_rate = config.weights_rate

    def aggregate(
        self, previous: State, updates: Iterable[Update], *, weighting: Weighting, memory: State
    ) -> tuple[State, State]:
        """The mean with learned weights, after one step on them. Holds all updates of the round."""
        cohort = list(updates)
        if not cohort:
            raise ValueError("nothing to average: no update")
        known = _rows_by_client(memory)
        rows = torch.stack([known.get(update.client, _first_row(update, weighting)) for update in cohort])
        theta = rows[:, 0].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(alignment_loss(theta, _vectors(cohort)), theta)
        rows = adam_step(rows, gradient, learning_rate=self.weights_rate)
        state = _weighted_mean(cohort, rows[:, 0].softmax(0))
        return state, _memory(known | {update.client: row for update, row in zip(cohort, rows, strict=True)})


@dataclass(frozen=True)
class FedAWAConfig(PromptFLConfig):
    """PromptFL, with clients' weights in the mean that the server learns."""

    name: ClassVar[str] = "fedawa"
    summary: ClassVar[str] = "PromptFL whose server learns how much each client counts in the mean"
    source: ClassVar[str] = "Shi et al. 2025 (FedAWA); Guo et al. 2023 (PromptFL)"
    method: ClassVar = FedAWA

    num_context: int = 4
    """Learnable tokens before the class name."""
    weights_rate: float = 1e-3
    """Learning rate of Adam for the clients' weights."""


def alignment_loss(theta: Float[Tensor, " K"], clients: Float[Tensor, "K P"]) -> Float[Tensor, ""]:
    """What the clients' weights minimise; ``clients`` are their parameters, a row each."""
    weights = theta.softmax(0)
    mean = weights @ clients
    # D_k - sum_j p_j D_j is w_k - w_g, since weights sum to one: the server's parameters drop out.
    distance = torch.linalg.vector_norm(clients - mean, dim=1)
    return (weights * (distance + 1 - F.cosine_similarity(clients, mean[None], dim=1))).sum()


def adam_step(
    rows: Float[Tensor, "K 4"], gradient: Float[Tensor, " K"], *, learning_rate: float
) -> Float[Tensor, "K 4"]:
    """Rows of `SLOTS` after a step of Adam. Each client has its own count of steps."""
    # Paper has all clients in every round. Where only some take part, the others' rows wait, moments and all.
    theta, first, second, steps = rows.unbind(1)
    steps = steps + 1
    first = BETA1 * first + (1 - BETA1) * gradient
    second = BETA2 * second + (1 - BETA2) * gradient.square()
    direction = (first / (1 - BETA1**steps)) / ((second / (1 - BETA2**steps)).sqrt() + EPSILON)
    return torch.stack([theta - learning_rate * direction, first, second, steps], dim=1)


def _first_row(update: Update, weighting: Weighting) -> Float[Tensor, " 4"]:
    """Of a client that has not taken part before."""
    # Paper starts from the shares of the data; the log of a client's number of images gives them in any cohort.
    theta = math.log(update.num_examples) if weighting == "data" else 0.0
    return torch.tensor([theta, 0.0, 0.0, 0.0], dtype=torch.float64)


def _vectors(cohort: Sequence[Update]) -> Float[Tensor, "K P"]:
    # Paper speaks of a model's parameters: here all that travels, the context and the head's two numbers, as one.
    names = sorted(cohort[0].state)
    return torch.stack([torch.cat([update.state[name].double().flatten() for name in names]) for update in cohort])


def _weighted_mean(cohort: Sequence[Update], weights: Float[Tensor, " K"]) -> dict[str, Tensor]:
    found = {}
    for name, like in cohort[0].state.items():
        values = torch.stack([update.state[name] for update in cohort]).double()
        found[name] = torch.tensordot(weights, values, 1).to(like.dtype)
    return found


def _rows_by_client(memory: State) -> dict[int, Tensor]:
    if not memory:
        return {}
    table = torch.stack([memory[slot] for slot in SLOTS], dim=1)
    return dict(zip(memory["clients"].tolist(), table, strict=True))


def _memory(rows: Mapping[int, Tensor]) -> dict[str, Tensor]:
    clients = sorted(rows)
    table = torch.stack([rows[client] for client in clients])
    # Copies, since tensors that share their memory cannot be stored.
    columns = {slot: table[:, column].clone() for column, slot in enumerate(SLOTS)}
    return {"clients": torch.tensor(clients), **columns}
