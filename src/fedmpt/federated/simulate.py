"""A whole federation in one process: every round draws a cohort, has each client take its step
(`fedmpt.federated.client`), then the server (`fedmpt.federated.aggregate`), and evaluates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import mean_average_precision, score_histograms
from fedmpt.evaluation.metrics import Scores, multilabel_scores
from fedmpt.evaluation.scoring import probabilities, set_global
from fedmpt.federated.aggregate import MEAN, aggregate, check_fits
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.balance import Balance
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.methods import Method
from fedmpt.seeding import generator
from fedmpt.state import Update, Weighting, get_state, mix_states
from fedmpt.types import State

DEFAULT_HELD_OUT = 0.1


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
    held_out: float | None = None
    """Share of its images, in [0, 1), that each client keeps out of training to score evaluated rounds on; at least one
    where it has two. 0 unless given, with --keep best 0.1."""
    keep: Literal["last", "best"] = "last"
    """Which round's model is scored and used in the end: the last, or of the evaluated ones the best on held-out
    images, for example --keep best --held-out 0.1."""

    @property
    def held_out_share(self) -> float:
        """``held_out``, or what holds where it is not given."""
        if self.held_out is None:
            return DEFAULT_HELD_OUT if self.keep == "best" else 0.0
        return self.held_out


@dataclass(frozen=True)
class Best:
    """The evaluated round whose global model was best on held-out images, the first of equals, with what it had then.

    ``mAP`` is in percent.
    """

    index: int
    mAP: float
    state: State
    personal: Mapping[int, State]


@dataclass(frozen=True)
class Progress:
    """All that a federation carries from one round to the next.

    ``memory`` is the server's own, see `aggregate`. ``best`` is None where no image is held out, and before the first
    evaluation.
    """

    rounds_done: int
    state: State
    personal: Mapping[int, State]
    memory: State = field(default_factory=dict)
    best: Best | None = None

    def kept(self, federation: Federation) -> Progress | Best:
        """The round that is used in the end; until a round was evaluated, the last one."""
        return self.best if federation.keep == "best" and self.best is not None else self


@dataclass(frozen=True)
class Round:
    """What happened in a round, and where it led.

    ``index`` counts from 1. ``scores`` on the test set and ``held_out_mAP`` in percent are there only where the round
    was evaluated, the second only where images are held out.
    """

    index: int
    clients: tuple[int, ...]
    loss: float
    learning_rate: float
    scores: Scores | None
    seconds: float
    progress: Progress
    held_out_mAP: float | None = None


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A federation in one process.

    One module serves all clients in turn and updates are averaged as they come, so memory does not grow with their
    number (but for their personal tensors, and for robust aggregation). ``balance`` weighs labels, see
    `local_update`. ``held_out`` are images of all clients that ``clients`` leave out. Of their scores only the
    histograms are used, which are the sums of the clients' own. Rounds are scored as the final model predicts: with
    ``mix`` of the trained state and the rest of its start, see `mix_states`. ``on_update`` is told of every update.
    """

    method: Method
    clients: Sequence[FeatureSet]
    test: FeatureSet
    federation: Federation
    training: LocalTraining
    seed: int
    aggregation: Aggregation = MEAN
    balance: Balance | None = None
    held_out: FeatureSet | None = None
    mix: float = 1.0
    on_update: Callable[[Update], None] = lambda update: None

    def rounds(self, start: Progress | None = None) -> Iterator[Round]:
        """Train, yielding after every round, so that the caller can store it before the next one starts.

        Continues from ``start``; nothing else carries over from round to round. Personal tensors start as the module
        has them when this is called; the global model is evaluated with those that `Method.neutral_personal` names.

        Raises:
            InputError: from `local_update`, `check_fits` and `aggregate`.
        """
        size = cohort_size(len(self.clients), self.federation.participation)
        check_fits(self.method, self.aggregation, cohort_size=size)
        shared, initial = self.method.split(get_state(self.method))
        progress = start or Progress(rounds_done=0, state=shared, personal={})
        for index in range(progress.rounds_done + 1, self.federation.rounds + 1):
            done = self._round(index, progress, initial, shared)
            progress = done.progress
            yield done

    def _round(self, index: int, before: Progress, initial: State, start: State) -> Round:
        """``initial`` are the personal tensors that a client starts with, ``start`` the shared ones as built."""
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
                    personal=before.personal.get(client, initial),
                    client=client,
                    round_index=index,
                    seed=self.seed,
                    learning_rate=rate,
                    training=self.training,
                    balance=self.balance,
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
        set_global(self.method, mix_states(state, start, self.mix), initial=initial, source="server")
        scores, held_out_mAP, best = None, None, before.best
        if index % federation.eval_every == 0 or index == federation.rounds:
            scores = multilabel_scores(probabilities(self.method, self.test), self.test.labels)
            held_out_mAP = self._score_held_out()
        if held_out_mAP is not None and (best is None or held_out_mAP > best.mAP):
            best = Best(index, held_out_mAP, state, personal)
        return Round(
            index=index,
            clients=cohort,
            loss=sum(loss * num for loss, num in losses) / sum(num for _, num in losses),
            learning_rate=rate,
            scores=scores,
            seconds=time.perf_counter() - began,
            progress=Progress(rounds_done=index, state=state, personal=personal, memory=memory, best=best),
            held_out_mAP=held_out_mAP,
        )

    def _score_held_out(self) -> float | None:
        """Of the global model, which the method is now."""
        if self.held_out is None:
            return None
        return mean_average_precision(score_histograms(probabilities(self.method, self.held_out), self.held_out.labels))


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
