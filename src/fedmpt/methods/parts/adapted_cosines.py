"""FedMPT's adapters (equation 2 of docs/method.md), without ever forming the adapted patches."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def adapted_cosines(
    patches: Float[Tensor, "B M D"],
    text: Float[Tensor, "#N C D"],
    down: Float[Tensor, "N D r"],
    up: Float[Tensor, "N r D"],
) -> Float[Tensor, "B N M C"]:
    """Cosine of ``x + x down up`` with the text, for every condition, patch and class; inputs are normalised.

    Works in the adapters' r dimensions: neither the B x N x M adapted patches of width D nor their norms are formed.
    """
    hidden = torch.einsum("bmd,ndr->bnmr", patches, down)
    products = torch.einsum("bmd,ncd->bnmc", patches, text)
    products = products + hidden @ (up @ text.transpose(-1, -2))
    against_patch = torch.einsum("bmd,nrd->bnmr", patches, up)
    against_self = hidden @ (up @ up.transpose(-1, -2))
    squared_norm = 1 + (hidden * (2 * against_patch + against_self)).sum(-1, keepdim=True)
    return products * squared_norm.clamp_min(1e-12).rsqrt()
