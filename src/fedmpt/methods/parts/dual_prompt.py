"""What methods share that have two text features a class: one for "it is there", one for "it is not"."""

from __future__ import annotations

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.base import Method
from fedmpt.methods.parts.heads import csra_tokens, dual_probabilities
from fedmpt.types import Batch


class DualPromptMethod(Method):
    """Two text features a class against the image's tokens, by the head of DualCoOp (Sun et al. 2022).

    The head compares the two, so its probabilities need no calibration. The asymmetric loss of its paper, on the pair
    of probabilities, is that of `Method.loss`: the second of the pair is one minus the first.
    """

    @abstractmethod
    def encode_text(self) -> Float[Tensor, "2 C D"]:
        """Text features of the classes, first the positive, then the negative ones; need not be normalised."""

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        positive, negative = self.encode_text() if text is None else text
        return dual_probabilities(csra_tokens(batch), positive, negative, logit_scale=self.logit_scale)
