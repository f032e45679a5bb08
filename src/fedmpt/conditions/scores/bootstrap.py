"""Mean average precision on resampled images, all resamples at once: intervals for the difference of two models.

A resample is a count for each image, how often it was drawn. Sorting, which is most of the work of an average
precision, is then done once and not once a resample.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int8, Int32
from torch import Tensor

from fedmpt.seeding import generator
from fedmpt.types import PRESENT, UNKNOWN


def draw_counts(num_images: int, num_resamples: int, *, seed: int) -> Int32[np.ndarray, "images R"]:
    """How often each image is in each of R resamples, of ``num_images`` images each, drawn with replacement."""
    counts = np.empty((num_images, num_resamples), dtype=np.int32)
    for resample in range(num_resamples):
        drawn = torch.randint(num_images, (num_images,), generator=generator(seed, "bootstrap", resample))
        counts[:, resample] = np.bincount(drawn.numpy(), minlength=num_images)
    return counts


def resampled_means(
    probabilities: Float[Tensor, "images C"], labels: Int8[Tensor, "images C"], counts: Int32[np.ndarray, "images R"]
) -> Float[np.ndarray, " R"]:
    """``mAP`` of `multilabel_scores`, in percent, of every resample; NaN where one has no positive.

    As there, unknown labels take part in nothing, ties are one step, and a class without a positive, here in the
    resample, is left out of the mean.
    """
    total, scored = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for scores, answers in zip(probabilities.T.numpy(), labels.T.numpy(), strict=True):
        if not (answers == PRESENT).any():
            continue
        found = _average_precisions(scores, answers, counts)
        is_defined = ~np.isnan(found)
        total[is_defined] += found[is_defined]
        scored += is_defined
    return 100 * np.divide(total, scored, out=np.full_like(total, np.nan), where=scored > 0)


def difference_interval(
    before: Float[np.ndarray, " R"], after: Float[np.ndarray, " R"], *, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of ``before - after``, which must be of the same resamples; NaN where none is defined."""
    differences = before - after
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        return float("nan"), float("nan")
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _average_precisions(
    scores: Float[np.ndarray, " images"], answers: Int8[np.ndarray, " images"], counts: Int32[np.ndarray, "images R"]
) -> Float[np.ndarray, " R"]:
    """Average precision of one class in each resample; NaN where no positive was drawn."""
    rows = np.flatnonzero(answers != UNKNOWN)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    falling, present = -scores[rows], answers[rows] == PRESENT
    # Recall rises only at scores that positives have. `ends` are the numbers of images that score as high or higher.
    ends, first = np.unique(np.searchsorted(falling, falling[present], side="right"), return_index=True)
    above = np.add.reduceat(counts[rows[: ends[-1]]], np.append(0, ends[:-1]), axis=0).cumsum(axis=0)
    hits = np.add.reduceat(counts[rows[present]], first, axis=0)
    hits_above = hits.cumsum(axis=0)
    # Where nothing was drawn so far there are no hits either, so that dividing by one gives 0.
    gained = (hits * (hits_above / np.maximum(above, 1))).sum(axis=0)
    num_present = hits_above[-1].astype(float)
    return np.divide(gained, num_present, out=np.full_like(num_present, np.nan), where=num_present > 0)
