"""A whole federation in one process: every round draws a cohort, has each client take its step
(`fedmpt.federated.client`), then the server (`fedmpt.federated.aggregate`), and evaluates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.metrics import Scores, multilabel_scores
from fedmpt.evaluation.scoring import probabilities, set_global
from fedmpt.federated.aggregate import MEAN, aggregate, check_fits
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.methods import Method
from fedmpt.seeding import generator
from fedmpt.state import Update, Weighting, get_state
from fedmpt.types import State


@dataclass(frozen=True)
class Federation:
    """How clients train together."""

    rounds: int = 10
    """Communication rounds."""
    participation: float = 1.0
    """Share of the clients drawn in each round, in (0, 1]."""
    weighting: Weighting | None = None
    """Clients count the same in the mean, or by their number of images; as the method has it unless given."""
    learning_rate: float = 0.05
    """Learning rate of the first round; falls along a cosine over the rounds."""
    eval_every: int = 5
    """Rounds between two evaluations on the test set; the last round is always evaluated."""


@dataclass(frozen=True)
class Progress:
    """All that a federation carries from one round to the next. ``memory`` is the server's own, see `aggregate`."""

    rounds_done: int
    state: State
    personal: Mapping[int, State]
    memory: State = field(default_factory=dict)


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
    aggregation: Aggregation = MEAN,
    start: Progress | None = None,
    on_update: Callable[[Update], None] = lambda update: None,
) -> Iterator[Round]:
    """Train, yielding after every round, so that the caller can store it before the next one starts.

    Continues from ``start``; nothing else carries over from round to round. One module serves all clients in turn and
    updates are averaged as they come, so memory does not grow with their number (but for their personal tensors, and
    for robust aggregation). Personal tensors start as the module has them when this is called; the global model is
    evaluated with those that `Method.neutral_personal` names.

    Raises:
        InputError: from `local_update`, `check_fits` and `aggregate`.
    """
    check_fits(method, aggregation, cohort_size=cohort_size(len(clients), federation.participation))
    shared, initial = method.split(get_state(method))
    progress = Progress(rounds_done=0, state=shared, personal={}) if start is None else start
    loop = _Loop(method, clients, test, initial, federation, training, aggregation, seed, on_update)
    for index in range(progress.rounds_done + 1, federation.rounds + 1):
        done = loop.run_round(index, progress)
        progress = done.progress
        yield done


@dataclass(frozen=True)
class _Loop:
    """All that stays the same from round to round; ``initial`` are the personal tensors that a client starts with."""

    method: Method
    clients: Sequence[FeatureSet]
    test: FeatureSet
    initial: State
    federation: Federation
    training: LocalTraining
    aggregation: Aggregation
    seed: int
    on_update: Callable[[Update], None]

    def run_round(self, index: int, before: Progress) -> Round:
        began, federation = time.perf_counter(), self.federation
        cohort = draw_cohort(len(self.clients), federation.participation, seed=self.seed, round_index=index)
        rate = learning_rate_of(index, federation)
        personal, losses = dict(before.personal), list[tuple[float, int]]()

        def updates() -> Iterator[Update]:
            """One by one, for an aggregation that holds no more than one at a time."""
            for client in cohort:
                result = local_update(
                    self.method,
                    before.state,
                    self.clients[client],
                    personal=before.personal.get(client, self.initial),
                    client=client,
                    round_index=index,
                    seed=self.seed,
                    learning_rate=rate,
                    training=self.training,
                )
                if result.personal:
                    personal[client] = result.personal
                losses.append((result.update.loss, result.update.num_examples))
                self.on_update(result.update)
                yield result.update

        state, memory = aggregate(
            self.method,
            before.state,
            updates(),
            weighting=federation.weighting,
            aggregation=self.aggregation,
            memory=before.memory,
        )
        set_global(self.method, state, initial=self.initial, source="server")
        is_evaluated = index % federation.eval_every == 0 or index == federation.rounds
        return Round(
            index=index,
            clients=cohort,
            loss=sum(loss * num for loss, num in losses) / sum(num for _, num in losses),
            learning_rate=rate,
            scores=self._scores() if is_evaluated else None,
            seconds=time.perf_counter() - began,
            progress=Progress(rounds_done=index, state=state, personal=personal, memory=memory),
        )

    def _scores(self) -> Scores:
        return multilabel_scores(probabilities(self.method, self.test), self.test.labels)


def draw_cohort(num_clients: int, participation: float, *, seed: int, round_index: int) -> tuple[int, ...]:
    """The clients of a round, in order: at least one, drawn by (seed, round)."""
    order = torch.randperm(num_clients, generator=generator(seed, "cohort", round_index))
    return tuple(sorted(order[: cohort_size(num_clients, participation)].tolist()))


def cohort_size(num_clients: int, participation: float) -> int:
    """Clients in a round."""
    return max(1, round(participation * num_clients))


def learning_rate_of(round_index: int, federation: Federation) -> float:
    """Cosine over rounds, from the full rate in round 1 towards zero after the last."""
    progress = (round_index - 1) / federation.rounds
    return federation.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
