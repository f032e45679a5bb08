"""FedMVP's PromptFormer: tokens for the image tower, made of an image's patches and of texts about the classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.parts.cross_attention import CrossAttention
from fedmpt.methods.parts.initialise import initialise

NUM_HEADS = 4
RANK = 8
"""Of the low-rank terms on queries, keys and values."""


class PromptFormer(nn.Module):
    """Patches attend to texts; what they found, averaged over parts of the image, is ``num_tokens`` tokens for it.

    Args:
        text_width: D.
        width: V, divisible by `NUM_HEADS`.
    """

    def __init__(self, text_width: int, width: int, *, num_tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.from_text = nn.Linear(text_width, width)
        self.attention = LowRankCrossAttention(width, num_heads=NUM_HEADS, rank=RANK, generator=generator)
        initialise(self, generator)

    def forward(self, patches: Float[Tensor, "B M V"], texts: Float[Tensor, "L D"]) -> Float[Tensor, "B b V"]:
        found = self.attention(patches.flatten(0, 1), self.from_text(texts)).view_as(patches)
        # Patches come row by row, so each token is of a band across the image.
        return F.adaptive_avg_pool1d(found.transpose(1, 2), self.num_tokens).transpose(1, 2)


class LowRankCrossAttention(CrossAttention):
    """Queries, keys and values are each ``x + x A B`` of the normed input ``x``, with A [V, r] and B [r, V]."""

    def __init__(self, width: int, *, num_heads: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(width, num_heads=num_heads)
        # Paper has these only in its public description, without a start: as in LoRA (Hu et al. 2022), no effect.
        self.low_rank_down = nn.Parameter(torch.randn(3, width, rank, generator=generator) / width**0.5)
        self.low_rank_up = nn.Parameter(torch.zeros(3, rank, width))

    def attention_inputs(
        self, queries: Float[Tensor, "Q width"], context: Float[Tensor, "L width"]
    ) -> tuple[Float[Tensor, "Q width"], Float[Tensor, "L width"], Float[Tensor, "L width"]]:
        pairs = zip(self.low_rank_down, self.low_rank_up, strict=True)
        query, key, value = (
            x + x @ down @ up for x, (down, up) in zip((queries, context, context), pairs, strict=True)
        )
        return query, key, value
