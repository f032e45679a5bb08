"""PLOT (Chen et al. 2023): several prompts a class, matched to an image's patches by optimal transport."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.text_tower import TextTower
from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.heads import CLIP_LOGIT_SCALE, SigmoidCalibration
from fedmpt.methods.parts.prompts import PromptTemplate, context_from, random_context, token_ids
from fedmpt.methods.parts.transport import check_similarity, sinkhorn
from fedmpt.types import Backbone, Batch, check_options


class PromptTransport(Method):
    """N prompts a class, each with a context of its own for all classes, against patches: PLOT and FedOTP.

    ``l_c = 100 sum_mn T_cmn cos(x_m, t_nc)`` with T_c the plan between the patches of the image and the prompts of
    class c. State: ``calibration.scale`` and ``calibration.bias``, beside the contexts.
    """

    mass: float | None = None
    """Share of the patches' mass that is sent; None for all, which is to be met exactly."""

    def __init__(self, config: Any, backbone: Backbone, class_names: Sequence[str], *, num_prompts: int) -> None:
        """``config`` has ``num_context`` and ``entropy``."""
        super().__init__(backbone, class_names)
        check_options(config, "(0, inf)", "num_context", "entropy")
        self.entropy = config.entropy
        # Prefixes of the same classes: the tower encodes all contexts in one call.
        self.template = PromptTemplate(
            self.tower,
            class_names,
            prefix_texts=("",) * num_prompts,
            num_prefix_context=config.num_context,
        )
        # Papers: a softmax over classes and the cross-entropy of one label an image, where we have several.
        self.calibration = SigmoidCalibration()

    @abstractmethod
    def contexts(self) -> Float[Tensor, "N b W"]:
        """Of every prompt."""

    def plan(self, cosines: Float[Tensor, "B C M N"]) -> Float[Tensor, "B C M N"]:
        """What each patch sends to each prompt of each class; all patches and all prompts count the same."""
        num_patches, num_prompts = cosines.shape[-2:]
        rows = cosines.new_full((num_patches,), 1 / num_patches)
        columns = cosines.new_full((num_prompts,), 1 / num_prompts)
        return sinkhorn(1 - cosines, rows, columns, entropy=self.entropy, mass=self.mass)

    def encode_text(self) -> Float[Tensor, "N C D"]:
        return F.normalize(self.tower.encode(self.template.embed(self.contexts())), dim=-1)

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        return self.calibration(self.logits(batch, self.encode_text() if text is None else text))

    def logits(self, batch: Batch, text: Float[Tensor, "N C D"]) -> Float[Tensor, "B C"]:
        """The transported similarity of every class. ``text`` is normalised."""
        cosines = torch.einsum("bmd,ncd->bcmn", F.normalize(batch.patches, dim=-1), text)
        check_similarity(cosines)
        # In hundredths of a cosine for every backbone, as the CSRA head's: the calibration counts on it.
        return CLIP_LOGIT_SCALE * (self.plan(cosines.detach()) * cosines).sum((-2, -1))


class PLOT(PromptTransport):
    """State: ``context`` [N, b, W], and the head's calibration."""

    def __init__(
        self, config: PLOTConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        check_options(config, "(0, inf)", "num_prompts")
        super().__init__(config, backbone, class_names, num_prompts=config.num_prompts)
        sizes = (config.num_prompts, config.num_context)
        self.context = nn.Parameter(different_contexts(self.tower, config.context_init, *sizes, generator=generator))

    def contexts(self) -> Float[Tensor, "N b W"]:
        return self.context


@dataclass(frozen=True)
class PLOTConfig(MethodConfig):
    """Several learnable contexts for all classes; transport decides which patch answers to which of a class's."""

    name: ClassVar[str] = "plot"
    summary: ClassVar[str] = "four contexts; optimal transport matches them to patches"
    source: ClassVar[str] = "Chen et al. 2023 (PLOT), ICLR"
    method: ClassVar = PLOT
    learning_rate: ClassVar[float] = 0.3

    num_prompts: int = 4
    """Prompts a class has, each with a context of its own."""
    num_context: int = 16
    """Learnable tokens before the class name, in each context."""
    context_init: str = ""
    """Words all contexts start from, but for small noise; where too few, and if empty, tokens are drawn from
    N(0, 0.02^2)."""
    entropy: float = 0.1
    """Entropy of the transport in units of a cosine (POT's reg)."""


def different_contexts(
    tower: TextTower, phrase: str, num: int, num_tokens: int, *, generator: torch.Generator
) -> Float[Tensor, "num num_tokens W"]:
    """Contexts of `context_from`, none of which is like another where they start from the same words."""
    contexts = torch.stack([context_from(tower, phrase, num_tokens, generator=generator) for _ in range(num)])
    # The same contexts would get the same gradients, and stay the same for ever. The first one keeps the words.
    num_words = min(len(token_ids(tower.tokenizer, phrase)), num_tokens)
    noise = random_context(num - 1, num_words, tower.width, generator=generator).to(contexts.device)
    contexts[1:, num_tokens - num_words :] += noise
    return contexts
