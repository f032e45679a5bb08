"""Scores as histograms, which add up over sites, and what average precision can be where only these are known.

Bins are equal steps of asinh(log-odds / 0.3): a hundredth of a log-odd wide where most scores lie, wider and wider
towards log-odds of +-21. Bins of equal width need four times as many for the same bounds, see docs/federation.md.
`fedmpt.evaluation.calibration` has its own bins, in which thresholds of earlier runs were found.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

NUM_BINS = 400
_LIMIT, _CORE = 21.0, 0.3
_STEPS = torch.linspace(-1, 1, 2 * NUM_BINS + 1, dtype=torch.float64) * math.asinh(_LIMIT / _CORE)
_EDGES, CENTRES = _CORE * _STEPS[2:-1:2].sinh(), _CORE * _STEPS[1::2].sinh()
"""Log-odds between the bins, and in the middle of each."""


def score_bins(probabilities: Float[Tensor, "images C"]) -> Int64[Tensor, "images C"]:
    """The bin of each probability in single precision. Above 0.5 are the bins from ``NUM_BINS / 2`` on.

    The last bin holds no other number than 1: the next lower one has log-odds of 16.6.
    """
    return torch.bucketize(probabilities.float().double().logit(eps=1e-9), _EDGES, right=True)


def count_scores(bins: Int64[Tensor, "images C"], chosen: Bool[Tensor, "images C"]) -> Int64[Tensor, "C bins"]:
    """How many of the chosen scores of each class are in each bin."""
    counts = torch.zeros(bins.shape[1], NUM_BINS, dtype=torch.int64)
    return counts.scatter_add_(1, bins.T, chosen.long().T)


def average_precisions(present: Int64[Tensor, "K bins"], absent: Int64[Tensor, "K bins"]) -> Float64[Tensor, "3 K"]:
    """Average precision in percent, 0 to 100: the lowest, the most likely and the highest that the counts allow.

    The bounds are exact: some order of the scores within bins reaches each. With h of the n scores in higher bins
    present, and p present and q absent ones in a bin, precision at a present score there is at most (h + p) / (n + p),
    as where all present ones tie above the absent ones. The j-th from the top has at least (h + j) / (n + q + j), as
    where they come one by one below them. Scores of the last bin are all the same, so nothing is open there. Likely is
    that present and absent ones alternate: (h + j) / (n + j + q j / (p + 1)). NaN where no score is present.
    """
    p, q = (counts.flip(-1).double() for counts in (present, absent))
    h, n = p.cumsum(-1) - p, (p + q).cumsum(-1) - (p + q)
    lowest = p - (n + q - h) * _harmonic(n + q, p)
    highest = p * (h + p) / (n + p).clamp_min(1)
    step = 1 + q / (p + 1)
    likely = p / step + (h - n / step) / step * _harmonic(n / step, p)
    for gained in (lowest, likely, highest):
        gained[..., 0] = p[..., 0] ** 2 / (p + q)[..., 0].clamp_min(1)
    # Where nothing is open, the three differ by rounding.
    lowest, likely, highest = (gained.sum(-1) / p.sum(-1) for gained in (lowest, likely, highest))
    return 100 * torch.stack([lowest.minimum(highest), likely.minimum(highest), highest])


def _harmonic(start: Float64[Tensor, "K bins"], size: Float64[Tensor, "K bins"]) -> Float64[Tensor, "K bins"]:
    """The sum of 1 / (start + j) for j from 1 to size."""
    return torch.digamma(start + size + 1) - torch.digamma(start + 1)
