"""Federated calibration: decision thresholds from clients' histograms, without any test label.

FedMPT's probability is a share of a softmax, so 0.5 is no natural cut. Every client counts, for each class, the
training scores of present and of absent labels; the server adds the counts up and picks each class's threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor

from fedmpt.methods.parts.heads import scaled_log_odds
from fedmpt.types import ABSENT, PRESENT

LOG_ODDS_LIMIT = 10.0
NUM_BINS = 400
MIN_SCALE = 1e-3


@dataclass(frozen=True)
class Calibration:
    """What the server derives: probabilities above ``thresholds`` count as present, and ``sigmoid(scale * logit(p) +
    bias)`` is a calibrated probability."""

    thresholds: Float[Tensor, " C"]
    scale: Float[Tensor, " C"]
    bias: Float[Tensor, " C"]

    def calibrated(self, probabilities: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        return scaled_log_odds(probabilities, self.scale, self.bias)


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


def mean_average_precision(counts: Int64[Tensor, "2 C bins"]) -> float:
    """Mean average precision in percent, 0 to 100, of scores of which only the summed histograms are known.

    It is `multilabel_scores`' mAP of the scores rounded to bins, so scores of one bin are ties. Classes without a
    present label are left out of the mean.

    Raises:
        ValueError: if no class has a present label.
    """
    hits, seen = (part.flip(-1).cumsum(-1).double() for part in (counts[1], counts.sum(0)))
    gained = counts[1].flip(-1) * hits / seen.clamp_min(1)
    shown = counts[1].sum(-1) > 0
    if not shown.any():
        raise ValueError("no label is present, so no average precision is defined")
    return 100 * float((gained.sum(-1)[shown] / counts[1].sum(-1)[shown]).mean())


def calibrate(histograms: Iterable[Int64[Tensor, "2 C bins"]]) -> Calibration:
    """Thresholds that maximise each class's F1 on the summed counts, and its scale and bias on the log-odds.

    A class without present or without absent labels keeps threshold 0.5, scale 1 and bias 0; where scores say
    nothing or run backwards, scale is 1 and the bias leads to the class's rate.

    Raises:
        ValueError: if there are no histograms.
    """
    counts = sum(histograms)
    if not isinstance(counts, Tensor):
        raise ValueError("no client sent a histogram")
    known = (counts.sum(-1) > 0).all(0)
    scale, bias = _logistic_fits(counts, known).unbind(-1)
    return Calibration(thresholds=torch.where(known, _f1_thresholds(counts), 0.5), scale=scale, bias=bias)


def _f1_thresholds(counts: Int64[Tensor, "2 C bins"]) -> Float[Tensor, " C"]:
    """Lower edges, as probabilities, of the bins from which on counting everything as present gives the best F1."""
    above = counts.flip(-1).cumsum(-1).flip(-1).double()
    f1 = 2 * above[1] / (above.sum(0) + counts[1].sum(-1, keepdim=True)).clamp_min(1)
    edges = torch.linspace(-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT, NUM_BINS + 1, dtype=torch.float64)[:-1]
    edges[0] = -torch.inf  # The first bin also holds all that lies below it.
    return edges[f1.argmax(-1)].sigmoid().float()


def _logistic_fits(counts: Int64[Tensor, "2 C bins"], known: Bool[Tensor, " C"]) -> Float[Tensor, "C 2"]:
    """Scale and bias of every known class by Platt scaling (1999): logistic regression with his smoothed targets."""
    # Imported here: it takes a second, and only the end of a run needs it.
    from sklearn.linear_model import LogisticRegression

    width = 2 * LOG_ODDS_LIMIT / NUM_BINS
    centres = np.linspace(-LOG_ODDS_LIMIT + width / 2, LOG_ODDS_LIMIT - width / 2, NUM_BINS)
    fits = torch.tensor([[1.0, 0.0]]).repeat(counts.shape[1], 1)
    for index in known.nonzero()[:, 0].tolist():
        absent, present = counts[:, index].double().numpy()
        target = present * (present.sum() + 1) / (present.sum() + 2) + absent / (absent.sum() + 2)
        weights = np.concatenate([absent + present - target, target])
        answers = np.repeat([0, 1], NUM_BINS)
        # Practically without penalty; Newton, since scores that lie close together make the problem ill-conditioned.
        regression = LogisticRegression(C=1e6, solver="newton-cholesky", tol=1e-8, max_iter=1000)
        regression.fit(np.tile(centres, 2)[:, None], answers, sample_weight=weights)
        scale, bias = regression.coef_[0, 0], regression.intercept_[0]
        if scale < MIN_SCALE:  # Scores that say nothing or run backwards keep their order, around the class's rate.
            rate, mean = target.sum() / weights.sum(), np.average(centres, weights=absent + present)
            scale, bias = 1.0, np.log(rate / (1 - rate)) - mean
        fits[index] = torch.tensor([scale, bias])
    return fits
