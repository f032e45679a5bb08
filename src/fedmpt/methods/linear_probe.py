"""A linear probe: logistic regression on the frozen model's feature of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.types import Backbone, Batch


class LinearProbe(Method):
    """P(c) = sigmoid(w_c . x + b_c), x the normalised pooled feature. State: ``weight`` [C, D] and ``bias`` [C].

    With t_c the normalised text feature of "a photo of a CLASS." and s the model's logit scale, w_c starts as
    s (t_c - mean t) and b_c as 0. That ranks the classes of an image as zero-shot CLIP does. Without the mean, log-odds
    would be 15 to 30 whatever the image shows, and every probability one.
    """

    def __init__(
        self, config: LinearProbeConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        text = hand_written_features(self.tower, class_names)
        self.weight = nn.Parameter(self.logit_scale * (text - text.mean(0)))
        self.bias = nn.Parameter(torch.zeros(len(class_names)))

    def encode_text(self) -> Float[Tensor, "C D"]:
        return self.weight

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        weight = self.encode_text() if text is None else text
        return F.linear(F.normalize(batch.pooled, dim=-1), weight, self.bias).sigmoid()


@dataclass(frozen=True)
class LinearProbeConfig(MethodConfig):
    """Logistic regression on the pooled feature, started at zero-shot CLIP."""

    name: ClassVar[str] = "linear-probe"
    summary: ClassVar[str] = "logistic regression on the pooled feature, started at zero-shot"
    source: ClassVar[str] = "Radford et al. 2021; started as in Wortsman et al. 2022 (WiSE-FT)"
    method: ClassVar = LinearProbe
    # Features are of length one: at the rates of prompts, log-odds of ten and more would stay as they start.
    learning_rate: ClassVar[float] = 15.0
    paper_learning_rate: ClassVar[float] = 15.0
