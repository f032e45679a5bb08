"""FedNCA-ML (Peng et al. 2025): attention gives each class its own feature, drawn to its corner of a simplex."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.layers import initialise
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, Backbone, Batch, InputError, check_options

NUM_HEADS = 4
TEMPERATURE = 0.07
"""Of the softmax over corners, for features of present classes."""
TOLERATED = 0.3
"""Highest probability of any class that a feature of an absent class may have for nothing."""


class FedNCA(Method):
    """State: ``attention`` from the corners to the patches, ``scale`` and, for each class, ``bias``."""

    weighting = "data"
    takes_new_classes = False  # A simplex of more classes is another one.

    def __init__(
        self, config: FedNCAConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "[0, inf)", "rejection_weight", "contrast_weight")
        self.config = config
        width, num_classes = self.tower.joint_width, len(class_names)
        if num_classes > width:
            raise InputError(
                f"fednca needs a dimension for each of {num_classes} classes, and the model's features have {width}; "
                "take fewer classes or a wider model"
            )
        self.corners = simplex(num_classes, width).to(self.device)
        self.attention = nn.MultiheadAttention(width, NUM_HEADS, batch_first=True)
        initialise(self.attention, generator)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def encode_text(self) -> Float[Tensor, "C D"]:
        """The corners: the method reads no text."""
        return self.corners

    def features(self, batch: Batch, corners: Float[Tensor, "C D"]) -> Float[Tensor, "B C D"]:
        """One of each class's own: what its corner attends to among the patches."""
        queries = corners.expand(len(batch), -1, -1)
        return self.attention(queries, batch.patches, batch.patches, need_weights=False)[0]

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        corners = self.encode_text() if text is None else text
        return (self.scale * (self.features(batch, corners) * corners).sum(-1) + self.bias).sigmoid()

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        corners = self.encode_text() if text is None else text
        features = self.features(batch, corners)
        # Of each class's feature (rows) for all classes (columns).
        logits = self.scale * features @ corners.T + self.bias
        weights = torch.ones_like(self.bias).expand(batch.labels.shape) if batch.weights is None else batch.weights
        is_present, config = batch.labels == PRESENT, self.config
        entropy = F.binary_cross_entropy_with_logits(
            logits.diagonal(dim1=1, dim2=2), is_present.to(logits.dtype), weights, reduction="none"
        ).where(batch.labels != UNKNOWN, 0)
        # Minus the log share of its own corner among all, by cosines.
        shares = (F.normalize(features, dim=-1) @ corners.T / TEMPERATURE).log_softmax(-1)
        contrast = (-weights * shares.diagonal(dim1=1, dim2=2)).where(is_present, 0)
        total = entropy.sum() + config.contrast_weight * contrast.sum()
        return (total + config.rejection_weight * rejection(logits, batch.labels, weights)) / len(batch)

    def optimizer(self, *, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
        """AdamW with the published betas; ``momentum`` is not read."""
        groups = self._parameter_groups(learning_rate)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay)


@dataclass(frozen=True)
class FedNCAConfig(MethodConfig):
    """A feature of each class's own, drawn towards a fixed simplex. Trains with AdamW; ``--momentum`` is not read."""

    name: ClassVar[str] = "fednca"
    summary: ClassVar[str] = "attention gives each class its feature; classes are a fixed simplex"
    source: ClassVar[str] = "Peng et al. 2025 (FedNCA-ML), arXiv 2509.12544"
    method: ClassVar = FedNCA
    # Published steps are many, at 1e-4: after 30 steps on drawn pictures, mAP was 12 at that rate, 44 at this.
    learning_rate: ClassVar[float] = 1e-2
    paper_learning_rate: ClassVar[float] = 1e-4

    rejection_weight: float = 0.01
    """Weight of the loss by which features of absent classes become like no class."""
    contrast_weight: float = 1.0
    """Weight of the loss by which features of present classes come to lie at their own corner."""


def simplex(num_classes: int, width: int) -> Float[Tensor, "C D"]:
    """Vectors of length one, any two of which have the cosine -1 / (C - 1), in the first C of D dimensions."""
    centred = torch.eye(num_classes) - 1 / num_classes
    return F.pad(F.normalize(centred, dim=-1), (0, width - num_classes))


def rejection(
    logits: Float[Tensor, "B C C"], labels: Int8[Tensor, "B C"], weights: Float[Tensor, "B C"]
) -> Float[Tensor, ""]:
    """By how much the highest probability of each absent class's feature, for any class, exceeds what is tolerated.

    Summed over the highest ones of the batch, as many as it has present labels.
    """
    is_absent = labels == ABSENT
    nearest = logits.amax(-1).masked_fill(~is_absent, -torch.inf).flatten()
    num_counted = min(int((labels == PRESENT).sum()), int(is_absent.sum()))
    counted = nearest.topk(num_counted).indices
    excess = (nearest[counted].sigmoid() - TOLERATED).clamp_min(0)
    return (weights.flatten()[counted] * excess).sum()
