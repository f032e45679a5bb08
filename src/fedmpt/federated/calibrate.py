"""Federated calibration: decision thresholds from clients' histograms, without any test label.

FedMPT's probability is a share of a softmax, so 0.5 is no natural cut. Every client counts, for each class, the
training scores of present and of absent labels; the server adds the counts up and picks each class's threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8, Int64
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT

LOG_ODDS_LIMIT = 10.0
NUM_BINS = 400


@dataclass(frozen=True)
class Calibration:
    """What the server derives: probabilities above ``thresholds`` count as present, and ``sigmoid(scale * logit(p) +
    bias)`` is a calibrated probability."""

    thresholds: Float[Tensor, " C"]
    scale: Float[Tensor, " C"]
    bias: Float[Tensor, " C"]

    def calibrated(self, probabilities: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        return (self.scale * probabilities.logit(eps=1e-6) + self.bias).sigmoid()


def score_histograms(
    probabilities: Float[Tensor, "images C"], labels: Int8[Tensor, "images C"]
) -> Int64[Tensor, "2 C bins"]:
    """Counts of a client's scores for absent ([0]) and present ([1]) labels, in equal bins of log-odds."""
    log_odds = probabilities.double().logit(eps=1e-9).clamp(-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    bins = ((log_odds + LOG_ODDS_LIMIT) / (2 * LOG_ODDS_LIMIT) * NUM_BINS).long().clamp_max(NUM_BINS - 1)
    counts = torch.zeros(2, labels.shape[1], NUM_BINS, dtype=torch.int64)
    for index, value in enumerate((ABSENT, PRESENT)):
        counts[index].scatter_add_(1, bins.T, (labels == value).long().T)
    return counts


def calibrate(histograms: Iterable[Int64[Tensor, "2 C bins"]]) -> Calibration:
    """Thresholds that maximise each class's F1 on the summed counts, and its scale and bias on the log-odds.

    A class without present or without absent labels keeps threshold 0.5, scale 1 and bias 0.

    Raises:
        ValueError: if there are no histograms.
    """
    counts = sum(histograms)
    if not isinstance(counts, Tensor):
        raise ValueError("no client sent a histogram")
    known = (counts.sum(-1) > 0).all(0)
    thresholds = _f1_thresholds(counts)
    scale, bias = _logistic_fit(counts)
    return Calibration(
        thresholds=torch.where(known, thresholds, 0.5),
        scale=torch.where(known, scale, 1.0),
        bias=torch.where(known, bias, 0.0),
    )


def _f1_thresholds(counts: Int64[Tensor, "2 C bins"]) -> Float[Tensor, " C"]:
    """Lower edges, as probabilities, of the bins from which on counting everything as present gives the best F1."""
    above = counts.flip(-1).cumsum(-1).flip(-1).double()
    f1 = 2 * above[1] / (above.sum(0) + counts[1].sum(-1, keepdim=True)).clamp_min(1)
    edges = torch.linspace(-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT, NUM_BINS + 1, dtype=torch.float64)[:-1]
    return edges[f1.argmax(-1)].sigmoid().float()


def _logistic_fit(
    counts: Int64[Tensor, "2 C bins"], *, num_steps: int = 50
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Platt scaling (1999) of all classes at once: Newton on the binned log-odds, with his smoothed targets."""
    width = 2 * LOG_ODDS_LIMIT / NUM_BINS
    centres = torch.linspace(-LOG_ODDS_LIMIT + width / 2, LOG_ODDS_LIMIT - width / 2, NUM_BINS, dtype=torch.float64)
    features = torch.stack([centres, torch.ones_like(centres)])
    absent, present = counts.double()
    num_absent, num_present = absent.sum(-1, keepdim=True), present.sum(-1, keepdim=True)
    target = present * (num_present + 1) / (num_present + 2) + absent / (num_absent + 2)
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(counts.shape[1], 1)
    ridge = 1e-6 * torch.eye(2, dtype=torch.float64)
    for _ in range(num_steps):
        predicted = (weights @ features).sigmoid()
        gradient = ((absent + present) * predicted - target) @ features.T
        curvature = (absent + present) * predicted * (1 - predicted)
        hessian = torch.einsum("cb,ib,jb->cij", curvature, features, features) + ridge
        step = torch.linalg.solve(hessian, gradient)
        weights = weights - step.clamp(-1, 1)
        if step.abs().max() < 1e-8:
            break
    return weights[:, 0].float(), weights[:, 1].float()
