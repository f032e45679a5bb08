"""Multi-head attention written out, head by head and query by query."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def attend_plainly(attention: nn.MultiheadAttention, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """What ``attention`` makes of rows of queries, keys and values. Torch packs the weights where widths agree."""
    packed = attention.in_proj_weight
    apart = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    weights, biases = apart if packed is None else packed.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((queries, keys, values), weights, biases, strict=True))
    size = q.shape[1] // attention.num_heads
    rows = []
    for query in q:
        parts = []
        for head in range(attention.num_heads):
            own = slice(head * size, (head + 1) * size)
            scores = torch.stack([(query[own] * key[own]).sum() for key in k]) / size**0.5
            shares = scores.exp() / scores.exp().sum()
            parts.append(sum(share * value[own] for share, value in zip(shares, v, strict=True)))
        rows.append(torch.cat(parts))
    return torch.stack(rows) @ attention.out_proj.weight.T + attention.out_proj.bias
