"""What FedMPT's predictions are mixed from, over many images: each condition's predictions, and the gate's weights.

`fedmpt.inference.explain` is the same for a few images, patch by patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

from fedmpt.data.features.store import FeatureSet
from fedmpt.methods import Method
from fedmpt.methods.fedmpt import FedMPT
from fedmpt.methods.parts.heads import scaled_log_odds
from fedmpt.types import InputError

MAX_BYTES = 4 << 30
"""Predictions of more bytes than this are refused; 80 classes and 5 conditions reach it at 2.7 million images."""

# Images whose weighted predictions are formed at a time.
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class ConditionParts:
    """What FedMPT's prediction for each image is mixed from, on the CPU in fp32.

    Attributes:
        names: of the N conditions.
        predictions: [images, N, C], each condition's own, in [0, 1], before gate and calibration.
        gate: [images, N], weights; rows sum to one.
        labels: [images, C], -1 where unknown.
        text_cosines: [N, N], cosines of two conditions' prompts, mean over the classes.
        calibration: the trained scale and bias of each class, where the method has them.
    """

    names: tuple[str, ...]
    predictions: Float[Tensor, "images N C"]
    gate: Float[Tensor, "images N"]
    labels: Int8[Tensor, "images C"]
    text_cosines: Float[Tensor, "N N"]
    calibration: tuple[Float[Tensor, " C"], Float[Tensor, " C"]] | None

    @property
    def num_conditions(self) -> int:
        return len(self.names)

    def mixture(self, kept: Sequence[int] | None = None) -> Float[Tensor, "images C"]:
        """Predictions of all conditions, or of the ``kept`` ones with their weights made to sum to one again.

        Where the gate gave all its weight to conditions that are dropped, those kept count the same.
        """
        rows = torch.arange(len(self.gate)).split(_CHUNK)
        kept = list(range(self.num_conditions) if kept is None else kept)
        return torch.cat([self._mixed(some, kept) for some in rows])

    def _mixed(self, rows: Tensor, kept: list[int]) -> Float[Tensor, "B C"]:
        weights = self.gate[rows][:, kept]
        if len(kept) < self.num_conditions:
            total = weights.sum(1, keepdim=True)
            weights = torch.where(total > 0, weights / total, 1 / len(kept))
        return (weights[..., None] * self.predictions[rows][:, kept]).sum(1).clamp_max(1)

    def probabilities(self, kept: Sequence[int] | None = None) -> Float[Tensor, "images C"]:
        """What the method says with all conditions, or with the ``kept`` ones: `mixture`, calibrated if it is."""
        mixture = self.mixture(kept)
        return mixture if self.calibration is None else scaled_log_odds(mixture, *self.calibration)


@torch.no_grad()
def condition_parts(method: FedMPT, features: FeatureSet, *, batch_size: int = 64) -> ConditionParts:
    """The parts of ``method``'s predictions for all images, by its own functions.

    Keeps 4 bytes for each image, condition and class; what is larger (patches) lives as long as a batch.

    Raises:
        InputError: if the method has a single condition, or the predictions take over `MAX_BYTES`.
    """
    names = with_conditions(method).config.conditions
    most = MAX_BYTES // (4 * len(names) * method.num_classes)
    if len(features) > most:
        raise InputError(
            f"predictions of {len(features):,} images take more than {MAX_BYTES >> 30} GiB; use --images {most} or less"
        )
    method.eval()
    text = method.encode_text()
    features = features.with_views(method.views)
    predictions = torch.empty(len(features), len(names), method.num_classes)
    gate = torch.empty(len(features), len(names))
    for rows in torch.arange(len(features)).split(batch_size):
        patches = F.normalize(features.batch(rows, device=method.device).patches, dim=-1)
        gate[rows] = method.gate_weights(patches).cpu()
        predictions[rows] = method.condition_predictions(method.similarities(patches, text)).cpu()
    calibration = (method.scale.detach().cpu(), method.bias.detach().cpu()) if method.config.calibration else None
    cosines = torch.einsum("ncd,mcd->nm", text, text).cpu() / method.num_classes
    # Without prompts of their own all conditions have the same.
    cosines = cosines.expand(len(names), len(names)).contiguous()
    return ConditionParts(names, predictions, gate, features.labels, cosines, calibration)


def with_conditions(method: Method) -> FedMPT:
    """The method, which is FedMPT and has several conditions.

    Raises:
        InputError: if it is not, or has a single one.
    """
    if not isinstance(method, FedMPT):
        raise InputError(f"the checkpoint is of {type(method).__name__}, which has no conditions; give one of fedmpt")
    config = method.config
    if config.num_conditions > 1:
        return method
    if len(config.conditions) > 1:
        raise InputError(
            "this run had neither condition prompts nor adapters, so its conditions are all the same; give a run with "
            "one of the two"
        )
    raise InputError(
        f"this run has one condition, {config.conditions[0]!r}, so there is nothing to compare; give a run with several"
    )


@dataclass(frozen=True)
class GateUse:
    """How the gate spreads its weight, by condition over the images, and in all.

    Attributes:
        mean, spread, lowest, highest: of each condition's weight; ``spread`` is the standard deviation.
        largest: share of the images in which the condition has the largest weight; ties are shared out.
        entropy_per_image, entropy_of_mean: of an image's weights, mean over images, and of the mean weights; over log
            N, so 1 is even and 0 is one condition alone.
        effective_per_image, effective_of_mean: e to the entropy: as many conditions, evenly used, have it. The first
            is the mean over images. Where images differ in what they use, the second is larger.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    largest: tuple[float, ...]
    entropy_per_image: float
    entropy_of_mean: float
    effective_per_image: float
    effective_of_mean: float


def gate_use(gate: Float[Tensor, "images N"]) -> GateUse:
    gate = gate.double()
    is_largest = (gate == gate.amax(1, keepdim=True)).double()
    mean, entropies = gate.mean(0), _entropy(gate)
    of_mean, most = _entropy(mean).item(), math.log(gate.shape[1])
    return GateUse(
        mean=tuple(mean.tolist()),
        spread=tuple(gate.std(0, correction=0).tolist()),
        lowest=tuple(gate.amin(0).tolist()),
        highest=tuple(gate.amax(0).tolist()),
        largest=tuple((is_largest / is_largest.sum(1, keepdim=True)).mean(0).tolist()),
        entropy_per_image=entropies.mean().item() / most,
        entropy_of_mean=of_mean / most,
        effective_per_image=entropies.exp().mean().item(),
        effective_of_mean=math.exp(of_mean),
    )


def _entropy(weights: Float[Tensor, "*images N"]) -> Float[Tensor, "*images"]:
    return -torch.xlogy(weights, weights).sum(-1)


@dataclass(frozen=True, eq=False)
class Differences:
    """How far conditions' predictions (before gate and calibration) are from each other and from their mixture.

    Attributes:
        absolute: mean absolute difference over images and classes, in [0, 1].
        correlation: Pearson's over the images, mean over the classes in which both vary; NaN where there is none.
        from_mixture, with_mixture: the same two against the mixture of all.
    """

    absolute: Float[Tensor, "N N"]
    correlation: Float[Tensor, "N N"]
    from_mixture: Float[Tensor, " N"]
    with_mixture: Float[Tensor, " N"]


def differences(parts: ConditionParts) -> Differences:
    tables = [*parts.predictions.unbind(1), parts.mixture()]
    num = len(tables)
    absolute = torch.zeros(num, num, dtype=torch.float64)
    for one in range(num):
        for other in range(one):
            gap = (tables[one] - tables[other]).abs_().mean(dtype=torch.float64)
            absolute[one, other] = absolute[other, one] = gap
    total, counted = torch.zeros(2, num, num, dtype=torch.float64)
    for c in range(parts.predictions.shape[2]):
        found = _correlations(torch.stack([table[:, c] for table in tables]).double())
        total += found.nan_to_num(0)
        counted += ~found.isnan()
    correlation = total / counted  # 0 / 0 is NaN.
    return Differences(absolute[:-1, :-1], correlation[:-1, :-1], absolute[:-1, -1], correlation[:-1, -1])


def _correlations(rows: Float[Tensor, "K images"]) -> Float[Tensor, "K K"]:
    """Pearson's correlation of each two rows; NaN where one does not vary."""
    centred = rows - rows.mean(1, keepdim=True)
    # Asked of the numbers as they are: the mean of equal ones may differ from them in the last digit.
    varies = rows.amax(1) > rows.amin(1)
    scaled = torch.where(varies[:, None], F.normalize(centred, dim=1, eps=1e-300), float("nan"))
    return (scaled @ scaled.T).clamp(-1, 1)
