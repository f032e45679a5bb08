"""FedAWA (Shi et al. 2025): PromptFL on the clients; the server learns how much each of them counts.

Let w be the server's parameters, w_k a client's after its training, D_k = w_k - w, and p = softmax(theta) over the
clients of a round. The server goes on from sum_k p_k w_k. It then takes one step of Adam on theta against

    sum_k p_k ||D_k - sum_j p_j D_j||  +  sum_k p_k (1 - cos(w, w_k)),

which counts in the next round. Clients that pull away from what most agree on come to count less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.promptfl import PromptFL, PromptFLConfig
from fedmpt.state import Update, Weighting
from fedmpt.types import Backbone, State, check_options

BETAS = (0.5, 0.999)
"""Adam's, as published. It is new in every round, so that it moves each theta_k by the rate, up or down."""


class FedAWA(PromptFL):
    """State: as PromptFL's. The server's memory has theta of every client that has taken part."""

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
        """The mean with learned weights, and a step on them for the next round. Holds all updates of the round."""
        cohort = list(updates)
        if not cohort:
            raise ValueError("nothing to average: no update")
        known = dict(zip(memory["clients"].tolist(), memory["theta"], strict=True)) if memory else {}
        theta = torch.stack([known.get(update.client, _start(update, weighting)) for update in cohort])
        state = _weighted_mean(cohort, theta.softmax(0))
        theta = adam_step(theta, _vectors(cohort), _vector(previous), learning_rate=self.weights_rate)
        known |= {update.client: value for update, value in zip(cohort, theta, strict=True)}
        clients = sorted(known)
        return state, {"clients": torch.tensor(clients), "theta": torch.stack([known[client] for client in clients])}


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


def adam_step(
    theta: Float[Tensor, " K"], clients: Float[Tensor, "K P"], server: Float[Tensor, " P"], *, learning_rate: float
) -> Float[Tensor, " K"]:
    """theta after a first step of Adam."""
    theta = theta.clone().requires_grad_()
    alignment_loss(theta, clients, server).backward()
    torch.optim.Adam([theta], lr=learning_rate, betas=BETAS).step()
    return theta.detach()


def alignment_loss(
    theta: Float[Tensor, " K"], clients: Float[Tensor, "K P"], server: Float[Tensor, " P"]
) -> Float[Tensor, ""]:
    """What the clients' weights minimise; ``clients`` are their parameters, a row each, ``server`` those before."""
    weights = theta.softmax(0)
    # D_k - sum_j p_j D_j is w_k less the mean, since weights sum to one: the server's parameters drop out.
    distance = torch.linalg.vector_norm(clients - weights @ clients, dim=1)
    return (weights * (distance + 1 - F.cosine_similarity(clients, server[None], dim=1))).sum()


def _start(update: Update, weighting: Weighting) -> Float[Tensor, ""]:
    """theta of a client that has not taken part before."""
    # Paper starts p from the shares of the data; the log of a client's number of images gives them in any cohort.
    theta = math.log(update.num_examples) if weighting == "data" else 0.0
    return torch.tensor(theta, dtype=torch.float64)


def _vectors(cohort: Sequence[Update]) -> Float[Tensor, "K P"]:
    return torch.stack([_vector(update.state) for update in cohort])


def _vector(state: State) -> Float[Tensor, " P"]:
    # Paper speaks of a model's parameters: here all that travels, the context and the head's two numbers, as one.
    return torch.cat([state[name].double().flatten() for name in sorted(state)])


def _weighted_mean(cohort: Sequence[Update], weights: Float[Tensor, " K"]) -> dict[str, Tensor]:
    found = {}
    for name, like in cohort[0].state.items():
        values = torch.stack([update.state[name] for update in cohort]).double()
        found[name] = torch.tensordot(weights, values, 1).to(like.dtype)
    return found
