"""Soft ties: a class that the image itself leaves in doubt is held back where its usual company would suggest it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from fedmpt.conditions.labels.ties import EPSILON, Ties


def soft_ties(probabilities: Float[Tensor, "B C"], ties: Ties, strength: float) -> Float[Tensor, "B C"]:
    """Probabilities in [0, 1] with less of what classes owe to their company, of probabilities in [0, 1].

    For example, 7 of 10 training images with a bicycle show a person, and 4 of 10 of all do. In an image that surely
    shows a bicycle, and perhaps a person, the person becomes less likely; a person who is sure stays. With q the
    probabilities, z their log-odds and g the ``strength`` (0 or more; 0 gives ``probabilities`` themselves),

        z_b' = z_b - g (1 - q_b) sum over a != b of max(0, logit P(b | a) - logit P(b)) q_a.
    """
    if strength == 0:
        return probabilities
    # In double precision, since log-odds of probabilities near 1 lose most of their digits.
    sure = probabilities.double()
    moved = sure.logit(EPSILON) - strength * (1 - sure) * (sure @ ties.excess)
    return moved.sigmoid().to(probabilities.dtype)
