"""FedTPG (Qiu et al. 2024): a network that writes the context from the names of all classes, trained by averaging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.heads import SinglePromptMethod
from fedmpt.methods.parts.layers import CrossAttention, initialise
from fedmpt.methods.parts.prompts import PromptTemplate, hand_written_features, random_context
from fedmpt.types import Backbone, check_options

NUM_HEADS = 4


class FedTPG(SinglePromptMethod):
    """State: ``queries`` [b, W], ``writer`` (the network), and the head's calibration.

    ``class_features`` [C, D] are frozen features of the bare class names.
    """

    def __init__(
        self, config: FedTPGConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_context")
        num_context, width = config.num_context, self.tower.width
        self.template = PromptTemplate(self.tower, class_names, num_prefix_context=num_context)
        # Paper has the bare name; the full stop that all prompts here end in stays ("cat.").
        self.class_features = hand_written_features(self.tower, class_names, prefix="")
        self.queries = nn.Parameter(random_context(num_context, width, generator=generator))
        # Works in the text tower's width, where the context goes. Paper's towers have the same width as their features.
        self.writer = CrossAttention(width, num_heads=NUM_HEADS, context_width=self.tower.joint_width)
        initialise(self.writer, generator)

    def context(self) -> Float[Tensor, "b W"]:
        """The tokens before every class name; the same whatever the order of the classes."""
        return self.writer(self.queries, self.class_features)

    def encode_text(self) -> Float[Tensor, "C D"]:
        return F.normalize(self.tower.encode(self.template.embed(self.context()[None]))[0], dim=-1)


@dataclass(frozen=True)
class FedTPGConfig(MethodConfig):
    """A network from class names to one context for all classes, with the CSRA head."""

    name: ClassVar[str] = "fedtpg"
    summary: ClassVar[str] = "a context that a network writes from the names of all classes"
    source: ClassVar[str] = "Qiu et al. 2024 (FedTPG), ICLR"
    method: ClassVar = FedTPG

    num_context: int = 4
    """Tokens that the network writes before the class name."""
