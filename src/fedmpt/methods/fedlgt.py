"""FedLGT (Liu et al. 2024): a transformer over patches and class texts, with label masks in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.func import functional_call

from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.layers import initialise
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.types import PRESENT, UNKNOWN, Backbone, Batch, check_options

NUM_HEADS = 4
MOST_VISIBLE = 0.75
"""Share of an image's labels that at most are not masked in training."""
UNCERTAIN = 0.02
"""How near to 0.5 a class's probability by the server's model is where its label is always masked."""


class LabelTransformer(nn.Module):
    """Patches and one token a class see each other in all layers; the token of class c gives ``w_c . h_c + b_c``."""

    def __init__(self, width: int, num_classes: int, num_layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, NUM_HEADS, dim_feedforward=width, dropout=0.0, batch_first=True)
            for _ in range(num_layers)
        )
        self.output = nn.Linear(width, num_classes)
        initialise(self, generator)

    def forward(self, patches: Float[Tensor, "B M D"], classes: Float[Tensor, "B C D"]) -> Float[Tensor, "B C"]:
        hidden = self.norm(torch.cat([patches, classes], dim=1))
        for layer in self.layers:
            hidden = layer(hidden)
        return (hidden[:, patches.shape[1] :] * self.output.weight).sum(-1) + self.output.bias


class FedLGT(Method):
    """State: ``transformer``, whose width is that of the joint space."""

    weighting = "data"

    def __init__(
        self, config: FedLGTConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_layers")
        self.classes = hand_written_features(self.tower, class_names, prefix="The photo contains")
        # State embeddings, by the value of a label. Published code has the two words the other way round.
        absent, present = hand_written_features(self.tower, ["negative", "positive"], prefix="")
        self.states = torch.stack([absent, present, torch.zeros_like(absent)])
        self.transformer = LabelTransformer(self.tower.joint_width, len(class_names), config.num_layers, generator)
        self._server: dict[str, Tensor] = {}

    def start_round(self, round_index: int) -> None:
        self._server = {name: tensor.detach().clone() for name, tensor in self.transformer.named_parameters()}

    def encode_text(self) -> Float[Tensor, "C D"]:
        return self.classes

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        return self.transformer(batch.patches, text.expand(len(batch), -1, -1)).sigmoid()

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        """Cross-entropy of the masked labels; outside of training, all are masked."""
        text = self.encode_text() if text is None else text
        visible = self.visible_labels(batch, text) if self.training else torch.full_like(batch.labels, UNKNOWN)
        logits = self.transformer(batch.patches, text + self.states[visible.long()])
        target = (batch.labels == PRESENT).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, target, batch.weights, reduction="none")
        return losses.where((visible == UNKNOWN) & (batch.labels != UNKNOWN), 0).sum(1).mean()

    @torch.no_grad()
    def visible_labels(self, batch: Batch, text: Float[Tensor, "C D"]) -> Int8[Tensor, "B C"]:
        """A random share of each image's labels, without those of which the server's model is uncertain; all others
        are masked: unknown."""
        num_images, num_classes = batch.labels.shape
        most = int(MOST_VISIBLE * num_classes)
        num_visible = torch.randint(most + 1, (num_images, 1), generator=self.draws)
        order = torch.rand(num_images, num_classes, generator=self.draws).argsort(1)
        is_visible = (order < num_visible).to(batch.labels.device)
        inputs = (batch.patches, text.expand(num_images, -1, -1))
        by_server = functional_call(self.transformer, self._server, inputs).sigmoid()
        is_visible &= (by_server - 0.5).abs() > UNCERTAIN
        return batch.labels.masked_fill(~is_visible, UNKNOWN)

    def optimizer(self, *, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.Optimizer:
        """Adam, as published; ``momentum`` is not read."""
        return torch.optim.Adam(self._parameter_groups(learning_rate), lr=learning_rate, weight_decay=weight_decay)


@dataclass(frozen=True)
class FedLGTConfig(MethodConfig):
    """A transformer over an image's patches and frozen class texts. Trains with Adam; ``--momentum`` is not read."""

    name: ClassVar[str] = "fedlgt"
    summary: ClassVar[str] = "a transformer over patches and class texts, with label masks"
    source: ClassVar[str] = "Liu et al. 2024 (FedLGT), AAAI"
    method: ClassVar = FedLGT
    # Published steps are many, at 1e-4: after 30 steps on drawn pictures, mAP was 11 at that rate, 40 at this.
    learning_rate: ClassVar[float] = 3e-3
    paper_learning_rate: ClassVar[float] = 1e-4

    num_layers: int = 3
    """Layers of the transformer."""
