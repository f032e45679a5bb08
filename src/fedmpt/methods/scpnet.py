"""SCPNet (Ding et al. 2023): prompts refined over a graph of similar labels, and a loss that expects missing labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.views import ImageView, StrongView
from fedmpt.methods.parts.losses import consistency_loss, corrected_labels, focal_margin_loss
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.methods.promptfl import PromptFL, PromptFLConfig
from fedmpt.types import Backbone, Batch, check_options

NEGATIVE_SLOPE = 0.2


class SCPNet(PromptFL):
    """State: as PromptFL's, and the graph network's ``weights`` (D to H to H to D)."""

    # Paper draws new weak and strong views in every step. The weak one is the image itself here, and an image has one
    # strong view: frozen features of both are stored.
    training_views: Mapping[str, ImageView] = {"strong": StrongView()}

    def __init__(
        self, config: SCPNetConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        check_options(config, "(0, inf)", "graph_width", "num_neighbours")
        check_options(config, "[0, inf)", "pseudo_label_after", "consistency_weight")
        check_options(config, "[0, 1]", "neighbour_share")
        check_options(config, "(0, 1]", "pseudo_label_threshold")
        super().__init__(config, backbone, class_names, generator=generator)
        self.config = config
        self.has_pseudo_labels = config.pseudo_label_after < 1
        self.adjacency = label_graph(
            hand_written_features(self.tower, class_names),
            num_neighbours=config.num_neighbours,
            neighbour_share=config.neighbour_share,
        )
        widths = (self.tower.joint_width, config.graph_width, config.graph_width, self.tower.joint_width)
        # Uniform in 1 / sqrt(columns), as in ML-GCN (Chen et al. 2019).
        self.weights = nn.ParameterList(
            (2 * torch.rand(*shape, generator=generator) - 1) / shape[1] ** 0.5 for shape in pairwise(widths)
        )

    def encode_text(self) -> Float[Tensor, "C D"]:
        text = super().encode_text()
        return text + graph_network(text, self.adjacency, list(self.weights))

    def start_round(self, round_index: int) -> None:
        self.has_pseudo_labels = round_index > self.config.pseudo_label_after

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        text = self.encode_text() if text is None else text
        found = self(batch, text)
        labels, weights = batch.labels, batch.weights
        if self.has_pseudo_labels:
            labels = corrected_labels(found.detach(), labels, threshold=self.config.pseudo_label_threshold)
            # The weight is for the label that was given, that of an absent class.
            weights = None if weights is None else weights.masked_fill(labels != batch.labels, 1)
        # Paper makes confident labels of the weak view's probabilities; taken as they are, they need no threshold.
        # Classes of unknown label take part: no label is read.
        tokens = batch.views["strong"][:, 0]
        strong = self(replace(batch, pooled=tokens[:, 0], patches=tokens[:, 1:]), text)
        consistency = consistency_loss(strong, found.detach())
        return focal_margin_loss(found, labels, weights) + self.config.consistency_weight * consistency


@dataclass(frozen=True)
class SCPNetConfig(PromptFLConfig):
    """A learnable context and a graph network over the classes' text features, with the CSRA head."""

    name: ClassVar[str] = "scpnet"
    summary: ClassVar[str] = "one context, a graph over labels, pseudo-labels and consistency"
    source: ClassVar[str] = "Ding et al. 2023 (SCPNet), CVPR; Zhang et al. 2021 (SPLC)"
    method: ClassVar = SCPNet

    num_context: int = 4
    """Learnable tokens before the class name."""
    graph_width: int = 1024
    """Width of the graph network's two hidden layers."""
    num_neighbours: int = 20
    """Most similar classes that a class hears; all others where there are fewer."""
    neighbour_share: float = 0.2
    """Share of a class's new feature that its neighbours have together, in [0, 1]."""
    pseudo_label_after: int = 1
    """Rounds after which labels marked absent but found with a high probability count as present."""
    pseudo_label_threshold: float = 0.6
    """That probability, in (0, 1]; 1 for no pseudo-labels."""
    consistency_weight: float = 0.125
    """Weight of the loss that a strongly augmented view of an image scores as the image itself."""


def label_graph(text: Float[Tensor, "C D"], *, num_neighbours: int, neighbour_share: float) -> Float[Tensor, "C C"]:
    """How much each class (row) hears of each other; rows sum to one. ``text`` is normalised.

    A class keeps ``1 - neighbour_share`` for itself. The rest goes to its most similar classes in proportion to their
    cosines, to all others where they are fewer than ``num_neighbours``.
    """
    num_classes = len(text)
    similarity = (text @ text.T).fill_diagonal_(-2)
    nearest, index = similarity.topk(min(num_neighbours, num_classes - 1), dim=1)
    # CLIP's cosines of class prompts are all positive. Those of other towers may not be, and no class counts less than
    # nothing.
    nearest = nearest.clamp_min(1e-6)
    shares = neighbour_share * nearest / nearest.sum(1, keepdim=True)
    return torch.zeros_like(similarity).scatter_(1, index, shares).fill_diagonal_(1 - neighbour_share)


def graph_network(
    text: Float[Tensor, "C D"], adjacency: Float[Tensor, "C C"], weights: Sequence[Tensor]
) -> Float[Tensor, "C D"]:
    """Graph convolutions (Kipf and Welling 2017), each class's feature mixed with its neighbours', without biases."""
    for index, weight in enumerate(weights):
        if index > 0:
            text = F.leaky_relu(text, NEGATIVE_SLOPE)
        text = adjacency @ text @ weight
    return text
