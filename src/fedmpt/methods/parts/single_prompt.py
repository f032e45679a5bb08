"""What methods with one text feature a class share: the CSRA head and its calibration."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.base import Method
from fedmpt.methods.parts.heads import SigmoidCalibration, csra_logits, csra_tokens
from fedmpt.types import Backbone, Batch


class SinglePromptMethod(Method):
    """One text feature a class against the image's tokens, whichever way a method comes by either.

    State: ``calibration.scale`` and ``calibration.bias``, one number each, beside what the method itself trains.
    """

    def __init__(self, backbone: Backbone, class_names: Sequence[str]) -> None:
        super().__init__(backbone, class_names)
        self.calibration = SigmoidCalibration()

    @abstractmethod
    def encode_text(self) -> Float[Tensor, "C D"]:
        """Text features of the classes; need not be normalised."""

    def image_tokens(self, batch: Batch, text: Float[Tensor, "C D"]) -> Float[Tensor, "B tokens D"]:
        """What the head attends to: the frozen features, unless a method changes them."""
        return csra_tokens(batch)

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        return self.calibration(csra_logits(self.image_tokens(batch, text), text))
