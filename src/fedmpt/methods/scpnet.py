"""SCPNet (Ding et al. 2023): prompts refined over a graph of similar labels, and a loss that expects missing labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int8
from torch import Tensor, nn

from fedmpt.backbone.views import ImageView, StrongView
from fedmpt.methods.parts.losses import binary_cross_entropy, corrected_labels, focal_margin_loss
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.methods.promptfl import PromptFL, PromptFLConfig
from fedmpt.types import PRESENT, Backbone, Batch, check_options

NEGATIVE_SLOPE = 0.2


class SCPNet(PromptFL):
    """State: as PromptFL's, and the graph network's ``weights`` (D to H to H to D)."""

    # Paper draws new weak and strong views in every step, and a third view for the labels. The weak one is the image
    # itself here, for both, and an image has one strong view: frozen features of both are stored.
    training_views: Mapping[str, ImageView] = {"strong": StrongView()}

    def __init__(
        self, config: SCPNetConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        positive = ("graph_width", "graph_rate", "num_neighbours", "num_confident", "relation_temperature")
        check_options(config, "(0, inf)", *positive)
        check_options(config, "[0, inf)", "pseudo_label_after", "consistency_weight", "relation_weight")
        check_options(config, "[0, 1]", "neighbour_share")
        check_options(config, "(0, 1]", "pseudo_label_threshold", "confidence")
        super().__init__(config, backbone, class_names, generator=generator)
        self.config = config
        self.adjacency = label_graph(
            hand_written_features(self.tower, class_names),
            num_neighbours=config.num_neighbours,
            neighbour_share=config.neighbour_share,
        )
        widths = (self.tower.joint_width, config.graph_width, config.graph_width, self.tower.joint_width)
        self.relation = label_relation(self.adjacency, temperature=config.relation_temperature)
        # Uniform in 1 / sqrt(columns), as in ML-GCN (Chen et al. 2019).
        self.weights = nn.ParameterList(
            (2 * torch.rand(*shape, generator=generator) - 1) / shape[1] ** 0.5 for shape in pairwise(widths)
        )
        self.start_round(1)

    def encode_text(self) -> Float[Tensor, "C D"]:
        """Not normalised, neither where it enters the network nor here."""
        text = self.tower.encode(self.template.embed(self.context[None]))[0]
        return text + graph_network(text, self.adjacency, list(self.weights))

    def learning_rate_factors(self) -> dict[str, float]:
        return {"weights.": self.config.graph_rate}

    def start_round(self, round_index: int) -> None:
        self.has_pseudo_labels = round_index > self.config.pseudo_label_after
        self._confident = torch.zeros(len(self.adjacency), device=self.device)
        self._num_images = 0

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        config = self.config
        text = self.encode_text() if text is None else text
        found = self(batch, text)
        labels, weights = batch.labels, batch.weights
        if self.has_pseudo_labels:
            labels = corrected_labels(found.detach(), labels, threshold=config.pseudo_label_threshold)
            # The weight is for the label that was given, that of an absent class.
            weights = None if weights is None else weights.masked_fill(labels != batch.labels, 1)
        tokens = batch.views["strong"][:, 0]
        strong = self(replace(batch, pooled=tokens[:, 0], patches=tokens[:, 1:]), text)
        consistency = self.consistency(strong, found.detach(), batch.labels)
        return focal_margin_loss(found, labels, weights, given=batch.labels) + config.consistency_weight * consistency

    def consistency(
        self, strong: Float[Tensor, "B C"], weak: Float[Tensor, "B C"], labels: Int8[Tensor, "B C"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the strong view's probabilities with confident labels of the ``weak`` ones, and with the
        weak ones mixed over similar classes. Images without a confident class count nothing in either."""
        confident = confident_labels(weak, self._thresholds(), most=self.config.num_confident)
        target, counted = confident | (labels == PRESENT), confident.any(1)
        if self.training:  # What is asked between two steps changes nothing.
            self._confident += target.sum(0)
            self._num_images += len(target)
        mixed = weak @ self.relation.T
        return binary_cross_entropy(strong, target.to(strong.dtype), counted) + (
            self.config.relation_weight * binary_cross_entropy(strong, mixed, counted)
        )

    def _thresholds(self) -> Float[Tensor, " C"]:
        """From which probability on a class is confident: lower for classes that were seldom so in this round."""
        # Paper counts over all images and epochs. Here a client counts over the images of its round, up to this step.
        most, num_classes = self._confident.max(), len(self._confident)
        rest = self.config.num_confident * self._num_images - self._confident.sum()
        share = (self._confident / torch.maximum(most, rest).clamp_min(1)).clamp_min(1 / num_classes)
        return self.config.confidence * share / (2 - share)


@dataclass(frozen=True)
class SCPNetConfig(PromptFLConfig):
    """A learnable context and a graph network over the classes' text features, with the CSRA head."""

    name: ClassVar[str] = "scpnet"
    summary: ClassVar[str] = "one context, a graph over labels, pseudo-labels and consistency"
    source: ClassVar[str] = "Ding et al. 2023 (SCPNet), CVPR; Zhang et al. 2021 (SPLC)"
    method: ClassVar = SCPNet
    revision: ClassVar[int] = 2

    num_context: int = 4
    """Learnable tokens before the class name."""
    context_init: str = "a photo of a"
    """Words the context starts from; where they are too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
    graph_width: int = 1024
    """Width of the graph network's two hidden layers."""
    graph_rate: float = 5.0
    """Factor on the learning rate for the graph network."""
    num_neighbours: int = 19
    """Most similar classes that a class hears; all others where there are fewer."""
    neighbour_share: float = 0.2
    """Share of a class's new feature that its neighbours have together, in [0, 1]."""
    pseudo_label_after: int = 1
    """Rounds after which labels marked absent but found with a high probability count as present."""
    pseudo_label_threshold: float = 0.6
    """That probability, in (0, 1]; 1 for no pseudo-labels."""
    consistency_weight: float = 0.125
    """Weight of the loss that a strongly augmented view of an image scores as the image itself."""
    num_confident: int = 5
    """Most classes of an image that the strong view must find because the image itself scored them high."""
    confidence: float = 0.95
    """Probability of such a class, in (0, 1], lowered for classes that are seldom confident."""
    relation_weight: float = 2.0
    """Weight, within that loss, of the scores mixed over similar classes."""
    relation_temperature: float = 0.3
    """How evenly they are mixed; smaller is sharper."""


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


def label_relation(adjacency: Float[Tensor, "C C"], *, temperature: float) -> Float[Tensor, "C C"]:
    """How much each class's probability (row) follows those of the classes that it hears; rows sum to one."""
    weights = (adjacency / temperature).exp().where(adjacency > 0, 0)
    return weights / weights.sum(1, keepdim=True)


def confident_labels(
    probabilities: Float[Tensor, "B C"], thresholds: Float[Tensor, " C"], *, most: int
) -> Bool[Tensor, "B C"]:
    """Of an image's ``most`` highest probabilities, those that reach the threshold of their class."""
    highest = probabilities.topk(min(most, probabilities.shape[1])).indices
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter_(1, highest, True) & (probabilities >= thresholds)
