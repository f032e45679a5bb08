"""Initial values of torch's layers from a generator of our own, so that nothing depends on global randomness."""

from __future__ import annotations

import torch
from torch import nn


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the layers within ``module`` anew, as torch does by default, but from ``generator``.

    Covers nn.Linear, nn.Conv2d and nn.MultiheadAttention; norms start from constants and are left alone, and so are
    parameters that a module of ours holds itself. Layers take their turns as their constructors would.
    """
    for child in module.children():
        initialise(child, generator)
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        _draw_affine(module, generator)
    elif isinstance(module, nn.MultiheadAttention):
        _draw_attention(module, generator)


def _draw_affine(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    # Weights and bias uniform in +- 1 / sqrt(fan in).
    nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _draw_attention(attention: nn.MultiheadAttention, generator: torch.Generator) -> None:
    """The projections into it; the one out of it was drawn as the nn.Linear that it is."""
    for weight in (
        attention.in_proj_weight,
        attention.q_proj_weight,
        attention.k_proj_weight,
        attention.v_proj_weight,
    ):
        if weight is not None:
            nn.init.xavier_uniform_(weight, generator=generator)
    if attention.in_proj_bias is not None:
        nn.init.zeros_(attention.in_proj_bias)
        nn.init.zeros_(attention.out_proj.bias)
