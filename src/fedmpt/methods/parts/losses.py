"""Losses on probabilities with unknown labels.

``weights`` say how much each label counts, see `fedmpt.types.Batch`; None: all the same.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int8
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, UNKNOWN


def asymmetric_loss(
    probabilities: Float[Tensor, "B C"],
    labels: Int8[Tensor, "B C"],
    weights: Float[Tensor, "B C"] | None = None,
    *,
    gamma_positive: float = 1.0,
    gamma_negative: float = 2.0,
    margin: float = 0.05,
) -> Float[Tensor, ""]:
    """Asymmetric loss of Ridnik et al. 2021 on probabilities: summed over classes, averaged over images.

    ``-y (1 - p)^g+ log p - (1 - y) q^g- log(1 - q)`` with ``q = max(p - margin, 0)``. Entries labelled unknown count
    nothing. The focal weights carry no gradient.
    """
    smallest = 1e-30
    shifted = (probabilities - margin).clamp_min(0)
    # Ridnik et al. and DualCoOp hold the focal weights constant in the gradient; the FedMPT paper does not say.
    hard_positive = (1 - probabilities).detach() ** gamma_positive
    hard_negative = shifted.detach() ** gamma_negative
    positive = hard_positive * probabilities.clamp_min(smallest).log()
    negative = hard_negative * (1 - shifted).clamp_min(smallest).log()
    return _mean_over_images(-positive.where(labels == PRESENT, negative), labels, weights)


def text_anchor_loss(text: Float[Tensor, "C D"], anchor: Float[Tensor, "C D"]) -> Float[Tensor, ""]:
    """One minus the mean cosine of text features with those of hand-written prompts (KgCoOp, Yao et al. 2023)."""
    return 1 - F.cosine_similarity(text, anchor, dim=-1).mean()


def focal_margin_loss(
    probabilities: Float[Tensor, "B C"],
    labels: Int8[Tensor, "B C"],
    weights: Float[Tensor, "B C"] | None = None,
    *,
    given: Int8[Tensor, "B C"] | None = None,
    gamma: float = 2.0,
    margin: float = 1.0,
) -> Float[Tensor, ""]:
    """Focal loss with a margin for positives (Zhang et al. 2021): summed over classes, averaged over images.

    ``-y (1 - p')^g log p' - (1 - y) p^g log(1 - p)``, where the log-odds of ``p'`` are those of ``p`` minus the margin.
    Where ``labels`` are corrected, ``given`` are those before: what was not present there has no margin, ``p' = p``.
    Entries labelled unknown count nothing.
    """
    smallest = 1e-30
    held_back = probabilities * math.exp(-margin)
    held_back = held_back / (held_back + 1 - probabilities)
    if given is not None:
        held_back = held_back.where(given == PRESENT, probabilities)
    positive = (1 - held_back) ** gamma * held_back.clamp_min(smallest).log()
    negative = probabilities**gamma * (1 - probabilities).clamp_min(smallest).log()
    return _mean_over_images(-positive.where(labels == PRESENT, negative), labels, weights)


def _mean_over_images(
    per_label: Float[Tensor, "B C"], labels: Int8[Tensor, "B C"], weights: Float[Tensor, "B C"] | None
) -> Float[Tensor, ""]:
    if weights is not None:
        per_label = per_label * weights
    # The paper leaves the reduction open; a sum over classes keeps the step size independent of their number.
    return per_label.masked_fill(labels == UNKNOWN, 0).sum(-1).mean()


def corrected_labels(
    probabilities: Float[Tensor, "B C"], labels: Int8[Tensor, "B C"], *, threshold: float = 0.6
) -> Int8[Tensor, "B C"]:
    """Labels in which what is marked absent, but found with more than ``threshold``, is present.

    The self-paced correction of Zhang et al. 2021 (SPLC), for annotations that name some of what an image shows and
    call all else absent. Unknown labels stay unknown.
    """
    return labels.masked_fill((labels == ABSENT) & (probabilities > threshold), PRESENT)


def pseudo_labels(labels: Int8[Tensor, "n C"], found: Float[Tensor, "n C"], *, threshold: float) -> Int8[Tensor, "n C"]:
    """Labels in which what is unknown, but ``found`` with at least ``threshold``, is present, and what is found with at
    most one minus ``threshold`` is absent."""
    is_unknown = labels == UNKNOWN
    present, absent = found >= threshold, found <= 1 - threshold
    return labels.masked_fill(is_unknown & present, PRESENT).masked_fill(is_unknown & absent, ABSENT)


def squared_distance(
    probabilities: Float[Tensor, "B C"], target: Float[Tensor, "B C"], labels: Int8[Tensor, "B C"]
) -> Float[Tensor, ""]:
    """Of the probabilities of unknown labels from ``target``: summed over classes, averaged over images."""
    apart = (probabilities - target.to(probabilities.device)).square()
    return apart.masked_fill(labels != UNKNOWN, 0).sum(-1).mean()


def binary_cross_entropy(
    probabilities: Float[Tensor, "B C"], target: Float[Tensor, "B C"], counted: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Of two outcomes, each class by itself, in the images that are ``counted``.

    Summed over classes, averaged over all images. NaN gives NaN, which torch's own routine refuses with an error.
    """
    smallest = 1e-30
    present = target * probabilities.clamp_min(smallest).log()
    absent = (1 - target) * (1 - probabilities).clamp_min(smallest).log()
    return -(present + absent).sum(-1).where(counted, 0).mean()


def multi_matching_loss(
    logits: Float[Tensor, "B C"], labels: Int8[Tensor, "B C"], weights: Float[Tensor, "B C"] | None = None
) -> Float[Tensor, ""]:
    """Contrast of the pairs of image and class that match with all pairs of the batch (RAM, Tan et al. 2025).

    Minus the mean over present labels of the log softmax over all B x C logits together. Entries labelled unknown are
    left out of the softmax; a batch without present labels costs nothing. Only weights of present labels are read.
    """
    # The smallest number has no share of the softmax, and unlike -inf it gives no NaN where all labels are unknown.
    known = logits.masked_fill(labels == UNKNOWN, torch.finfo(logits.dtype).min)
    shares = known.flatten().log_softmax(0).unflatten(0, logits.shape)
    if weights is not None:
        shares = shares * weights
    is_present = labels == PRESENT
    return -shares.masked_fill(~is_present, 0).sum() / is_present.sum().clamp_min(1)
