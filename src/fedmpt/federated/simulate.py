"""A whole federation in one process: its clients take their steps one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import mean_average_precision, score_histograms
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.evaluation.sums import SummedScores, score_sums
from fedmpt.federated.aggregate import MEAN
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.balance import Balance
from fedmpt.federated.client import LocalResult, LocalTraining, local_update
from fedmpt.federated.evaluation import Evaluation, SomeScores
from fedmpt.federated.privacy import EXACT, Privacy
from fedmpt.federated.protect import protected, seeded
from fedmpt.federated.rounds import Ask, Federation, Progress, Round, Rounds
from fedmpt.federated.wire import through
from fedmpt.methods import Method
from fedmpt.state import Update, get_state
from fedmpt.types import State


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A federation in one process.

    One module serves all clients in turn and updates are averaged as they come, so memory does not grow with their
    number (but for their personal tensors, and for robust aggregation). ``balance`` weighs labels, see
    `local_update`. ``held_out`` are images of all clients that ``clients`` leave out. Of their scores only the
    histograms are used, which are the sums of the clients' own. ``mix`` is as in `Rounds`. ``updates`` are other
    processes that train the clients in place of this one: like `local_update`, in the order of their numbers, from an
    `Ask` and the personal tensors of a client that never trained. ``on_update`` is told of every update.
    """

    method: Method
    clients: Sequence[FeatureSet]
    test: FeatureSet
    federation: Federation
    training: LocalTraining
    seed: int
    aggregation: Aggregation = MEAN
    privacy: Privacy = EXACT
    balance: Balance | None = None
    held_out: FeatureSet | None = None
    mix: float = 1.0
    updates: Callable[[Ask, State], Iterable[LocalResult]] | None = None
    on_update: Callable[[Update], None] = lambda update: None

    def rounds(self, start: Progress | None = None) -> Iterator[Round]:
        """The rounds after ``start``, as `Rounds.run` yields them.

        Personal tensors start as the module has them when this is called; the global model is evaluated with those
        that `Method.neutral_personal` names.

        Raises:
            InputError: from `local_update`, `check_fits` and `aggregate`.
        """
        _, initial = self.method.split(get_state(self.method))
        loop = Rounds(
            method=self.method,
            num_clients=len(self.clients),
            federation=self.federation,
            seed=self.seed,
            updates=lambda ask: self._sent((self.updates or self._updates)(ask, initial), ask),
            evaluate=lambda state, best: self._evaluate(),
            aggregation=self.aggregation,
            privacy=self.privacy,
            mix=self.mix,
        )
        return loop.run(start)

    def _updates(self, ask: Ask, initial: State) -> Iterator[LocalResult]:
        """``initial`` are the personal tensors that a client starts with."""
        for client in ask.clients:
            yield local_update(
                self.method,
                ask.state,
                self.clients[client],
                personal=ask.personal.get(client, initial),
                client=client,
                round_index=ask.index,
                seed=self.seed,
                learning_rate=ask.learning_rate,
                training=self.training,
                balance=self.balance,
            )

    def _sent(self, results: Iterable[LocalResult], ask: Ask) -> Iterator[LocalResult]:
        """The results as they are after the way to the server."""
        for result in results:
            update = self._protected(result.update, ask)
            self.on_update(update)
            yield LocalResult(through(update, ask.state, self.federation.wire), result.personal)

    def _protected(self, update: Update, ask: Ask) -> Update:
        """What a client sends: its update, with noise where clients add it."""
        if not self.privacy.is_at_sites:
            return update
        assert self.aggregation.clip_norm is not None, "see Privacy.check"
        return protected(
            self.method,
            update,
            ask.state,
            clip_norm=self.aggregation.clip_norm,
            privacy=self.privacy,
            at_least=len(ask.clients),
            noise=seeded(self.seed, ask.index, update.client),
        )

    def _evaluate(self) -> Evaluation:
        """Of the global model, which the method is now."""
        found = probabilities(self.method, self.test)
        if self.federation.scoring == "pooled":
            scores: SomeScores = multilabel_scores(found, self.test.labels)
        else:
            scores = SummedScores.of(score_sums(found, self.test.labels, thresholds=None, pairs=()))
        if self.held_out is None:
            return Evaluation(scores)
        held_out = score_histograms(probabilities(self.method, self.held_out), self.held_out.labels)
        return Evaluation(scores, mean_average_precision(held_out))
