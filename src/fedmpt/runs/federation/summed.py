"""Scores of a federation in which no test image leaves its site: what the sites tell, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import Calibration, calibrate
from fedmpt.evaluation.final import FinalModel
from fedmpt.evaluation.metrics import METRICS, multilabel_scores
from fedmpt.evaluation.sums import ScoreSums, summed_scores
from fedmpt.types import PRESENT, InputError, State


@dataclass(frozen=True)
class SummedScores:
    """What a round shows of summed scores, in percent."""

    mAP: float
    CF1: float
    OF1: float
    CF1_PR: float

    @classmethod
    def of(cls, sums: Mapping[str, ScoreSums], class_names: tuple[str, ...]) -> SummedScores:
        test = summed_scores(sum_of(sums), class_names)["test"]
        return cls(*(test[metric] for metric in METRICS))


@runtime_checkable
class Sources(Protocol):
    """Who asks the sites for sums; `fedmpt.runs.federation.coordinator.Coordinator` does."""

    def sums(
        self, state: State, split: str, *, thresholds: Tensor | None = None, own: bool = False
    ) -> dict[str, ScoreSums]: ...


@dataclass(frozen=True)
class Summed:
    """Scores the final model by what sites tell. ``test`` are images at the coordinator, if it has any."""

    sources: Sources
    class_names: tuple[str, ...]
    test: FeatureSet | None = None

    def calibration(self, model: FinalModel) -> Calibration:
        found = self.sources.sums(model.shared, "train")
        if not found:
            raise InputError(
                "no site says how its training images score, so the model cannot be calibrated; start again"
            )
        return calibrate([found[site].histograms for site in sorted(found)])

    def scores(self, model: FinalModel, calibration: Calibration) -> dict[str, Any]:
        scores: dict[str, Any] = {}
        found = self.sources.sums(model.shared, "test", thresholds=calibration.thresholds)
        if found:
            scores |= summed_scores(sum_of(found), self.class_names)
            scores["sites"] = self._rows(found)
        if found and model.method.personal:
            own = self.sources.sums(model.shared, "test", thresholds=calibration.thresholds, own=True)
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
