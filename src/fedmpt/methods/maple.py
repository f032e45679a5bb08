"""MaPLe (Khattak et al., CVPR 2023): prompts deep in both towers, those of the image made from those of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.text_tower import DeepTokens
from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.heads import ImagePromptMethod
from fedmpt.methods.parts.layers import PUBLISHED_DEPTH, initialise, scaled_block
from fedmpt.methods.parts.prompts import PromptTemplate, context_from, random_context
from fedmpt.types import Backbone, Batch, check_options


class MaPLe(ImagePromptMethod):
    """State: ``contexts`` [depth, b, W], the text tokens of each block; ``couplings``, a Linear(W, V) for each, which
    makes the image tokens of them; and the head's calibration."""

    def __init__(
        self, config: MaPLeConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_context")
        check_options(config, f"[1, {PUBLISHED_DEPTH}]", "depth")
        num, width = config.num_context, self.tower.width
        names = [f"{config.fixed_words} {name}".strip() for name in class_names]
        self.template = PromptTemplate(self.tower, names, num_prefix_context=num)
        # Blocks of the towers are coupled one to one, so the tower in which fewer of them get tokens decides.
        num_blocks = min(len(self.tower.layers), len(self.image_tower.image_blocks))
        depth = max(1, scaled_block(config.depth, num_blocks))
        first = context_from(self.tower, config.context_init, num, generator=generator)
        deeper = random_context(depth - 1, num, width, generator=generator).to(first.device)
        self.contexts = nn.Parameter(torch.cat([first[None], deeper]))
        self.couplings = nn.ModuleList(nn.Linear(width, self.image_tower.width) for _ in range(depth))
        initialise(self.couplings, generator)

    def encode_text(self) -> Float[Tensor, "C D"]:
        first, *deeper = self.contexts.split(1)
        deep = DeepTokens(prefix=dict(enumerate(deeper, start=1)))
        return F.normalize(self.tower.encode(self.template.embed(first), deep)[0], dim=-1)

    def image_tokens(self, batch: Batch, text: Float[Tensor, "C D"]) -> Float[Tensor, "B tokens D"]:
        pairs = zip(self.couplings, self.contexts.split(1), strict=True)
        prompts = dict(enumerate(coupling(context) for coupling, context in pairs))
        # As in the published code, they join the embedded patches before the norm in front of the first block.
        prompts[0] = self.image_tower.norm_before(prompts[0])
        return self.prompted_tokens(batch.views["tokens"][:, 0], prompts)


@dataclass(frozen=True)
class MaPLeConfig(MethodConfig):
    """Learnable tokens in the first blocks of both towers, with the CSRA head."""

    name: ClassVar[str] = "maple"
    summary: ClassVar[str] = "coupled prompts in the first blocks of both towers, CSRA head"
    source: ClassVar[str] = "Khattak et al., CVPR 2023 (MaPLe)"
    method: ClassVar = MaPLe

    num_context: int = 2
    """Learnable tokens in each block of either tower."""
    depth: int = 9
    """First blocks that get tokens of their own, of 12; in towers of another depth, as large a share of them."""
    context_init: str = ""
    """Words the first block's context starts from; where too few, and if empty, tokens are drawn from N(0, 0.02^2)."""

    fixed_words: str = ""
    """Words that stay as they are between the context and the class name."""

    @classmethod
    def paper(cls) -> MaPLeConfig:
        """The original writes "a photo of a CLASS." and trains the first two words."""
        return cls(context_init="a photo", fixed_words="of a")
