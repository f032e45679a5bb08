"""Scores without a common test set: each site scores its own images, and what they tell is put together.

Between machines it is the only way; in one process ``--scoring summed`` does the same, with the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import Calibration, calibrate
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.metrics import METRICS, multilabel_scores
from fedmpt.evaluation.sums import ScoreSums, score_sums, summed_scores
from fedmpt.runs.prepare import Prepared
from fedmpt.state import get_state, set_state
from fedmpt.types import PRESENT, InputError


@runtime_checkable
class Sources(Protocol):
    """Who asks the sites for sums."""

    def sums(
        self, model: FinalModel, split: str, *, thresholds: Tensor | None = None, own: bool = False
    ) -> dict[str, ScoreSums]:
        """Of each site on its images of ``split``, ``train`` or ``test``; with ``own`` of its own model."""
        ...


@dataclass(frozen=True)
class Summed:
    """Scores the final model by what sites tell. ``test`` are images at the coordinator, if it has any."""

    sources: Sources
    class_names: tuple[str, ...]
    test: FeatureSet | None = None

    def calibration(self, model: FinalModel) -> Calibration:
        found = self.sources.sums(model, "train")
        if not found:
            raise InputError(
                "no site says how its training images score, so the model cannot be calibrated; start again"
            )
        return calibrate([found[site].histograms for site in sorted(found)])

    def scores(self, model: FinalModel, calibration: Calibration) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        found = self.sources.sums(model, "test", thresholds=calibration.thresholds)
        if found:
            scores |= summed_scores(sum_of(found), self.class_names)
            scores["sites"] = self._rows(found)
        if found and model.method.personal:
            own = self.sources.sums(model, "test", thresholds=calibration.thresholds, own=True)
            scores["test_personal"] = {**_metrics(sum_of(own), self.class_names), "clients": self._rows(own)}
        if self.test is not None:
            at_server = multilabel_scores(model.probabilities(self.test), self.test.labels)
            scores["server_test"] = at_server.to_json(self.class_names)
        return scores

    def _rows(self, found: Mapping[str, ScoreSums]) -> list[dict[str, Any]]:
        """Each site's own scores; without those whose images show none of the classes."""
        return [
            {"name": site, "images": sums.num_images, **_metrics(sums, self.class_names)}
            for site, sums in found.items()
            if sums.histograms[PRESENT].any()
        ]


def _metrics(sums: ScoreSums, class_names: tuple[str, ...]) -> dict[str, float]:
    test = summed_scores(sums, class_names)["test"]
    return {metric: test[metric] for metric in METRICS}


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

    def sums(
        self, model: FinalModel, split: str, *, thresholds: Tensor | None = None, own: bool = False
    ) -> dict[str, ScoreSums]:
        prepared, method = self.prepared, self.prepared.method
        if split == "train":
            return {ALL: self._sums(model, prepared.train, thresholds)}
        numbers = {name: number for number, name in enumerate(prepared.partition.names)}
        found, before = {}, get_state(method)
        for name, rows in sorted(self._rows().items()):
            if own:
                tensors = model.personal.get(numbers.get(name, -1), model.initial)
                set_state(method, {**model.shared, **tensors}, source=f"personal tensors of {name}")
            found[name] = self._sums(model, prepared.test.subset(rows), thresholds)
        set_state(method, before)
        return found

    def _sums(self, model: FinalModel, features: FeatureSet, thresholds: Tensor | None) -> ScoreSums:
        return score_sums(model.probabilities(features), features.labels, thresholds=thresholds, pairs=())

    def _rows(self) -> dict[str, Int64[Tensor, "_"]]:
        """The test images of each site."""
        test, column = self.prepared.test, self.prepared.data.client_column
        if column is None or column not in test.split.columns:
            return {ALL: torch.arange(len(test))}
        owners = [test.split.columns[column][row] for row in test.rows.tolist()]
        return {
            name: torch.tensor([place for place, owner in enumerate(owners) if owner == name]) for name in set(owners)
        }


ALL = "all clients"
