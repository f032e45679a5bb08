"""PositiveCoOp (Rawlekar et al. 2025): one context for positive prompts, and free vectors in place of negative ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import MethodConfig
from fedmpt.methods.parts.heads import DualPromptMethod
from fedmpt.methods.parts.optimizers import Joined
from fedmpt.methods.parts.prompts import PromptTemplate, context_from
from fedmpt.types import Backbone, check_options


class PosCoOp(DualPromptMethod):
    """State: ``context`` [b, W], ``delta`` [C, D], added to positive features, and ``nu`` [C, D], the negative ones.

    All three are averaged over the clients, each class's rows too, also those of clients that have no image of it: such
    a client has trained them all the same, on images where the class is absent.
    """

    def __init__(
        self, config: PosCoOpConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_context", "vector_std")
        check_options(config, "[0, inf)", "context_rate")
        self.context_rate = config.context_rate
        self.template = PromptTemplate(self.tower, class_names, num_prefix_context=config.num_context)
        context = context_from(self.tower, config.context_init, config.num_context, generator=generator)
        shape = (len(class_names), self.tower.joint_width)
        self.context = nn.Parameter(context)
        self.delta = nn.Parameter(config.vector_std * torch.randn(shape, generator=generator))
        self.nu = nn.Parameter(config.vector_std * torch.randn(shape, generator=generator))

    def encode_text(self) -> Float[Tensor, "2 C D"]:
        features = self.tower.encode(self.template.embed(self.context[None]))[0]
        # The paper leaves open whether features are normalised before delta is added. They are not: beside a vector of
        # length 1, delta of length sqrt(D) would be all there is. CLIP's raw features are about as long as delta.
        return torch.stack([features + self.delta, self.nu])

    def learning_rate_factors(self) -> dict[str, float]:
        return {"context": self.context_rate}

    def optimizer(
        self, *, learning_rate: float, momentum: float, weight_decay: float
    ) -> torch.optim.Optimizer | Joined:
        """As of all methods, but without weight decay: published so."""
        return super().optimizer(learning_rate=learning_rate, momentum=momentum, weight_decay=0.0)


@dataclass(frozen=True)
class PosCoOpConfig(MethodConfig):
    """A learnable context and, for each class, two free vectors. Trains without weight decay, whatever is given."""

    name: ClassVar[str] = "poscoop"
    summary: ClassVar[str] = "positive prompts; free vectors for what is not there"
    source: ClassVar[str] = "Rawlekar et al. 2025 (PositiveCoOp), WACV"
    method: ClassVar = PosCoOp
    # The vectors' own, which are long and taken by their direction alone; the context has a hundredth of it.
    learning_rate: ClassVar[float] = 10.0
    # The context then has the common 0.001.
    paper_learning_rate: ClassVar[float] = 0.1

    num_context: int = 16
    """Learnable tokens before the class name."""
    context_init: str = ""
    """Words the context starts from; where they are too few, and if empty, tokens are drawn from N(0, 0.02^2)."""
    vector_std: float = 1.0
    """Standard deviation from which the vectors are drawn; their learning rate grows with its square."""
    context_rate: float = 0.01
    """Factor on the learning rate for the context; the vectors have the full rate."""
