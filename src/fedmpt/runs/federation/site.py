"""A site of a federation: its own images, and what it does with each message of the coordinator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.features.store import FeatureSet, fingerprint
from fedmpt.data.reading import align
from fedmpt.evaluation.calibration import score_histograms
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.scoring import set_global
from fedmpt.evaluation.sums import score_sums
from fedmpt.federated.balance import Balance
from fedmpt.federated.client import local_update
from fedmpt.federated.flare.messages import Message
from fedmpt.federated.protect import entropy, protected
from fedmpt.federated.rounds import Ask
from fedmpt.methods import Method
from fedmpt.runs.federation.agreement import agreed_options, check_known, class_names_of, differences_of, own_versions
from fedmpt.runs.federation.delivery import deliver
from fedmpt.runs.federation.exchange import (
    ask_of,
    counts_of,
    number_in,
    pairs_of,
    part_of,
    received_state,
    tensors_of_counts,
    update_message,
    with_prefix,
)
from fedmpt.runs.federation.membership import RETRY
from fedmpt.runs.federation.noised import NoisedStore
from fedmpt.runs.federation.personal import PersonalStore
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.sites import MAX_ERROR, plain
from fedmpt.runs.partition import held_out_of
from fedmpt.runs.records import digest_of
from fedmpt.seeding import generator
from fedmpt.state import Update, get_state, set_state
from fedmpt.types import UNKNOWN, Backbone, InputError, State


@dataclass(frozen=True)
class Holdings:
    """What a site has, before it knows with which classes the federation trains.

    ``class_names`` are those that its own labels name; ``test`` are the images that it keeps out of training, None
    where it has none. ``found_at`` is where the frozen model is here. ``send_counts`` says whether the site lets its
    counts of labels go.
    """

    plan: Plan
    name: str
    backbone: Backbone
    class_names: tuple[str, ...]
    train: FeatureSet
    test: FeatureSet | None
    folder: Path
    found_at: str
    send_counts: bool = True

    @property
    def number(self) -> int:
        """The site's number as a client."""
        return self.plan.sites.index(self.name)

    @property
    def may_count(self) -> bool:
        """Whether counts of two classes together leave the site."""
        return self.send_counts and self.plan.run.needs_counts


@dataclass
class Entered:
    """A site that trains: its method and its images, labelled with the classes of the federation.

    ``every`` are its training images, ``train`` those without the ones ``held_out`` to choose a round.
    """

    class_names: tuple[str, ...]
    method: Method
    initial: State
    every: FeatureSet
    train: FeatureSet
    held_out: FeatureSet | None
    test: FeatureSet | None
    balance: Balance | None = None
    ties: Ties | None = None


class Site:
    """Answers the coordinator's messages, one at a time. ``note`` is told what happens, for the site's engineer."""

    def __init__(self, holdings: Holdings, *, note: Callable[[str], None]) -> None:
        self._own, self._note = holdings, note
        self._personal = PersonalStore(holdings.folder / "personal")
        self._entered: Entered | None = None
        self._outside_for = ""
        privacy, at_least = holdings.plan.run.privacy, holdings.plan.rules.min_sites
        self._noised = NoisedStore(holdings.folder / "noised", privacy, at_least=at_least)
        self._answers: Mapping[str, Callable[[Message], Message]] = {
            "describe": self._describe,
            "outside": self._outside,
            "enter": self._enter,
            "counts": self._counts,
            "train": self._train,
            "score": self._score,
            "finish": self._finish,
        }

    def handle(self, message: Message) -> Message:
        """The answer to a message. Raises InputError for one that the site cannot or will not answer."""
        if message.kind not in self._answers:
            raise InputError(
                f"the coordinator asks for {message.kind!r}, which this version does not know; update fedmpt"
            )
        return self._answers[message.kind](message)

    def _describe(self, message: Message) -> Message:
        own = self._own
        here = agreed_options(own.plan.run)
        words = message.words.get("options")
        if different := differences_of(here, words, here=f"in the kit of {own.name}", there="at the coordinator"):
            raise InputError(f"its options differ: {'; '.join(different)}")
        return Message(
            "description",
            {
                "class_names": list(own.class_names),
                "images": len(own.train),
                "test_images": 0 if own.test is None else len(own.test),
                "backbone": fingerprint(own.backbone),
                "options": here,
                "versions": own_versions(),
            },
        )

    def _outside(self, message: Message) -> Message:
        """Why the site takes no part. The coordinator says it again and again; the site's engineer hears it once."""
        reason = plain(str(message.words.get("reason")))[:MAX_ERROR]
        if reason != self._outside_for:
            self._note(
                f"waits outside: {reason} (start join again once it is mended here; the coordinator compares again "
                f"every {RETRY:.0f} s)"
            )
        self._outside_for = reason
        return Message("told")

    def _enter(self, message: Message) -> Message:
        own, config = self._own, self._own.plan.run
        class_names = class_names_of(message.words.get("class_names"), source="the coordinator")
        check_known(own.class_names, class_names, where="its labels")
        method = config.method.build(own.backbone, class_names, generator=generator(config.seed, "init"))
        every = relabelled(own.train, own.class_names, class_names)
        train, held_out = every, None
        if share := config.federation.held_out_share:
            kept, held = held_out_of(torch.arange(len(every)), share, client=own.number)
            train, held_out = every.subset(kept), every.subset(held)
        test = None if own.test is None else relabelled(own.test, own.class_names, class_names)
        _, initial = method.split(get_state(method))
        self._personal.drop_after(int(number_in(message, "rounds_done")))
        self._outside_for = ""
        self._entered = Entered(class_names, method, initial, every, train, held_out, test)
        others = [name for name in class_names if name not in own.class_names]
        self._note(f"takes part, with {len(class_names)} classes: {', '.join(class_names)}")
        if others:
            self._note(f"unknown in the images here, since only other sites name them: {', '.join(others)}")
        is_sent = own.may_count and message.words.get("counts") is True
        counts = tensors_of_counts(count_labels(train.labels)) if is_sent else {}
        words: dict[str, Any] = {
            "images": len(train),
            "held_out_images": 0 if held_out is None else len(held_out),
            "sources": dict(method.sources),
            "digest": digest_of([train], held_out),
        }
        return Message("entered", words, with_prefix("counts/", counts))

    def _train(self, message: Message) -> Message:
        entered, config = self._in_federation(), self._own.plan.run
        method, wire = entered.method, config.federation.wire
        shared, _ = method.split(method.state_dict())
        ask, best = ask_of(message, shared, wire=wire)
        if self._own.number not in ask.clients:
            raise InputError(f"site {self._own.name} is client {self._own.number}, none of {ask.clients}")
        if config.training.balance and entered.balance is None:
            raise InputError("the summed counts of labels are missing, and --balance needs them")
        if config.privacy.is_at_sites and (refusal := self._noised.refusal(ask)):
            self._note(f"round {ask.index} gets no update: {refusal}")
            raise InputError(refusal)
        result = local_update(
            method,
            ask.state,
            entered.train,
            personal=self._personal.before(ask.index) or entered.initial,
            client=self._own.number,
            round_index=ask.index,
            seed=config.seed,
            learning_rate=ask.learning_rate,
            training=config.training,
            balance=entered.balance if config.training.balance else None,
        )
        self._personal.store(ask.index, result.personal, best=best)
        self._note(f"round {ask.index} of {config.federation.rounds}: trained, loss {result.update.loss:.4f}")
        if config.privacy.is_at_sites:
            result = replace(result, update=self._with_noise(result.update, ask))
        return update_message([result], ask.state, wire=wire, with_personal=False)

    def _with_noise(self, update: Update, ask: Ask) -> Update:
        """The update with this site's share of the noise, which is the same where the same was asked before."""
        config = self._own.plan.run
        assert config.aggregation.clip_norm is not None, "see Privacy.check"
        state = self._noised.find(ask)
        if state is None:
            noised = protected(
                self._in_federation().method,
                update,
                ask.state,
                clip_norm=config.aggregation.clip_norm,
                privacy=config.privacy,
                at_least=self._own.plan.rules.min_sites,
                noise=entropy,
            )
            state = noised.state
            self._noised.add(ask, state)
        self._note(self._noised.spent())
        return replace(update, state=state)

    def _counts(self, message: Message) -> Message:
        """The sites' summed counts of labels, which the coordinator sends once."""
        entered = self._in_federation()
        counts = counts_of(part_of(message.tensors, "counts/"), len(entered.class_names), source="the coordinator")
        entered.balance, entered.ties = Balance.of(counts), Ties.of(counts)
        return Message("counted")

    def _score(self, message: Message) -> Message:
        """Histograms of the scores on training or held-out images, or sums of those on test images: of the global
        model, or of the site's own as it was after a round ``personal``."""
        entered = self._in_federation()
        split, strength = str(message.words.get("split")), number_in(message, "soft_ties")
        pairs = pairs_of(message, len(entered.class_names), source="the coordinator")
        features = {"train": entered.every, "test": entered.test, "held_out": entered.held_out}.get(split)
        if split == "train" and not self._own.send_counts:
            features = None  # Histograms of labels are counts of them.
        method = entered.method
        shared, _ = method.split(method.state_dict())
        state = received_state(message, shared, wire="float32", source="the coordinator")
        if features is None:
            return Message("scores")
        set_global(method, state, initial=entered.initial, source="the coordinator")
        model = FinalModel(method, state, {}, entered.initial, entered.ties, strength)
        if split != "test":
            found = score_histograms(model.probabilities(features), features.labels)
            return Message("scores", {}, {"histograms": found})
        if index := int(number_in(message, "personal")):
            own = self._personal.before(index + 1) or entered.initial
            set_state(method, {**state, **own}, source="the site's own tensors")
        thresholds = message.tensors.get("thresholds")
        sums = score_sums(model.probabilities(features), features.labels, thresholds=thresholds, pairs=pairs)
        if not self._own.may_count:
            sums = replace(sums, contexts=torch.zeros_like(sums.contexts))
        return Message("scores", {}, sums.to_tensors())

    def _finish(self, message: Message) -> Message:
        entered = self._in_federation()
        shared, _ = entered.method.split(entered.method.state_dict())
        state = received_state(message, shared, wire="float32", source="the coordinator")
        own = self._personal.before(int(number_in(message, "kept_round")) + 1) or entered.initial
        deliver(
            message,
            state,
            own if entered.method.personal else {},
            number=self._own.number,
            backbone=self._own.found_at,
            folder=self._own.folder,
        )
        self._note(
            f"finished: the model is in {self._own.folder / 'model'}; fedmpt predict --checkpoint takes that folder. "
            "join may be stopped now (Ctrl-C); it stays in case the coordinator starts again"
        )
        return Message("finished")

    def _in_federation(self) -> Entered:
        if self._entered is None:
            raise InputError(NOT_ENTERED)
        return self._entered


NOT_ENTERED = "the site was started anew and has not entered yet"


def relabelled(features: FeatureSet, own: tuple[str, ...], wanted: tuple[str, ...]) -> FeatureSet:
    """The same images with labels of the classes ``wanted``; unknown where the site's labels do not name one."""
    return replace(features, labels=align(features.labels, own, wanted, unlisted=UNKNOWN))
