"""How classes go together, as probabilities: from counts of labels that were summed over clients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts

MIN_JOINT = 5
"""Images in which two classes must have been seen together to be tied: smaller counts are mostly chance."""
EPSILON = 1e-6
"""Probabilities are kept so far from 0 and 1 before log-odds are taken of them."""


@dataclass(frozen=True)
class Ties:
    """What summed counts say of classes together: 300 of 400 images with a car show a street, as do 500 of all 1,000.
    Then ``prior`` of street is 0.5, ``conditional[car, street]`` is 0.75, and ``lift[car, street]`` is 1.5.

    ``prior`` [C] is P(b), ``conditional`` [C, C] is P(b | a) in row a and column b, with ones on the diagonal, and
    ``lift`` [C, C] is P(a, b) / (P(a) P(b)), with zeros on the diagonal. A lift of 1 is independence. Two classes that
    were seen together in fewer than `MIN_JOINT` images are not tied, and neither is a class that no image has: their
    lift is 0, and P(b | a) is P(b).
    """

    prior: Float[Tensor, "C"]
    conditional: Float[Tensor, "C C"]
    lift: Float[Tensor, "C C"]

    @cached_property
    def excess(self) -> Float64[Tensor, "C C"]:
        """How much more likely a makes b, in log-odds: max(0, logit P(b | a) - logit P(b)) in row a and column b.

        Zeros on the diagonal. Computed once, since every batch needs it.
        """
        prior = self.prior.double().logit(EPSILON)
        return (self.conditional.double().logit(EPSILON) - prior).clamp_(min=0).fill_diagonal_(0)

    @classmethod
    def of(cls, counts: LabelCounts) -> Ties:
        """Ties in images of which some labels may be unknown; numbers that noise made negative count as 0.

        P(a) is a's share of the images where its label is known, and P(a, b) that of the pair where both are. Whether
        labels are known is taken to be independent of what they are. Where it is not, and by sampling and noise,
        P(a, b) can be more, or less, than P(a) and P(b) allow; it is moved to the bound.
        """
        known = counts.known.clamp(min=1).float()  # In float32, as all that is C x C.
        prior = (counts.singles.clamp(min=0) / known.diagonal()).clamp(max=1)
        joint = counts.pairs / known
        least, most = (prior[:, None] + prior).sub_(1).clamp_(min=0), torch.minimum(prior[:, None], prior)
        joint = torch.minimum(torch.maximum(joint, least, out=least), most, out=most)
        untied = (counts.pairs < MIN_JOINT) | (joint == 0)
        conditional = torch.where(untied, prior, joint / prior[:, None]).fill_diagonal_(1)
        return cls(prior, conditional, joint.div_(prior[:, None]).div_(prior).masked_fill_(untied, 0))
