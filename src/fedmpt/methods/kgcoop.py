"""KgCoOp (Yao et al. 2023): PromptFL whose text features are held close to those of hand-written prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.parts.losses import text_anchor_loss
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.methods.promptfl import PromptFL, PromptFLConfig
from fedmpt.types import Backbone, Batch, check_options


class KgCoOp(PromptFL):
    """State: as PromptFL's. ``hand_written`` [C, D] are the normalised frozen features of "a photo of a CLASS."."""

    def __init__(
        self, config: KgCoOpConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        check_options(config, "[0, inf)", "anchor_weight")
        super().__init__(config, backbone, class_names, generator=generator)
        self.anchor_weight = config.anchor_weight
        # Paper has a template for each data set ("a photo of a CLASS, a type of pet."); this one fits them all.
        self.hand_written = hand_written_features(self.tower, class_names)

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        text = self.encode_text() if text is None else text
        # Paper's first term is the cross-entropy of one label an image.
        return super().loss(batch, text) + self.anchor_weight * text_anchor_loss(text, self.hand_written)


@dataclass(frozen=True)
class KgCoOpConfig(PromptFLConfig):
    """One learnable context for all classes, held close to hand-written prompts, with the CSRA head."""

    name: ClassVar[str] = "kgcoop"
    summary: ClassVar[str] = "PromptFL whose text features stay near hand-written prompts"
    source: ClassVar[str] = "Yao et al. 2023 (KgCoOp), CVPR"
    method: ClassVar[Callable[..., KgCoOp]] = KgCoOp

    num_context: int = 4
    """Learnable tokens before the class name."""
    context_init: str = "a photo of a"
    """Words the context starts from; where they are too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
    anchor_weight: float = 8.0
    """Weight of one minus the mean cosine between learned and hand-written text features."""
