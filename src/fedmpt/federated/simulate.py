"""A whole federation in one process: rounds, cohorts, local training, averaging, evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fedmpt.data.feature_store import FeatureSet
from fedmpt.federated.aggregate import aggregate
from fedmpt.federated.client import LocalResult, LocalTraining, local_update
from fedmpt.federated.evaluate import probabilities
from fedmpt.methods import Method
from fedmpt.metrics import Scores, multilabel_scores
from fedmpt.seeding import generator
from fedmpt.state import Update, Weighting, get_state, set_state
from fedmpt.types import State


@dataclass(frozen=True)
class Federation:
    """How clients train together."""

    rounds: int = 10
    """Communication rounds."""
    participation: float = 1.0
    """Share of the clients drawn in each round, in (0, 1]."""
    weighting: Weighting = "uniform"
    """Clients count the same in the mean, or by their number of images."""
    learning_rate: float = 0.05
    """Learning rate of the first round; falls along a cosine over the rounds."""
    eval_every: int = 5
    """Rounds between two evaluations on the test set; the last round is always evaluated."""


@dataclass(frozen=True)
class Progress:
    """All that a federation carries from one round to the next."""

    rounds_done: int
    state: State
    personal: Mapping[int, State]


@dataclass(frozen=True)
class Round:
    """What happened in a round, and where it led. ``index`` counts from 1; ``scores`` only where it was evaluated."""

    index: int
    clients: tuple[int, ...]
    loss: float
    learning_rate: float
    scores: Scores | None
    seconds: float
    progress: Progress


def run_rounds(
    method: Method,
    clients: Sequence[FeatureSet],
    test: FeatureSet,
    *,
    federation: Federation,
    training: LocalTraining,
    seed: int,
    start: Progress | None = None,
    on_update: Callable[[Update], None] = lambda update: None,
) -> Iterator[Round]:
    """Train, yielding after every round, so that the caller can store it before the next one starts.

    Continues from ``start``; nothing else carries over from round to round. One module serves all clients in turn and
    updates are averaged as they come, so memory does not grow with their number (but for their personal tensors). The
    global model is evaluated with the personal tensors at their initial values.

    Raises:
        InputError: from `local_update` and `aggregate`.
    """
    initial, neutral = method.split(get_state(method))
    progress = Progress(rounds_done=0, state=initial, personal={}) if start is None else start
    for index in range(progress.rounds_done + 1, federation.rounds + 1):
        began = time.perf_counter()
        learning_rate = learning_rate_of(index, federation)
        cohort = draw_cohort(len(clients), federation.participation, seed=seed, round_index=index)
        note = _RoundNotes(dict(progress.personal), on_update)
        results = (
            local_update(
                method,
                progress.state,
                clients[client],
                personal=progress.personal.get(client, neutral),
                client=client,
                round_index=index,
                seed=seed,
                learning_rate=learning_rate,
                training=training,
            )
            for client in cohort
        )
        averaged = aggregate(method, progress.state, map(note, results), weighting=federation.weighting)
        progress = Progress(rounds_done=index, state=averaged, personal=note.personal)
        set_state(method, {**averaged, **neutral}, source="server")
        is_evaluated = index % federation.eval_every == 0 or index == federation.rounds
        yield Round(
            index=index,
            clients=cohort,
            loss=note.mean_loss,
            learning_rate=learning_rate,
            scores=multilabel_scores(probabilities(method, test), test.labels) if is_evaluated else None,
            seconds=time.perf_counter() - began,
            progress=progress,
        )


@dataclass
class _RoundNotes:
    """What the loop keeps of the results that pass by: personal tensors and losses, not the updates themselves."""

    personal: dict[int, State]
    on_update: Callable[[Update], None]
    sum_of_losses: float = 0.0
    num_examples: int = 0

    def __call__(self, result: LocalResult) -> Update:
        update = result.update
        if result.personal:
            self.personal[update.client] = result.personal
        self.sum_of_losses += update.loss * update.num_examples
        self.num_examples += update.num_examples
        self.on_update(update)
        return update

    @property
    def mean_loss(self) -> float:
        return self.sum_of_losses / self.num_examples


def draw_cohort(num_clients: int, participation: float, *, seed: int, round_index: int) -> tuple[int, ...]:
    """The clients of a round, in order: at least one, drawn by (seed, round)."""
    size = max(1, round(participation * num_clients))
    order = torch.randperm(num_clients, generator=generator(seed, "cohort", round_index))
    return tuple(sorted(order[:size].tolist()))


def learning_rate_of(round_index: int, federation: Federation) -> float:
    """Cosine over rounds, from the full rate in round 1 towards zero after the last."""
    progress = (round_index - 1) / federation.rounds
    return federation.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
