"""Probabilities of a method on stored features; text features are computed once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.data.feature_store import FeatureSet
from fedmpt.methods import Method


@torch.no_grad()
def probabilities(method: Method, features: FeatureSet, *, batch_size: int = 64) -> Float[Tensor, "images C"]:
    """Class probabilities of every image, on the CPU, in the features' order."""
    method.eval()
    text = method.encode_text()
    rows = torch.arange(len(features)).split(batch_size)
    return torch.cat([method(features.batch(some, device=method.device), text).cpu() for some in rows])
