"""Trained class vectors: what prompt methods reach through the text tower, trained without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.heads import SinglePromptMethod, rate_unit
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.types import Backbone, check_options


class ClassVectors(SinglePromptMethod):
    """State: ``vectors`` [C, D], which start as the normalised text features of "a photo of a CLASS.", and the head's
    calibration."""

    def __init__(
        self, config: ClassVectorsConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "[0, inf)", "vector_rate")
        self.vector_rate = config.vector_rate
        self.hand_written = hand_written_features(self.tower, class_names)
        self.vectors = nn.Parameter(self.hand_written.clone())

    def learning_rate_factors(self) -> dict[str, float]:
        return {"vectors": self.vector_rate * rate_unit(self.hand_written, self.logit_scale)}

    def encode_text(self) -> Float[Tensor, "C D"]:
        return self.vectors


@dataclass(frozen=True)
class ClassVectorsConfig(MethodConfig):
    """A trained vector for each class in place of its text feature, with the CSRA head."""

    name: ClassVar[str] = "class-vectors"
    summary: ClassVar[str] = "a trained vector for each class, started at its text feature"
    source: ClassVar[str] = "after Yu et al. 2023 (TaskRes), CVPR"
    method: ClassVar = ClassVectors
    familiar_spread: ClassVar[float | None] = 2.0

    vector_rate: float = 10.0
    """Factor on the learning rate for the vectors, in units of the model: its logit scale, and how far texts lie
    apart."""
