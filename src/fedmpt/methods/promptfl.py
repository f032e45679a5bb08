"""PromptFL (Guo et al. 2023): CoOp's context tokens, trained by federated averaging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.heads import SinglePromptMethod
from fedmpt.methods.parts.prompts import PromptTemplate, context_from
from fedmpt.types import Backbone, check_options


class PromptFL(SinglePromptMethod):
    """State: ``context`` [b, W], and the head's calibration."""

    def __init__(
        self, config: PromptFLConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_context")
        self.template = self.make_template(class_names, config.num_context)
        context = context_from(self.tower, config.context_init, config.num_context, generator=generator)
        self.context = nn.Parameter(context)

    def make_template(self, class_names: Sequence[str], num_context: int) -> PromptTemplate:
        """Where the context stands in the prompts."""
        return PromptTemplate(self.tower, class_names, num_prefix_context=num_context)

    def encode_text(self) -> Float[Tensor, "C D"]:
        return F.normalize(self.tower.encode(self.template.embed(self.context[None]))[0], dim=-1)


@dataclass(frozen=True)
class PromptFLConfig(MethodConfig):
    """One learnable context for all classes, with the CSRA head."""

    name: ClassVar[str] = "promptfl"
    summary: ClassVar[str] = "one context shared by all classes, CSRA head"
    source: ClassVar[str] = "Guo et al. 2023 (PromptFL); Zhou et al. 2022 (CoOp)"
    method: ClassVar[Callable[..., PromptFL]] = PromptFL

    num_context: int = 16
    """Learnable tokens before the class name."""
    context_init: str = ""
    """Words the context starts from; where they are too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
