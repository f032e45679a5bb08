"""DualCoOp (Sun et al. 2022): a positive and a negative context, trained by federated averaging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.heads import DualPromptMethod
from fedmpt.methods.parts.prompts import PromptTemplate, context_from
from fedmpt.types import Backbone, check_options


class DualCoOp(DualPromptMethod):
    """State: ``positive_context`` [b+, W] and ``negative_context`` [b-, W]."""

    def __init__(
        self, config: DualCoOpConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_context", "num_negative_context")
        # Paper has 16 tokens in both. A positive context of few words beside a long negative one keeps more of a text
        # tower that knows short prompts only: negative features that still tell classes apart undo the positive ones.
        sizes = (config.num_context, config.num_negative_context)
        self.template = PromptTemplate(self.tower, class_names, prefix_texts=("", ""), num_prefix_context=max(sizes))
        self.positive_context, self.negative_context = (
            nn.Parameter(context_from(self.tower, words, size, generator=generator))
            for words, size in zip((config.context_init, config.negative_context_init), sizes, strict=True)
        )
        self.prefix_lengths = torch.tensor([1 + size for size in sizes], device=self.tower.device)

    def encode_text(self) -> Float[Tensor, "2 C D"]:
        contexts: list[Tensor] = [self.positive_context, self.negative_context]
        # Two prefixes of the same classes, so the tower encodes both at once; the shorter one ends earlier.
        prompts = self.template.embed(pad_sequence(contexts, batch_first=True))
        return self.tower.encode(replace(prompts, prefix_lengths=self.prefix_lengths))


@dataclass(frozen=True)
class DualCoOpConfig(MethodConfig):
    """Two learnable contexts for all classes: one says that a class is there, the other that it is not."""

    name: ClassVar[str] = "dualcoop"
    summary: ClassVar[str] = "a positive and a negative context; their difference decides"
    source: ClassVar[str] = "Sun et al. 2022 (DualCoOp), NeurIPS"
    method: ClassVar = DualCoOp
    # Below that of other methods: once a step has made all probabilities 1, the loss of absent classes has no gradient.
    learning_rate: ClassVar[float] = 0.02

    num_context: int = 16
    """Learnable tokens before the class name where a prompt says that the class is there."""
    num_negative_context: int = 16
    """Learnable tokens before the class name where a prompt says that the class is not there."""
    context_init: str = ""
    """Words the positive context starts from; where too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
    negative_context_init: str = ""
    """The same for the negative context."""
