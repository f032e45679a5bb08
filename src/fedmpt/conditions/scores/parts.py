"""What FedMPT's predictions are mixed from, over many images: each condition's predictions, and the gate's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ConditionParts:
    """What FedMPT's prediction for each image is mixed from, on the CPU in fp32.

    Attributes:
        names: of the N conditions.
        predictions: [images, N, C], each condition's own, in [0, 1], before gate and calibration.
        gate: [images, N], weights; rows sum to one.
        labels: [images, C], -1 where unknown.
        text_cosines: [N, N], cosines of two conditions' prompts, mean over the classes.
        calibrated: what the method makes of mixed predictions [images, C].
    """

    names: tuple[str, ...]
    predictions: Float[Tensor, "images N C"]
    gate: Float[Tensor, "images N"]
    labels: Int8[Tensor, "images C"]
    text_cosines: Float[Tensor, "N N"]
    calibrated: Callable[[Tensor], Tensor] = lambda mixture: mixture

    def mixture(self, kept: Sequence[int] | None = None) -> Float[Tensor, "images C"]:
        """Predictions of all conditions, or of the ``kept`` ones with their weights made to sum to one again.

        Where the gate gave all its weight to conditions that are dropped, those kept count the same.
        """
        weights = self.gate
        if kept is not None and len(kept) < len(self.names):
            some = self.gate[:, list(kept)]
            total = some.sum(1, keepdim=True)
            weights = torch.zeros_like(self.gate)
            weights[:, list(kept)] = torch.where(total > 0, some / total, 1 / len(kept))
        return torch.einsum("bn,bnc->bc", weights, self.predictions).clamp_max(1)

    def probabilities(self, kept: Sequence[int] | None = None) -> Float[Tensor, "images C"]:
        """What the method says with all conditions, or with the ``kept`` ones: `mixture`, calibrated if it is."""
        return self.calibrated(self.mixture(kept))
