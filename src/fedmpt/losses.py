"""Losses on probabilities with unknown labels."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from fedmpt.types import PRESENT, UNKNOWN


def asymmetric_loss(
    probabilities: Float[Tensor, "B C"],
    labels: Int8[Tensor, "B C"],
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
    per_label = -positive.where(labels == PRESENT, negative)
    # The paper leaves the reduction open; a sum over classes keeps the step size independent of their number.
    return per_label.masked_fill(labels == UNKNOWN, 0).sum(-1).mean()


def text_anchor_loss(text: Float[Tensor, "C D"], anchor: Float[Tensor, "C D"]) -> Float[Tensor, ""]:
    """One minus the mean cosine of text features with those of hand-written prompts (KgCoOp, Yao et al. 2023)."""
    return 1 - F.cosine_similarity(text, anchor, dim=-1).mean()
