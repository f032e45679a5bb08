"""Mean average precision on resampled images, all resamples at once: intervals for the difference of two models.

A resample is a count for each image, how often it was drawn. So images are sorted once and not once a resample.
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
    drawn = (
        torch.randint(num_images, (num_images,), generator=generator(seed, "bootstrap", resample))
        for resample in range(num_resamples)
    )
    return torch.stack([rows.bincount(minlength=num_images) for rows in drawn], 1).int().numpy()


def resampled_means(
    probabilities: Float[Tensor, "images C"], labels: Int8[Tensor, "images C"], counts: Int32[np.ndarray, "images R"]
) -> Float[np.ndarray, " R"]:
    """mAP of every resample, in percent; NaN where one has no positive.

    Unknown labels take part in nothing, ties are one step, and a class without a positive, here in the resample, is
    left out of the mean.
    """
    total, scored = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for scores, answers in zip(probabilities.T.numpy(), labels.T.numpy(), strict=True):
        if (answers == PRESENT).any():
            known = answers != UNKNOWN
            gained, num_present = _precisions(scores[known], answers[known] == PRESENT, counts[known])
            total += gained / np.maximum(num_present, 1)
            scored += num_present > 0
    return np.where(scored > 0, 100 * total / np.maximum(scored, 1), np.nan)


def _precisions(scores: np.ndarray, present: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the precisions at each positive, and the number of positives, in each resample."""
    order = np.argsort(-scores, kind="stable")
    scores, present, counts = scores[order], present[order], counts[order]
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # The last image of those of the same score.
    above = counts.cumsum(0, dtype=np.int32)[ends]
    hits = (counts * present[:, None]).cumsum(0, dtype=np.int32)[ends]
    # Where nothing was drawn so far there are no hits either, so that dividing by one gives 0.
    return (np.diff(hits, axis=0, prepend=0) * (hits / np.maximum(above, 1))).sum(0), hits[-1]


def difference_interval(before: Float[np.ndarray, " R"], after: Float[np.ndarray, " R"]) -> list[float] | list[None]:
    """Where 95% of ``before - after`` lie, which must be of the same resamples; None where no difference is defined."""
    differences = (before - after)[~np.isnan(before - after)]
    return np.quantile(differences, [0.025, 0.975]).tolist() if len(differences) else [None, None]
