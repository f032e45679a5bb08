"""The client's step of a round: the server's state, trained on the client's own images, becomes an update.

It knows nothing of who calls it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.balance import Balance
from fedmpt.methods import Method
from fedmpt.methods.parts.losses import pseudo_labels, squared_distance
from fedmpt.methods.parts.optimizers import Joined
from fedmpt.seeding import generator
from fedmpt.state import Update, check_state, get_state, set_state
from fedmpt.types import UNKNOWN, DivergedError, InputError, State


@dataclass(frozen=True)
class LocalResult:
    """What local training leaves: the update that is sent, and the personal tensors that stay."""

    update: Update
    personal: State


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains. The paper's values, but for the learning rate, which the round sets."""

    local_epochs: int = 1
    """Passes over a client's images in a round."""
    batch_size: int = 32
    """Images in a step."""
    momentum: float = 0.9
    """Momentum of SGD; starts from zero in every round."""
    weight_decay: float = 1e-5
    """Weight decay of SGD."""
    proximal: float = 0.0
    """mu of FedProx: how strongly shared parameters are held to the server's, which adds mu / 2 times their squared
    distance to what is minimised; 0 is FedAvg."""
    pseudo_labels: float = 0.0
    """Unknown labels count as present where the server's model finds the class with at least this probability, and as
    absent where it finds it with at most one minus this; in (0.5, 1), 0 is off."""
    pseudo_labels_after: int = 1
    """Rounds before those with --pseudo-labels."""
    global_consistency: float = 0.0
    """How strongly probabilities of unknown labels are held to those of the server's model: weight of their squared
    distance, summed over classes, averaged over images; 0 is off."""
    balance: bool = False
    """Weigh labels so that classes which training ties together count as if they came independently. The server then
    needs the sum of what fedmpt conditions count counts at each site."""


def local_update(
    method: Method,
    state: State,
    features: FeatureSet,
    *,
    personal: State,
    client: int,
    round_index: int,
    seed: int,
    learning_rate: float,
    training: LocalTraining,
    balance: Balance | None = None,
) -> LocalResult:
    """Train ``method`` on one client's images, from the server's state and the client's own personal tensors.

    ``balance`` weighs the labels of each batch; it is the caller who makes one where ``training`` asks for it. The
    optimiser is fresh in every round. The order of images, and what a method draws in training, depend on (seed, round,
    client) alone. What the server's model says of unknown labels is asked once, with the client's own personal tensors,
    before the first step.

    Raises:
        InputError: if the client has no images.
        DivergedError: if its loss or a personal tensor is no longer finite.
    """
    if len(features) == 0:
        raise InputError(f"client {client} has no images; leave it out or give it some")
    set_state(method, {**state, **personal}, source=f"state for client {client}")
    with_pseudo_labels = training.pseudo_labels > 0 and round_index > training.pseudo_labels_after
    before = None
    if (with_pseudo_labels or training.global_consistency) and (features.labels == UNKNOWN).any():
        before = probabilities(method, features)
        if with_pseudo_labels:
            labels = pseudo_labels(features.labels, before, threshold=training.pseudo_labels)
            features = replace(features, labels=labels)
    method.train()
    method.draws = generator(seed, "method", round_index, client)
    method.start_round(round_index)
    optimizer = method.optimizer(
        learning_rate=learning_rate, momentum=training.momentum, weight_decay=training.weight_decay
    )
    order = generator(seed, "shuffle", round_index, client)
    try:
        loss = _train(
            method, features, optimizer, order, training, balance, before if training.global_consistency else None
        )
    except InputError as error:
        raise type(error)(f"client {client}, round {round_index}: {error}") from error
    shared, personal = method.split(get_state(method))
    # The server checks what is sent; nobody else would notice these.
    check_state(personal, like=personal, source=f"client {client}, round {round_index}, personal")
    update = Update(client=client, state=shared, num_examples=len(features), loss=loss)
    return LocalResult(update, personal)


def _train(
    method: Method,
    features: FeatureSet,
    optimizer: torch.optim.Optimizer | Joined,
    order: torch.Generator,
    training: LocalTraining,
    balance: Balance | None,
    held_to: Float[Tensor, "images C"] | None,
) -> float:
    """All steps of a round; the mean loss over the images. Unknown labels are ``held_to`` these probabilities."""
    # The shared parameters, each with its value now.
    shared = [parameter for name, parameter in method.named_parameters() if name not in method.personal]
    anchors = [(parameter, parameter.detach().clone()) for parameter in shared] if training.proximal else []
    total = 0.0
    for _ in range(training.local_epochs):
        for rows in torch.randperm(len(features), generator=order).split(training.batch_size):
            optimizer.zero_grad(set_to_none=True)
            batch = features.batch(rows, device=method.device)
            batch = replace(batch, weights=balance.weights(batch.labels)) if balance else batch
            text = None if held_to is None else method.encode_text()
            loss = method.loss(batch, text)
            if not loss.isfinite():
                raise DivergedError(f"the loss is {loss.item()}; try a lower learning rate")
            # The loss that is reported stays that of the labels, without this term and FedProx's: runs with other
            # weights of them can be compared.
            away = 0 if held_to is None else squared_distance(method(batch, text), held_to[rows], batch.labels)
            (loss + training.global_consistency * away).backward()
            # FedProx's term (Li et al. 2020) by its gradient, mu (w - w_server).
            for parameter, anchor in anchors:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - anchor, alpha=training.proximal)
            optimizer.step()
            total += loss.item() * len(rows)
    return total / (len(features) * training.local_epochs)
