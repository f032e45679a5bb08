"""Cross-attention with a gated feed-forward behind it, which makes prompts out of text features."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class CrossAttention(nn.Module):
    """``h = MHA(LN q, LN c, LN c)`` without a residual, then ``h + FF(h)``: queries ``q`` over one context ``c``.

    ``FF`` is LN, Linear to 8 widths, GEGLU (Shazeer 2020), Linear back from 4. FedTPG and FedMVP share it; a subclass
    may change what the attention gets. Queries do not see each other, so those of many images can stand in one row.
    The context may be of another width than the queries.
    """

    def __init__(self, width: int, *, num_heads: int, context_width: int | None = None) -> None:
        super().__init__()
        context_width = context_width or width
        self.query_norm = nn.LayerNorm(width)
        self.context_norm = nn.LayerNorm(context_width)
        self.attention = nn.MultiheadAttention(width, num_heads, kdim=context_width, vdim=context_width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 8 * width), GEGLU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, queries: Float[Tensor, "Q width"], context: Float[Tensor, "L context_width"]
    ) -> Float[Tensor, "Q width"]:
        query, key, value = self.attention_inputs(self.query_norm(queries), self.context_norm(context))
        attended, _ = self.attention(query, key, value, need_weights=False)
        return attended + self.feed_forward(attended)

    def attention_inputs(
        self, queries: Float[Tensor, "Q width"], context: Float[Tensor, "L context_width"]
    ) -> tuple[Float[Tensor, "Q width"], Float[Tensor, "L context_width"], Float[Tensor, "L context_width"]]:
        """Queries, keys and values, from normed queries and context."""
        return queries, context, context


class GEGLU(nn.Module):
    """Half of the channels, each times the GELU of one of the other half."""

    def forward(self, channels: Float[Tensor, "*batch twice"]) -> Float[Tensor, "*batch half"]:
        value, gate = channels.chunk(2, dim=-1)
        return value * F.gelu(gate)
