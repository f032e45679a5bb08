"""Why FedMPT says what it says of an image: where each condition's plan looked, and how much the gate trusted it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fedmpt.methods.fedmpt import FedMPT
from fedmpt.types import Batch


@dataclass(frozen=True)
class Explanation:
    """How a prediction for each of B images came about.

    Attributes:
        probabilities: [B, C], what the method predicts, calibrated if it trains a calibration.
        gate: [B, N], weights of the conditions; rows sum to one.
        by_condition: [B, N, C], each condition's own prediction, before the gate.
        looked: [B, N, M, C], the share of a class's mass that the plan takes from each patch; sums to one over M. Even
            looking is 1 / M.
        evidence: [B, N, M, C], what each patch contributes to `by_condition`; sums to it over M.
    """

    probabilities: Float[Tensor, "B C"]
    gate: Float[Tensor, "B N"]
    by_condition: Float[Tensor, "B N C"]
    looked: Float[Tensor, "B N M C"]
    evidence: Float[Tensor, "B N M C"]


@torch.no_grad()
def explain(method: FedMPT, batch: Batch) -> Explanation:
    """The parts of ``method(batch)``, by the method's own functions."""
    text = method.encode_text()
    patches = F.normalize(batch.patches, dim=-1)
    similarity = method.similarities(patches, text)
    looked = method.patch_weights(similarity)
    evidence = looked * similarity.softmax(-1)
    return Explanation(
        probabilities=method(batch, text),
        gate=method.gate_weights(patches),
        by_condition=evidence.sum(2),
        looked=looked,
        evidence=evidence,
    )
