"""Why FedMPT says what it says: where each condition's plan looked, what it predicts, how much the gate trusted it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fedmpt.conditions.scores import ConditionParts
from fedmpt.data.features.store import FeatureSet
from fedmpt.methods import Method
from fedmpt.methods.fedmpt import FedMPT
from fedmpt.types import Batch, InputError


@dataclass(frozen=True)
class Explanation:
    """How a prediction for each of B images came about.

    Attributes:
        probabilities: [B, C], what the method predicts, calibrated if it trains a calibration, and with its second
            reading if it has one; `by_condition`, `looked` and `evidence` are of the first.
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


@torch.no_grad()
def condition_parts(method: FedMPT, features: FeatureSet, *, batch_size: int = 64) -> ConditionParts:
    """The same for all images of a set, without what is larger: patches live as long as a batch."""
    names = method.config.conditions
    method.eval()
    text = method.encode_text()
    features = features.with_views(method.views)
    predictions = torch.empty(len(features), len(names), method.num_classes)
    gate = torch.empty(len(features), len(names))
    second = torch.empty(len(features), method.num_classes) if method.config.csra else None
    for rows in torch.arange(len(features)).split(batch_size):
        batch = features.batch(rows, device=method.device)
        patches = F.normalize(batch.patches, dim=-1)
        gate[rows] = method.gate_weights(patches).cpu()
        predictions[rows] = method.condition_predictions(method.similarities(patches, text)).cpu()
        if second is not None:
            second[rows] = method.csra(batch).cpu()
    # Without prompts of their own all conditions have the same.
    cosines = (torch.einsum("ncd,mcd->nm", text, text).cpu() / method.num_classes).expand(len(names), len(names))
    combined = torch.no_grad()(partial(method.combined, second=second))
    return ConditionParts(names, predictions, gate, features.labels, cosines.contiguous(), combined)


def with_conditions(method: Method) -> FedMPT:
    """The method, which is FedMPT and has several conditions.

    Raises:
        InputError: if it is not, or has a single one.
    """
    if not isinstance(method, FedMPT):
        raise InputError(f"the checkpoint is of {type(method).__name__}, which has no conditions; give one of fedmpt")
    names = method.config.conditions
    if len(names) == 1:
        raise InputError(f"this run has one condition, {names[0]!r}, so there is nothing to compare")
    if method.config.num_conditions == 1:
        raise InputError("this run had neither condition prompts nor adapters, so its conditions are all the same")
    return method
