"""The text side of FedMPT, equation (1) of docs/method.md: one feature for each condition and class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.methods.base import Method
from fedmpt.methods.parts.prompts import PromptTemplate, context_from, random_context
from fedmpt.types import Backbone

Trained = Literal["vectors", "prompts", "both"]
"""What is trained: the features themselves, the tokens of the prompts, or tokens and a vector added to each feature."""


class ConditionText(Method):
    """``conditions`` are the N texts that stand before the classes, None for prompts of the class alone (N = 1).

    State: ``condition_context`` [N, b, W] (none without conditions) and ``class_context`` [b, W]; or ``vectors``
    [N, C, D]; or the contexts and ``residual`` [N, C, D].
    """

    def __init__(
        self,
        backbone: Backbone,
        class_names: Sequence[str],
        *,
        trained: Trained,
        conditions: Sequence[str] | None,
        num_condition_context: int,
        num_class_context: int,
        class_context_init: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__(backbone, class_names)
        self.trained_text = trained
        self.template = PromptTemplate(
            self.tower,
            class_names,
            prefix_texts=conditions or ("",),
            num_prefix_context=num_condition_context if conditions else 0,
            num_suffix_context=num_class_context,
        )
        condition_context = None
        if conditions:
            shape = len(conditions), num_condition_context, self.tower.width
            condition_context = random_context(*shape, generator=generator).to(self.tower.device)
        class_context = context_from(self.tower, class_context_init, num_class_context, generator=generator)
        if trained != "vectors":
            if condition_context is not None:
                self.condition_context = nn.Parameter(condition_context)
            self.class_context = nn.Parameter(class_context)
        if trained != "prompts":
            with torch.no_grad():
                start = self._prompt_features(condition_context, class_context)
            if trained == "vectors":
                self.vectors = nn.Parameter(start)
            else:  # Added to what tokens make, as TaskRes does (Yu et al. 2023).
                self.residual = nn.Parameter(torch.zeros_like(start))

    def encode_text(self) -> Float[Tensor, "N C D"]:
        """(1) Normalised features of the condition prompts, or what is trained in their place."""
        if self.trained_text == "vectors":
            return F.normalize(self.vectors, dim=-1)
        text = self._prompt_features(getattr(self, "condition_context", None), self.class_context)
        return F.normalize(text + self.residual, dim=-1) if self.trained_text == "both" else text

    def _prompt_features(self, condition_context: Tensor | None, class_context: Tensor) -> Float[Tensor, "N C D"]:
        return F.normalize(self.tower.encode(self.template.embed(condition_context, class_context)), dim=-1)
