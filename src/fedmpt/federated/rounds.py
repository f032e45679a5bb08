"""The round loop, for all drivers: draw a cohort, get its updates, take the server's step, evaluate, go on.

How updates and scores are obtained is given to it: in this process (`fedmpt.federated.simulate`), or from sites.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch

from fedmpt.evaluation.scoring import set_global
from fedmpt.federated.aggregate import MEAN, aggregate, check_fits
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.client import LocalResult
from fedmpt.federated.evaluation import Evaluation, SomeScores
from fedmpt.federated.privacy import EXACT, Privacy
from fedmpt.federated.protect import Noise, seeded
from fedmpt.federated.wire import Wire, as_sent, from_exact
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
    scoring: Literal["pooled", "summed"] = "pooled"
    """How test images are scored: pooled in one place, or by each site on its own, of which only counts are put
    together. Between machines it is always summed."""
    wire: Wire = "float32"
    """Number format of what travels: float16 halves it. A client's change is rounded, and the state that it gets."""

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
    evaluation. ``participations`` are the rounds of each client so far, none without differential privacy.
    """

    rounds_done: int
    state: State
    personal: Mapping[int, State]
    memory: State = field(default_factory=dict)
    best: Best | None = None
    participations: Mapping[int, int] = field(default_factory=dict)

    def kept(self, federation: Federation) -> Progress | Best:
        """The round that is used in the end; until a round was evaluated, the last one."""
        return self.best if federation.keep == "best" and self.best is not None else self


@dataclass(frozen=True)
class Round:
    """What happened in a round, and where it led.

    ``index`` counts from 1. ``clients`` are those whose updates counted. ``scores`` on the test set and
    ``held_out_mAP`` in percent are there only where the round was evaluated, the second only where images are held
    out. ``scored_by`` is as in `Evaluation`. ``epsilon`` is the largest of any client so far, None without differential
    privacy.
    """

    index: int
    clients: tuple[int, ...]
    loss: float
    learning_rate: float
    scores: SomeScores | None
    seconds: float
    progress: Progress
    held_out_mAP: float | None = None
    scored_by: tuple[str, ...] | None = None
    epsilon: float | None = None


@dataclass(frozen=True)
class Ask:
    """What a round asks of its clients: to train from ``state``.

    ``state`` is as it arrives at a client. ``personal`` has tensors of those clients whose keeper is the caller.
    """

    index: int
    clients: tuple[int, ...]
    state: State
    learning_rate: float
    personal: Mapping[int, State]


class TooFewUpdates(Exception):  # noqa: N818
    """So few clients answered that the round does not count; it is asked again."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The server's side of a federation, wherever its clients are.

    ``updates`` has the clients of an `Ask` train: it yields their results in the order of their numbers, and may leave
    out clients that did not answer. ``evaluate`` scores the global model, which has these shared tensors and which
    ``method`` is then. It is told the best round so far, which it scores anew where other images are held out now.
    Rounds are scored as the final model predicts: with ``mix`` of the trained state and the rest of its start, see
    `mix_states`. ``present`` says which clients can be asked now, all of them unless it is given. ``noise`` draws the
    server's noise of a round; unless given, from the seed, which only simulates privacy.
    """

    method: Method
    num_clients: int
    federation: Federation
    seed: int
    updates: Callable[[Ask], Iterable[LocalResult]]
    evaluate: Callable[[State, Best | None], Evaluation]
    aggregation: Aggregation = MEAN
    privacy: Privacy = EXACT
    noise: Callable[[int], Noise] | None = None
    mix: float = 1.0
    present: Callable[[], Collection[int]] | None = None

    def run(self, start: Progress | None = None) -> Iterator[Round]:
        """Train, yielding after every round, so that the caller can store it before the next one starts.

        Continues from ``start``; nothing else carries over from round to round. Ends before the budget of privacy does.

        Raises:
            InputError: from ``updates``, `check_fits` and `aggregate`.
        """
        size = cohort_size(self.num_clients, self.federation.participation)
        weighting = self.federation.weighting
        check_fits(self.method, self.aggregation, cohort_size=size, privacy=self.privacy, weighting=weighting)
        shared, initial = self.method.split(get_state(self.method))
        progress = start or Progress(rounds_done=0, state=shared, personal={})
        while self._has(progress.rounds_done + 1, progress.participations):
            done = self._round(progress.rounds_done + 1, progress, shared, initial)
            progress = done.progress
            yield done

    def _round(self, index: int, before: Progress, start: State, initial: State) -> Round:
        """``start`` and ``initial`` are the shared and the personal tensors as the method was built."""
        began, federation = time.perf_counter(), self.federation
        trained = self._trained(index, before)
        state = mix_states(trained.state, start, self.mix)
        set_global(self.method, state, initial=initial, source="server")
        found, best = Evaluation(), before.best
        participations = self.privacy.counted(before.participations, trained.clients)
        if index % federation.eval_every == 0 or not self._has(index + 1, participations):
            found = self.evaluate(state, best)
        if best is not None and found.of_best is not None:
            best = replace(best, mAP=found.of_best)
        if found.held_out_mAP is not None and (best is None or found.held_out_mAP > best.mAP):
            best = Best(index, found.held_out_mAP, trained.state, trained.personal)
        return Round(
            index=index,
            clients=trained.clients,
            loss=trained.loss,
            learning_rate=learning_rate_of(index, federation),
            scores=found.scores,
            seconds=time.perf_counter() - began,
            progress=Progress(index, trained.state, trained.personal, trained.memory, best, participations),
            held_out_mAP=found.held_out_mAP,
            scored_by=found.scored_by,
            epsilon=self.privacy.spent(participations),
        )

    def _has(self, index: int, participations: Mapping[int, int]) -> bool:
        """Whether there is such a round. Its cost in privacy is known of all clients that may be asked."""
        cohort = draw_cohort(self.num_clients, self.federation.participation, seed=self.seed, round_index=index)
        asked = cohort if self.present is None else range(self.num_clients)
        is_allowed = self.privacy.allows(1 + max(participations.get(client, 0) for client in asked))
        return index <= self.federation.rounds and is_allowed

    def _trained(self, index: int, before: Progress) -> _Trained:
        """The clients' steps and the server's, until enough clients answer."""
        while True:
            try:
                return self._step(index, before)
            except TooFewUpdates:
                continue  # The cohort is drawn anew, of those that are present then.

    def _step(self, index: int, before: Progress) -> _Trained:
        federation = self.federation
        among = None if self.present is None else self.present()
        cohort = draw_cohort(self.num_clients, federation.participation, seed=self.seed, round_index=index, among=among)
        personal, counted = dict(before.personal), list[Update]()
        ask = Ask(
            index=index,
            clients=cohort,
            state=as_sent(before.state, federation.wire),
            learning_rate=learning_rate_of(index, federation),
            personal=before.personal,
        )

        def updates() -> Iterator[Update]:
            """One by one, for an aggregation that holds no more than one at a time."""
            for result in self.updates(ask):
                update = from_exact(result.update, ask.state, before.state, federation.wire)
                if result.personal:
                    personal[update.client] = result.personal
                counted.append(replace(update, state={}))
                yield update

        state, memory = aggregate(
            self.method,
            before.state,
            updates(),
            weighting=federation.weighting,
            aggregation=self.aggregation,
            memory=before.memory,
            privacy=self.privacy,
            noise=seeded(self.seed, index) if self.noise is None else self.noise(index),
        )
        images = sum(update.num_examples for update in counted)
        loss = sum(update.loss * update.num_examples for update in counted) / images
        return _Trained(tuple(update.client for update in counted), loss, state, personal, memory)


class _Trained(NamedTuple):
    """A round's outcome before it is scored."""

    clients: tuple[int, ...]
    loss: float
    state: State
    personal: Mapping[int, State]
    memory: State


def draw_cohort(
    num_clients: int, participation: float, *, seed: int, round_index: int, among: Collection[int] | None = None
) -> tuple[int, ...]:
    """The clients of a round, in order: at least one, drawn by (seed, round).

    Clients that are not ``among`` those that can be asked give way to the next ones drawn, as far as there are any.
    """
    order = torch.randperm(num_clients, generator=generator(seed, "cohort", round_index)).tolist()
    drawn = [client for client in order if among is None or client in among]
    return tuple(sorted(drawn[: cohort_size(num_clients, participation)]))


def cohort_size(num_clients: int, participation: float) -> int:
    """Clients in a round."""
    return max(1, round(participation * num_clients))


def learning_rate_of(round_index: int, federation: Federation) -> float:
    """Cosine over rounds, from the full rate in round 1 towards zero after the last."""
    progress = (round_index - 1) / federation.rounds
    return federation.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
