"""FedPGP (Cui et al. 2024): a shared context, and a low-rank change of it that every client keeps for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.parts.prompts import PromptTemplate, hand_written_features, random_context
from fedmpt.methods.promptfl import PromptFL, PromptFLConfig
from fedmpt.types import Backbone, Batch, State, check_options

CALIBRATION_RATE = 50.0
"""Factor on the learning rate for the shared head: it then has the rate of other methods."""


class FedPGP(PromptFL):
    """State: ``context`` [b, W] (sigma) and the head's calibration, which travel; ``personal_u`` [b, r] and
    ``personal_v`` [r, W], which stay.

    A client's context is ``context + personal_u personal_v``. The global model is scored with the shared context alone.
    """

    personal = frozenset({"personal_u", "personal_v"})
    weighting = "data"

    def __init__(
        self, config: FedPGPConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        check_options(config, "(0, inf)", "rank", "temperature")
        check_options(config, "[0, inf)", "contrast_weight")
        super().__init__(config, backbone, class_names, generator=generator)
        self.contrast_weight = config.contrast_weight
        self.temperature = config.temperature
        # Paper's neutral prompt: as many X as there are context tokens.
        self.neutral = hand_written_features(self.tower, class_names, prefix=" ".join(["X"] * config.num_context))
        width = self.tower.width
        self.personal_u = nn.Parameter(random_context(config.num_context, config.rank, generator=generator))
        self.personal_v = nn.Parameter(random_context(config.rank, width, generator=generator))

    def neutral_personal(self, shared: State, initial: State) -> State:
        """No change of the shared context."""
        return {**initial, "personal_u": torch.zeros_like(initial["personal_u"])}

    def learning_rate_factors(self) -> dict[str, float]:
        # Two numbers that know nothing of the contrast, and would hardly move at its rate.
        return {"calibration.": CALIBRATION_RATE}

    def make_template(self, class_names: Sequence[str], num_context: int) -> PromptTemplate:
        # Two prefixes of the same classes: the tower encodes both contexts in one call.
        return PromptTemplate(self.tower, class_names, prefix_texts=("", ""), num_prefix_context=num_context)

    def encode_text(self) -> Float[Tensor, "2 C D"]:
        """Normalised features: first of the client's own context, which predicts, then of the shared one."""
        own = self.context + self.personal_u @ self.personal_v
        prompts = self.template.embed(torch.stack([own, self.context]))
        return F.normalize(self.tower.encode(prompts), dim=-1)

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        return super().forward(batch, text[0])

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        text = self.encode_text() if text is None else text
        own, shared = text
        contrast = contrastive_loss(own, shared, self.neutral, temperature=self.temperature)
        return super().loss(batch, text) + self.contrast_weight * contrast


@dataclass(frozen=True)
class FedPGPConfig(PromptFLConfig):
    """A shared context plus a personal low-rank one, which a contrastive loss pushes apart, with the CSRA head."""

    name: ClassVar[str] = "fedpgp"
    summary: ClassVar[str] = "one shared context and a personal low-rank change of it"
    source: ClassVar[str] = "Cui et al. 2024 (FedPGP), ICML"
    method: ClassVar = FedPGP
    # At higher rates the contrastive loss parts the two contexts faster than the labels hold either.
    learning_rate: ClassVar[float] = 0.001

    rank: int = 4
    """Rank of the personal change."""
    contrast_weight: float = 1.0
    """mu: weight of the contrastive loss."""
    temperature: float = 0.5
    """Temperature of the contrastive loss."""


def contrastive_loss(
    own: Float[Tensor, "C D"], shared: Float[Tensor, "C D"], neutral: Float[Tensor, "C D"], *, temperature: float
) -> Float[Tensor, ""]:
    """Of each class, the shared text feature to the neutral one and away from the client's own; mean over classes.

    ``-log(e^(a / t) / (e^(a / t) + e^(b / t)))`` with a the cosine of shared and neutral, b that of shared and own.
    """
    wanted = F.cosine_similarity(neutral, shared, dim=-1)
    unwanted = F.cosine_similarity(shared, own, dim=-1)
    return F.softplus((unwanted - wanted) / temperature).mean()
