"""Scores without a common test set: each site scores its own images, and what they tell is put together.

Between machines it is the only way; in one process ``--scoring summed`` does the same, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.data.features.store import FeatureSet
from fedmpt.data.pairs import BiasedPairs, candidate_pairs, measurable, measured_pairs
from fedmpt.evaluation.calibration import Calibration, calibrate, score_histograms
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.metrics import METRICS, multilabel_scores
from fedmpt.evaluation.site_labels import site_labels
from fedmpt.evaluation.sums import NO_PAIRS, ScoreSums, client_sums, score_sums, summed_scores
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared
from fedmpt.state import get_state, set_state
from fedmpt.types import InputError, Pair

WITHOUT_COUNTS = (
    "context shift is not measured: which classes come together is known by counts of labels, which clients tell only "
    "with --balance or --soft-ties"
)


@runtime_checkable
class Sources(Protocol):
    """Who asks the sites for sums."""

    def histograms(self, model: FinalModel) -> dict[str, Int64[Tensor, "2 C bins"]]:
        """Of each site's training images, as `fedmpt.evaluation.calibration.calibrate` takes them."""
        ...

    def sums(
        self, model: FinalModel, *, thresholds: Tensor, pairs: Sequence[Pair], own: bool = False
    ) -> dict[str, ScoreSums]:
        """Of each site's test images; with ``own`` of its own model."""
        ...


@dataclass(frozen=True)
class Summed:
    """Scores the final model by what sites tell. ``test`` are images at the coordinator, if it has any.

    Context shift is of the ``given`` pairs, or where there are none, of ``candidates`` that have test images enough.
    """

    sources: Sources
    class_names: tuple[str, ...]
    candidates: BiasedPairs
    given: BiasedPairs = NO_PAIRS
    test: FeatureSet | None = None

    def calibration(self, model: FinalModel) -> Calibration:
        found = self.sources.histograms(model)
        if not found:
            raise InputError(
                "no site says how its training images score, so the model cannot be calibrated; start again"
            )
        return calibrate([found[site] for site in sorted(found)])

    def scores(self, model: FinalModel, calibration: Calibration) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        thresholds = calibration.thresholds
        asked = self.given if self.given.per_pair else self.candidates
        found = self.sources.sums(model, thresholds=thresholds, pairs=asked.pairs)
        if any(map(is_scored, found.values())):
            sums, pairs = sum_of(found), self.given
            if not pairs.per_pair:
                pairs, places = measurable(self.candidates, sums.contexts.sum(-1))
                sums = replace(sums, contexts=sums.contexts[places])
            scores |= summed_scores(sums, self.class_names, thresholds=thresholds, pairs=pairs)
            scores["sites"] = [{"name": site, **self._metrics(sums)} for site, sums in found.items() if is_scored(sums)]
            tables = {site: sums.histograms for site, sums in found.items() if is_scored(sums)}
            if len(tables) > 1:
                scores["site_labels"] = site_labels(tables, self.class_names).to_json()
        if found and model.method.personal:
            own = self.sources.sums(model, thresholds=thresholds, pairs=(), own=True)
            rows = [{"name": site, **self._metrics(sums)} for site, sums in own.items() if is_scored(sums)]
            if rows:
                scores["test_personal"] = {**self._metrics(sum_of(own)), "clients": rows}
        if self.test is not None:
            at_server = multilabel_scores(model.probabilities(self.test), self.test.labels)
            scores["server_test"] = at_server.to_json(self.class_names)
        return scores

    def _metrics(self, sums: ScoreSums) -> dict[str, float]:
        test = summed_scores(sums, self.class_names, thresholds=None, pairs=NO_PAIRS)["test"]
        return {"images": int(sums.images), **{metric: test[metric] for metric in METRICS}}


def candidates_of(counts: LabelCounts | None) -> BiasedPairs:
    """The pairs whose test images sites count; none where nobody told counts of labels."""
    return NO_PAIRS if counts is None else candidate_pairs(counts.singles, counts.pairs, counts.known)


def is_scored(sums: ScoreSums) -> bool:
    """Whether any image of a site shows any of the classes."""
    return bool(sums.decisions[2].any())


def sum_of(sums: Mapping[str, ScoreSums]) -> ScoreSums:
    """All sites' sums, added in the order of their names."""
    first, *others = (sums[site] for site in sorted(sums))
    for other in others:
        first = first + other
    return first


@dataclass(frozen=True)
class Here:
    """Clients of this process, each asked for the sums of its own images.

    Test images belong to the site that the data name; where they name none, all of them are scored together.
    """

    prepared: Prepared

    @classmethod
    def scorer(cls, config: RunConfig, prepared: Prepared) -> Summed:
        """Pairs whose tie was cut are given; other pairs are chosen as between machines."""
        given = measured_pairs(prepared.data, prepared.test.labels) if prepared.data.pairs else NO_PAIRS
        candidates = candidates_of(prepared.counts if config.needs_counts else None)
        return Summed(cls(prepared), prepared.data.class_names, candidates, given)

    def histograms(self, model: FinalModel) -> dict[str, Int64[Tensor, "2 C bins"]]:
        train = self.prepared.train
        return {ALL: score_histograms(model.probabilities(train), train.labels)}

    def sums(
        self, model: FinalModel, *, thresholds: Tensor, pairs: Sequence[Pair], own: bool = False
    ) -> dict[str, ScoreSums]:
        test, owners = self.prepared.test, self._owners()
        names = sorted(set(owners))
        clients = torch.tensor([names.index(owner) for owner in owners])
        if not own:  # Scored at once, text features are computed once.
            found = client_sums(
                model.probabilities(test),
                test.labels,
                clients,
                num_clients=len(names),
                thresholds=thresholds,
                pairs=pairs,
            )
            return dict(zip(names, found, strict=True))
        return {
            name: self._own_sums(model, name, test.subset((clients == number).nonzero().flatten()), thresholds)
            for number, name in enumerate(names)
        }

    def _own_sums(self, model: FinalModel, name: str, test: FeatureSet, thresholds: Tensor) -> ScoreSums:
        """Of a site's own model on its test images. The method is left as it was."""
        method, numbers = model.method, {name: number for number, name in enumerate(self.prepared.partition.names)}
        before = get_state(method)
        tensors = model.personal.get(numbers.get(name, -1), model.initial)
        set_state(method, {**model.shared, **tensors}, source=f"personal tensors of {name}")
        sums = score_sums(model.probabilities(test), test.labels, thresholds=thresholds, pairs=())
        set_state(method, before)
        return sums

    def _owners(self) -> list[str]:
        """Whose each test image is."""
        test, column = self.prepared.test, self.prepared.data.client_column
        if column is None or column not in test.split.columns:
            return [ALL] * len(test)
        return [test.split.columns[column][row] for row in test.rows.tolist()]


ALL = "all clients"
