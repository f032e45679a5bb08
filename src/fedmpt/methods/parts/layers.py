"""Layers that methods share, initial values from a generator of our own, and where in a tower a method acts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

PUBLISHED_DEPTH = 12
"""Blocks of both towers of ViT-B/16, for which papers give their numbers."""


def scaled_block(block: int, depth: int) -> int:
    """Block ``block`` of a tower of 12, in one of ``depth`` blocks: as far into it, rounded.

    Blocks count from 0; 12 stands for the end of the tower. Every real block becomes a real block.
    """
    assert 0 <= block <= PUBLISHED_DEPTH
    last = depth if block == PUBLISHED_DEPTH else depth - 1
    return min(round(block / PUBLISHED_DEPTH * depth), last)


class QuickGELU(nn.Module):
    """``x sigmoid(1.702 x)``, the activation of CLIP's own blocks."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return x * torch.sigmoid(1.702 * x)


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
        query, key, value = self.attention_inputs(queries, context)
        attended, _ = self.attention(query, key, value, need_weights=False)
        return attended + self.feed_forward(attended)

    def attention_inputs(
        self, queries: Float[Tensor, "Q width"], context: Float[Tensor, "L context_width"]
    ) -> tuple[Float[Tensor, "Q width"], Float[Tensor, "L context_width"], Float[Tensor, "L context_width"]]:
        """Queries, keys and values of the attention."""
        context = self.context_norm(context)
        return self.query_norm(queries), context, context


class GEGLU(nn.Module):
    """Half of the channels, each times the GELU of one of the other half."""

    def forward(self, channels: Float[Tensor, "*batch twice"]) -> Float[Tensor, "*batch half"]:
        value, gate = channels.chunk(2, dim=-1)
        return value * F.gelu(gate)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the layers within ``module`` anew, as torch does by default, but from ``generator``.

    Covers nn.Linear, nn.Conv2d and nn.MultiheadAttention; norms start from constants and are left alone, and so are
    parameters that a module of ours holds itself. Layers take their turns as their constructors would.
    """

    def draw(layer: nn.Module) -> None:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            layer.reset_parameters()
        elif isinstance(layer, nn.MultiheadAttention):
            layer._reset_parameters()

    # torch's own routines draw from the global stream alone, which is lent to them and put back.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        module.apply(draw)
        generator.set_state(torch.get_rng_state())
