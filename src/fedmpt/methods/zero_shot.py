"""CLIP without any training: the floor of every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.heads import csra_logits, csra_tokens, standardised
from fedmpt.methods.parts.prompts import PromptTemplate
from fedmpt.types import Backbone, Batch, InputError


class ZeroShot(Method):
    def __init__(
        self, config: ZeroShotConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        if not config.template.endswith(" {}.") or config.template.count("{}") != 1:
            raise InputError(f"--template {config.template!r} must end with ' {{}}.', as in 'a photo of a {{}}.'")
        self.head = config.head
        prefix = config.template.removesuffix(" {}.")
        self.template = PromptTemplate(self.tower, class_names, prefix_texts=[prefix])

    def encode_text(self) -> Float[Tensor, "C D"]:
        return F.normalize(self.tower.encode(self.template.embed())[0], dim=-1)

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        if self.head == "csra":
            return standardised(csra_logits(csra_tokens(batch), text)).sigmoid()
        features = batch.patches if self.head == "patches" else batch.pooled[:, None]
        similarity = self.logit_scale * F.normalize(features, dim=-1) @ text.T
        return similarity.softmax(-1).mean(1)


@dataclass(frozen=True)
class ZeroShotConfig(MethodConfig):
    """Zero-shot CLIP with a hand-written prompt."""

    name: ClassVar[str] = "zero-shot"
    summary: ClassVar[str] = "the frozen model with a hand-written prompt; trains nothing"
    source: ClassVar[str] = "Radford et al. 2021"
    method: ClassVar = ZeroShot

    template: str = "a photo of a {}."
    """Prompt; {} stands for the class name and has to be followed by the full stop."""
    head: Literal["patches", "pooled", "csra"] = "patches"
    """patches: softmax over classes, averaged over patches; pooled: softmax of the pooled feature; csra: the head of
    the prompt-tuning methods."""
