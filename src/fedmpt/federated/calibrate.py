"""Federated calibration: decision thresholds from clients' histograms, without any test label.

FedMPT's probability is a share of a softmax, so 0.5 is no natural cut. Every client counts, for each class, the
training scores of present and of absent labels; the server adds the counts up and picks each class's threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    edges[0] = -torch.inf  # The first bin also holds all that lies below it.
    return edges[f1.argmax(-1)].sigmoid().float()


def _logistic_fit(counts: Int64[Tensor, "2 C bins"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Platt scaling (1999) of all classes at once, on the binned log-odds, with his smoothed targets."""
    width = 2 * LOG_ODDS_LIMIT / NUM_BINS
    centres = torch.linspace(-LOG_ODDS_LIMIT + width / 2, LOG_ODDS_LIMIT - width / 2, NUM_BINS, dtype=torch.float64)
    absent, present = counts.double()
    total = absent + present
    num_labels = total.sum(-1, keepdim=True).clamp_min(1)
    num_absent, num_present = absent.sum(-1, keepdim=True), present.sum(-1, keepdim=True)
    target = present * (num_present + 1) / (num_present + 2) + absent / (num_absent + 2)
    # Scores of many classes lie far from zero and close together: without standardising, scale and bias are one.
    mean = (total * centres).sum(-1, keepdim=True) / num_labels
    variance = (total * (centres - mean) ** 2).sum(-1, keepdim=True) / num_labels
    spread = variance.sqrt().clamp_min(width)
    rate = (target.sum(-1, keepdim=True) / num_labels).clamp(1e-6, 1 - 1e-6)
    features = torch.stack([(centres - mean) / spread, torch.ones_like(target)], dim=1)
    weights = _newton(features, total, target, start=torch.cat([spread, rate.logit()], dim=1))
    scale = weights[:, :1] / spread
    return scale[:, 0].float(), (weights[:, 1:] - scale * mean)[:, 0].float()


def _newton(
    features: Float[Tensor, "C 2 bins"],
    total: Float[Tensor, "C bins"],
    target: Float[Tensor, "C bins"],
    *,
    start: Float[Tensor, "C 2"],
    num_steps: int = 100,
) -> Float[Tensor, "C 2"]:
    """Weights that minimise the logistic loss with ``target`` of the ``total`` counted present, for every class."""

    def loss(weights: Tensor) -> Float[Tensor, " C"]:
        logits = torch.einsum("ci,cib->cb", weights, features)
        return (total * F.softplus(logits) - target * logits).sum(-1)

    weights, lowest = start, loss(start)
    ridge = 1e-9 * total.sum(-1).clamp_min(1)[:, None, None] * torch.eye(2, dtype=torch.float64)
    for _ in range(num_steps):
        predicted = torch.einsum("ci,cib->cb", weights, features).sigmoid()
        gradient = torch.einsum("cb,cib->ci", total * predicted - target, features)
        curvature = total * predicted * (1 - predicted)
        step = torch.linalg.solve(torch.einsum("cb,cib,cjb->cij", curvature, features, features) + ridge, gradient)
        length = torch.ones_like(lowest)
        # Far from the optimum the curvature vanishes and a full step overshoots: halve it until the loss falls.
        while ((worse := loss(weights - length[:, None] * step) > lowest) & (length > 1e-12)).any():
            length = torch.where(worse, length / 2, length)
        moved = torch.where(worse[:, None], weights, weights - length[:, None] * step)
        change, weights = (moved - weights).abs().max(), moved
        lowest = loss(weights)
        if change < 1e-10:
            break
    return weights
