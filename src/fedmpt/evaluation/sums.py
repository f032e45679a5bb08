"""Stand-in until the real one is merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedmpt.evaluation.calibration import mean_average_precision, score_histograms
from fedmpt.evaluation.metrics import METRICS
from fedmpt.types import PRESENT, UNKNOWN, State


@dataclass(frozen=True)
class ScoreSums:
    histograms: Tensor
    decisions: Tensor
    calibrated: Tensor
    num_images: int

    def __add__(self, other: ScoreSums) -> ScoreSums:
        return ScoreSums(
            self.histograms + other.histograms,
            self.decisions + other.decisions,
            self.calibrated + other.calibrated,
            self.num_images + other.num_images,
        )

    def to_tensors(self) -> dict[str, Tensor]:
        return {
            "histograms": self.histograms,
            "decisions": self.decisions,
            "calibrated": self.calibrated,
            "images": torch.tensor([self.num_images]),
        }

    @classmethod
    def from_tensors(cls, tensors: State, *, num_classes: int, source: str) -> ScoreSums:
        return cls(tensors["histograms"], tensors["decisions"], tensors["calibrated"], int(tensors["images"]))


def score_sums(probabilities: Tensor, labels: Tensor, *, thresholds: Tensor | None, pairs: Sequence[Any]) -> ScoreSums:
    def decisions(at: Tensor) -> Tensor:
        predicted = (probabilities > at) & (labels != UNKNOWN)
        present = labels == PRESENT
        return torch.stack([(predicted & present).sum(0), predicted.sum(0), present.sum(0)])

    half = torch.full((labels.shape[1],), 0.5)
    return ScoreSums(
        score_histograms(probabilities, labels),
        decisions(half),
        decisions(half if thresholds is None else thresholds),
        len(labels),
    )


def summed_scores(sums: ScoreSums, class_names: Sequence[str]) -> dict[str, Any]:
    def f1(counts: Tensor) -> dict[str, float]:
        hits, predicted, positives = counts.double()
        shown = positives > 0
        cf1 = (2 * hits[shown] / (predicted[shown] + positives[shown])).mean().item()
        precision = (hits[shown] / predicted[shown].clamp_min(1)).mean().item()
        recall = (hits[shown] / positives[shown]).mean().item()
        both = precision + recall
        overall = (2 * hits.sum() / (predicted.sum() + positives.sum())).item()
        return {"CF1": 100 * cf1, "OF1": 100 * overall, "CF1_PR": 200 * precision * recall / both if both else 0.0}

    mAP = mean_average_precision(sums.histograms)
    common = {"mAP": mAP, "num_images": sums.num_images}
    return {"test": {**common, **f1(sums.decisions)}, "test_calibrated": {**common, **f1(sums.calibrated)}}


@dataclass(frozen=True)
class SummedScores:
    """What a round shows of summed scores, in percent."""

    mAP: float
    CF1: float
    OF1: float
    CF1_PR: float

    @classmethod
    def of(cls, sums: ScoreSums) -> SummedScores:
        names = [str(number) for number in range(sums.histograms.shape[1])]
        test = summed_scores(sums, names)["test"]
        return cls(*(test[metric] for metric in METRICS))
