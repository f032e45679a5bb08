"""FedOTP (Li et al. 2024): a shared and a personal prompt, between which partial transport divides the patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import MethodConfig
from fedmpt.methods.plot import PromptTransport, different_contexts
from fedmpt.types import Backbone, State, check_options


class FedOTP(PromptTransport):
    """State: ``context`` [b, W] and the head's calibration, which travel; ``personal_context`` [b, W], which stays.

    The global model is scored with the shared context in both places.
    """

    personal = frozenset({"personal_context"})
    weighting = "data"

    def __init__(
        self, config: FedOTPConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        check_options(config, "(0, 1]", "mass")
        super().__init__(config, backbone, class_names, num_prompts=2)
        self.mass = config.mass
        shared, personal = different_contexts(
            self.tower, config.context_init, 2, config.num_context, generator=generator
        )
        self.context = nn.Parameter(shared.clone())
        self.personal_context = nn.Parameter(personal.clone())

    def contexts(self) -> Float[Tensor, "2 b W"]:
        return torch.stack([self.context, self.personal_context])

    def neutral_personal(self, shared: State, initial: State) -> State:
        # Paper scores clients' own models only. A personal context as it was drawn knows nothing, and half of the mass
        # has to go to it; what all clients learned stands in for it.
        return {"personal_context": shared["context"].clone()}


@dataclass(frozen=True)
class FedOTPConfig(MethodConfig):
    """A shared and a personal context; partial transport decides which patch answers to which, or to none."""

    name: ClassVar[str] = "fedotp"
    summary: ClassVar[str] = "a shared and a personal context, partial transport to patches"
    source: ClassVar[str] = "Li et al. 2024 (FedOTP), CVPR"
    method: ClassVar = FedOTP

    num_context: int = 16
    """Learnable tokens before the class name, in each of the two contexts."""
    context_init: str = ""
    """Words both contexts start from, the personal one with small noise; where too few, and if empty, tokens are drawn
    from N(0, 0.02^2)."""
    entropy: float = 0.1
    """Entropy of the transport in units of a cosine (POT's reg)."""
    mass: float = 0.8
    """Share of the patches' mass that is transported, in (0, 1]."""
