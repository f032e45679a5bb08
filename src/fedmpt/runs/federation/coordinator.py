"""A run whose clients are sites: the rounds and the scores of `fedmpt.runs.run`, obtained by messages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low
from typing import Any, NoReturn, TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.evaluation.calibration import mean_average_precision
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.sums import ScoreSums, SummedScores
from fedmpt.federated.client import LocalResult
from fedmpt.federated.evaluation import Evaluation
from fedmpt.federated.flare.messages import Message
from fedmpt.federated.protect import entropy
from fedmpt.federated.rounds import Ask, Best, Progress, Round, Rounds, TooFewUpdates
from fedmpt.runs.federation.exchange import STATE, histograms_of, results_of, train_message, with_prefix
from fedmpt.runs.federation.membership import POLL, Membership
from fedmpt.runs.federation.site import NOT_ENTERED
from fedmpt.runs.federation.sites import MAX_ERROR, WORDS_LIMIT, Sites, plain
from fedmpt.runs.summed import is_scored, sum_of
from fedmpt.state import get_state, mix_states, num_bytes
from fedmpt.types import InputError, Pair, State

T = TypeVar("T")
MAX_PAUSE = 60.0
"""Seconds, at most, before a round is asked again. The pause begins with one second and doubles each time."""
MAX_RATIO = 1000.0
"""An update whose change is longer than that of the shortest half of the updates by more than this is left out."""


@dataclass
class Coordinator:
    """Asks the sites for updates and sums of scores. ``best`` is the best round so far, 0 without one.

    ``store`` keeps where the run stands. It is called before a state with the server's noise goes to be scored, with
    those counted whom the noise hides: after a kill, the round is asked again and gets other noise.
    """

    sites: Sites
    members: Membership
    store: Callable[[Progress], None] = lambda progress: None
    best: int = 0
    last: int = 0
    _held_out_by: frozenset[str] = frozenset()
    """Sites whose held-out images the best round was last scored on. After a restart it is scored anew."""
    _before: Progress | None = None
    """Where the round begins that is asked now."""
    _answered: tuple[int, ...] = ()
    _failed: set[int] = field(default_factory=set)
    """Sites that were left out of the round that is asked now."""
    _pause: float = POLL

    def rounds(self, start: Progress | None) -> Iterator[Round]:
        """The rounds after ``start``, as `fedmpt.federated.rounds.Rounds` has them."""
        plan, method = self.sites.plan, self.members.method
        assert method is not None
        before, _ = method.split(get_state(method))
        loop = Rounds(
            method=method,
            num_clients=len(plan.sites),
            federation=plan.run.federation,
            seed=plan.run.seed,
            updates=self._updates,
            evaluate=lambda state, best: self._evaluate(state, best, before),
            aggregation=plan.run.aggregation,
            privacy=plan.run.privacy,
            noise=lambda index: entropy,  # Not from the seed, which all sites know.
            mix=plan.run.prediction.mix,
            present=self._present,
        )
        self.last = start.rounds_done if start else 0
        self.best = start.best.index if start and start.best else 0
        self._before = start or Progress(0, before, {})
        for done in loop.run(start):
            self._before = done.progress
            self.best = done.progress.best.index if done.progress.best else 0
            self.last = self.members.rounds_done = done.index
            self._failed.clear()
            self._pause = POLL
            self.members.round_done()
            self._write(done)
            yield done

    def _present(self) -> list[int]:
        """Where a round is asked again, without the sites that were left out, as far as there are enough others."""
        found = self.members.present()
        self.sites.standing("training")
        others = [number for number in found if number not in self._failed]
        return others if len(others) >= self.sites.plan.rules.min_sites else found

    def _updates(self, ask: Ask) -> Iterator[LocalResult]:
        """What arrived within the deadline and is sound, by client number; nothing else can reach the mean."""
        plan, began = self.sites.plan, time.monotonic()
        wire = plan.run.federation.wire
        message = train_message(replace(ask, personal={}), ask.clients, wire=wire, best=self.best)
        asked = {plan.sites[client]: message for client in ask.clients}
        limit = 2 * num_bytes(ask.state) + WORDS_LIMIT
        found: dict[int, LocalResult] = {}
        for site, answer, error, is_lost in self.sites.asked(asked, timeout=plan.rules.deadline, limit=limit):
            number = plan.sites.index(site)
            try:
                if is_lost or NOT_ENTERED in error:
                    self.members.forget(site)
                if answer is None:
                    raise InputError(error)
                (result,) = results_of(answer, ask, clients=[number], wire=wire, source=f"site {site}")
                self._check_images(site, result.update.num_examples)
                found[number] = replace(result, personal={})  # None should have come.
                self.sites.status.sites[site].seconds = round(time.monotonic() - began, 3)
            except InputError as wrong:
                self._left_out(site, ask.index, str(wrong))
        # Noise covers no client that decides whether another counts; and a change is clipped then in any case.
        far = {} if plan.run.privacy.is_on else too_long(found, ask.state)
        for number, length in far.items():
            found.pop(number)
            self._left_out(plan.sites[number], ask.index, f"its change is {length:.3g} long, far beyond the others'")
        if len(found) < plan.rules.min_sites:
            self._wait(ask.index, f"round {ask.index}: {len(found)} of {len(ask.clients)} updates counted")
        self._answered = tuple(sorted(found))
        for number in self._answered:
            status = self.sites.status.sites[plan.sites[number]]
            status.round, status.loss, status.reason = ask.index, found[number].update.loss, ""
            yield found[number]

    def _wait(self, index: int, what: str) -> NoReturn:
        """A pause before a round is asked again, which ends when a site connects. Raises TooFewUpdates after it."""
        note = f"{what}, and {self.sites.plan.rules.min_sites} are needed"
        self.sites.say(f"{note}; it is asked again in {self._pause:.0f} s", round=index)
        before, until = self.sites.link.connected(), time.monotonic() + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE)
        while time.monotonic() < until:
            self.members.check_patience(note)
            time.sleep(POLL)
            if self.sites.link.connected().items() - before.items():
                self._pause = POLL
                break
        raise TooFewUpdates(note)

    def _check_images(self, site: str, images: int) -> None:
        """Raises InputError where a site has other images than it entered with: by their number it may weigh more."""
        entered = self.members.members[site]["images"]
        if images != entered:
            raise InputError(f"it says it has {images} images, and it entered with {entered}")

    def _left_out(self, site: str, index: int, reason: str) -> None:
        reason = plain(reason).removeprefix(f"site {site}").lstrip(": ")[:MAX_ERROR]
        self._failed.add(self.sites.plan.sites.index(site))
        self.sites.say(f"round {index}: site {site} is left out: {reason}", site=site, round=index)
        self.sites.status.sites[site].reason = f"round {index}: {reason}"

    def _evaluate(self, state: State, best: Best | None, before: State) -> Evaluation:
        """Of the global model, on what the sites keep out of training. ``before`` is its state before training."""
        self.sites.standing("scoring")
        self._count_release()
        tests = self._sums(state, None, pairs=(), own=False)
        mAP, of_best = self._held_out(state, best, before)
        if not any(map(is_scored, tests.values())):
            return Evaluation(None, mAP, of_best)
        scored_by = None if len(tests) == len(self.sites.plan.sites) else tuple(tests)
        return Evaluation(SummedScores.of(sum_of(tests)), mAP, of_best, scored_by)

    def _held_out(self, state: State, best: Best | None, before: State) -> tuple[float | None, float | None]:
        """mAP on held-out images, and that of the best round where other sites' images were its measure."""
        run = self.sites.plan.run
        found = self._histograms(state, "held_out") if run.federation.held_out_share else {}
        again: dict[str, Int64[Tensor, "2 C bins"]] = {}
        if run.federation.keep == "best" and best is not None and found and found.keys() != self._held_out_by:
            again = self._histograms(mix_states(best.state, before, run.prediction.mix), "held_out")
            found = {site: counts for site, counts in found.items() if site in again}
        mAP = mean_precision(found.values())
        if mAP is None:
            return None, None
        self._held_out_by = frozenset(found)
        return mAP, mean_precision([again[site] for site in found if again])

    def _count_release(self) -> None:
        privacy, before = self.sites.plan.run.privacy, self._before
        if privacy.is_on and not privacy.is_at_sites:
            assert before is not None
            self.store(replace(before, participations=privacy.counted(before.participations, self._answered)))

    def histograms(self, model: FinalModel) -> dict[str, Int64[Tensor, "2 C bins"]]:
        """Of the sites' training images, as `fedmpt.runs.summed.Sources` has them."""
        return self._histograms(model.shared, "train", ties=self.sites.plan.run.prediction.soft_ties)

    def sums(
        self, model: FinalModel, *, thresholds: Tensor, pairs: Sequence[Pair], own: bool = False
    ) -> dict[str, ScoreSums]:
        """Of the sites' test images, as `fedmpt.runs.summed.Sources` has them."""
        return self._sums(model.shared, thresholds, pairs=pairs, own=own)

    def _histograms(self, state: State, split: str, *, ties: float = 0.0) -> dict[str, Int64[Tensor, "2 C bins"]]:
        size = len(self.members.class_names or ())
        words = {"split": split, "soft_ties": ties}
        return self._scored(state, words, lambda tensors, source: histograms_of(tensors, size, source=source))

    def _sums(
        self, state: State, thresholds: Tensor | None, *, pairs: Sequence[Pair], own: bool
    ) -> dict[str, ScoreSums]:
        """Without thresholds of a round, which has no soft ties, as in one process."""
        kept = self.best if self.sites.plan.run.federation.keep == "best" and self.best else self.last
        ties = 0.0 if thresholds is None else self.sites.plan.run.prediction.soft_ties
        size = len(self.members.class_names or ())

        def read(tensors: State, source: str) -> ScoreSums:
            return ScoreSums.from_tensors(
                tensors, num_classes=size, pairs=pairs, is_calibrated=thresholds is not None, source=source
            )

        words = {"split": "test", "personal": kept if own else 0, "soft_ties": ties, "pairs": list(map(list, pairs))}
        return self._scored(state, words, read, thresholds=thresholds)

    def _scored(
        self,
        state: State,
        words: Mapping[str, Any],
        read: Callable[[State, str], T],
        *,
        thresholds: Tensor | None = None,
    ) -> dict[str, T]:
        """What each site says of its scores, by name; without sites that have no such images or do not answer."""
        plan, size = self.sites.plan, len(self.members.class_names or ())
        tensors = with_prefix(STATE, state) | ({} if thresholds is None else {"thresholds": thresholds})
        message = Message("score", words, tensors)
        limit = WORDS_LIMIT + 16 * 1024 * size
        found: dict[str, T] = {}
        asked = dict.fromkeys(sorted(self.members.members), message)
        for site, answer, error, _ in self.sites.asked(asked, timeout=plan.rules.deadline, limit=limit):
            try:
                if answer is None:
                    raise InputError(error)
                if answer.tensors:
                    scored = read(answer.tensors, "its scores")
                    self._check_scored(site, str(words["split"]), scored)
                    found[site] = scored
            except InputError as wrong:
                kind = {"train": "training", "held_out": "held-out"}.get(words["split"], words["split"])
                self.sites.say(f"site {site} does not score its {kind} images: {wrong}", site=site)
        return dict(sorted(found.items()))

    def _check_scored(self, site: str, split: str, scored: Any) -> None:
        """Raises InputError where a site scored more images than it entered with."""
        entered, tests = self.members.members[site], self.sites.status.sites[site].test_images or 0
        held_out = entered["held_out_images"]
        most = {"test": tests, "held_out": held_out, "train": entered["images"] + held_out}[split]
        num = int(scored.images if isinstance(scored, ScoreSums) else scored.sum((0, -1)).max())
        if num > most:
            raise InputError(f"it says it has scored {num}, and it entered with {most}")

    def _write(self, done: Round) -> None:
        status = self.sites.status
        status.round, status.loss, status.seconds = done.index, done.loss, round(done.seconds, 3)
        if done.scores is not None:
            status.mAP = done.scores.mAP
        status.write(self.sites.folder)


def mean_precision(histograms: Collection[Int64[Tensor, "2 C bins"]]) -> float | None:
    """Of all sites' images together; None where they show no class."""
    if not histograms:
        return None
    counts = torch.stack(list(histograms)).sum(0)
    return mean_average_precision(counts) if counts[1].any() else None


def too_long(found: Mapping[int, LocalResult], before: State) -> dict[int, float]:
    """Length of the change of those updates that no training explains: `MAX_RATIO` times the lower median's."""
    lengths = {
        number: math.hypot(
            *(
                torch.linalg.vector_norm(tensor.double() - before[name].double()).item()
                for name, tensor in result.update.state.items()
            )
        )
        for number, result in found.items()
    }
    if len(lengths) < 3:  # Of two, nobody can say which one is wrong.
        return {}
    most = MAX_RATIO * median_low(list(lengths.values()))
    return {number: length for number, length in lengths.items() if length > most > 0}
