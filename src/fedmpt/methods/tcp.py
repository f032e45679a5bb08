"""TCP (Yao et al. 2024): KgCoOp with tokens of each class's own, made from its text feature, deep in the tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.text_tower import DeepTokens
from fedmpt.methods.kgcoop import KgCoOp, KgCoOpConfig
from fedmpt.methods.parts.layers import QuickGELU, initialise, scaled_block
from fedmpt.methods.parts.prompts import PromptTemplate
from fedmpt.types import Backbone

CLASS_TOKENS_BLOCK = 8
"""Block of a text tower of 12 before which the context makes room for the class's own tokens; counted from 0."""


class TCP(KgCoOp):
    """State: ``context`` [b, W], ``meta_net`` (D to D / 4 to b W, with biases), and the head's calibration."""

    def __init__(
        self, config: TCPConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(config, backbone, class_names, generator=generator)
        joint_width = self.tower.joint_width
        self.block = scaled_block(CLASS_TOKENS_BLOCK, len(self.tower.layers))
        self.meta_net = nn.Sequential(
            nn.Linear(joint_width, joint_width // 4),
            QuickGELU(),
            nn.Linear(joint_width // 4, config.num_context * self.tower.width),
        )
        initialise(self.meta_net, generator)

    def make_template(self, class_names: Sequence[str], num_context: int) -> PromptTemplate:
        # The context differs by class from a block on, so it is part of the suffixes: the prompts are the same.
        return PromptTemplate(self.tower, class_names, num_suffix_context=num_context)

    def class_tokens(self) -> Float[Tensor, "C b W"]:
        """What replaces the context before block ``self.block``."""
        return self.meta_net(self.hand_written).unflatten(-1, self.context.shape)

    def encode_text(self) -> Float[Tensor, "C D"]:
        prompts = self.template.embed(suffix_context=self.context)
        deep = DeepTokens(suffix={self.block: self.class_tokens()})
        return F.normalize(self.tower.encode(prompts, deep)[0], dim=-1)


@dataclass(frozen=True)
class TCPConfig(KgCoOpConfig):
    """A context for all classes that a small network replaces by class-aware tokens in the upper blocks."""

    name: ClassVar[str] = "tcp"
    summary: ClassVar[str] = "KgCoOp with tokens made from each class's frozen text feature"
    source: ClassVar[str] = "Yao et al. 2024 (TCP), CVPR"
    method: ClassVar = TCP
    revision: ClassVar[int] = 2

    context_init: str = ""
    """Words the context starts from; where they are too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
