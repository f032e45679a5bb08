"""From similarities of patches and classes to one score per class, and the methods that share a head."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.views import ImageView, TowerTokens, open_tower
from fedmpt.methods.base import Method
from fedmpt.types import Backbone, Batch

CSRA_PATCH_SCALE = 20.0
CSRA_POOL_SCALE = 5.0
CLIP_LOGIT_SCALE = 100.0
TUNED_SPREAD, TUNED_LOGIT_SCALE = 0.925, 26.3
"""Of the model for photos on which default rates were tuned, see `rate_unit`."""


def csra_tokens(batch: Batch) -> Float[Tensor, "B tokens D"]:
    """What CSRA attends to: the pooled feature (CLS) and the patches."""
    return torch.cat([batch.pooled[:, None], batch.patches], dim=1)


def csra_logits(tokens: Float[Tensor, "B M D"], text: Float[Tensor, "C D"]) -> Float[Tensor, "B C"]:
    """Class-specific region attention as in DualCoOp (Sun et al. 2022): ``l_c = 5 sum_m softmax_m(s_cm) s_cm``.

    ``s = 20 cos``, so a logit is about 100 cosines of the tokens that look most like the class. Inputs need not be
    normalised.
    """
    similarity = CSRA_PATCH_SCALE * F.normalize(tokens, dim=-1) @ F.normalize(text, dim=-1).T
    return CSRA_POOL_SCALE * (similarity.softmax(1) * similarity).sum(1)


def dual_probabilities(
    tokens: Float[Tensor, "B M D"],
    positive: Float[Tensor, "C D"],
    negative: Float[Tensor, "C D"],
    *,
    logit_scale: float = CLIP_LOGIT_SCALE,
) -> Float[Tensor, "B C"]:
    """Probability that a class is there, from a text feature that says so and one that says it is not (DualCoOp).

    Each image token counts by its similarity to the *positive* text, in both logits; then a softmax over the two.
    """
    tokens = F.normalize(tokens, dim=-1)
    found, missed = (CSRA_PATCH_SCALE * tokens @ F.normalize(text, dim=-1).T for text in (positive, negative))
    weights = found.softmax(1)
    # Published logits are 100 cosines, which is CLIP's own scale. Cosines of a model with a smaller one spread wider:
    # 100 of them would leave every probability at zero or one, without gradient.
    scale = CSRA_POOL_SCALE * logit_scale / CLIP_LOGIT_SCALE
    # A softmax over two logits is the sigmoid of their difference.
    return (scale * (weights * (found - missed)).sum(1)).sigmoid()


def scaled_log_odds(
    probabilities: Float[Tensor, "B C"], scale: Float[Tensor, " C"], bias: Float[Tensor, " C"]
) -> Float[Tensor, "B C"]:
    """Probabilities whose log-odds are ``scale`` times those given plus ``bias``, class by class (Platt 1999)."""
    return (scale * probabilities.logit(eps=1e-6) + bias).sigmoid()


class SigmoidCalibration(nn.Module):
    """Probabilities from the CSRA logits of methods with one prompt a class.

    Such logits are 15 to 25 whatever the image shows, so a bare sigmoid is stuck at one without gradient. They are
    standardised over the classes of the image, which needs no data to start from, then scaled and shifted by two
    trained numbers that travel like all others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        return self.scaled(standardised(logits))

    def scaled(self, log_odds: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """The same for numbers that are log-odds as they are."""
        return (self.scale * log_odds + self.bias).sigmoid()


def standardised(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Logits minus their mean over classes, over one plus their standard deviation.

    The one (a hundredth of a cosine) keeps the order of images where there are only two classes, whose plain z-scores
    are the same for every image.
    """
    spread = logits.std(-1, keepdim=True, correction=0)
    return (logits - logits.mean(-1, keepdim=True)) / (1 + spread)


class CSRAReading(nn.Module):
    """Class vectors against an image's tokens by the CSRA head.

    State: ``vectors`` [C, D], which begin at ``start``, and the two numbers of ``calibration``.
    """

    def __init__(self, start: Float[Tensor, "C D"]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.clone())
        self.calibration = SigmoidCalibration()

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self.calibration(csra_logits(csra_tokens(batch), self.vectors))


def rate_unit(text: Float[Tensor, "C D"], logit_scale: float) -> float:
    """What rates of vectors and adapters are multiplied by, so that they carry over from one model to another.

    1 for the model they were tuned on. A step moves a vector in proportion to the logit scale, and the logits by that
    scale again; and how far a vector may move before it means something else goes by how far classes' text features
    lie apart. So the unit is (rho / s)^2 with rho^2 the mean squared distance of the normalised features ``text`` from
    their mean, and s the logit scale.
    """
    spread = F.normalize(text, dim=-1).var(0, correction=0).sum().item()
    return spread / TUNED_SPREAD * (TUNED_LOGIT_SCALE / logit_scale) ** 2


def mean_log_odds(first: Float[Tensor, "B C"], second: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Probabilities whose log-odds are the mean of those of two others."""
    return ((first.logit(eps=1e-6) + second.logit(eps=1e-6)) / 2).sigmoid()


def adapted_cosines(
    patches: Float[Tensor, "B M D"],
    text: Float[Tensor, "#N C D"],
    down: Float[Tensor, "N D r"],
    up: Float[Tensor, "N r D"],
) -> Float[Tensor, "B N M C"]:
    """Cosine of ``x + x down up`` with the text, for every condition, patch and class; inputs are normalised.

    Works in the adapters' r dimensions: neither the B x N x M adapted patches of width D nor their norms are formed.
    """
    hidden = torch.einsum("bmd,ndr->bnmr", patches, down)
    products = torch.einsum("bmd,ncd->bnmc", patches, text)
    products = products + hidden @ (up @ text.transpose(-1, -2))
    against_patch = torch.einsum("bmd,nrd->bnmr", patches, up)
    against_self = hidden @ (up @ up.transpose(-1, -2))
    squared_norm = 1 + (hidden * (2 * against_patch + against_self)).sum(-1, keepdim=True)
    return products * squared_norm.clamp_min(1e-12).rsqrt()


class SinglePromptMethod(Method):
    """One text feature a class against the image's tokens, whichever way a method comes by either.

    State: ``calibration.scale`` and ``calibration.bias``, one number each, beside what the method itself trains.
    """

    def __init__(self, backbone: Backbone, class_names: Sequence[str]) -> None:
        super().__init__(backbone, class_names)
        self.calibration = SigmoidCalibration()

    @abstractmethod
    def encode_text(self) -> Float[Tensor, "C D"]:
        """Text features of the classes; need not be normalised."""

    def image_tokens(self, batch: Batch, text: Float[Tensor, "C D"]) -> Float[Tensor, "B tokens D"]:
        """What the head attends to: the frozen features, unless a method changes them."""
        return csra_tokens(batch)

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        return self.calibration(csra_logits(self.image_tokens(batch, text), text))


class ImagePromptMethod(SinglePromptMethod):
    """Puts tokens into the image tower, the first before its first block, and scores what comes out of it."""

    views: Mapping[str, ImageView] = {"tokens": TowerTokens(block=0)}

    def __init__(self, backbone: Backbone, class_names: Sequence[str]) -> None:
        super().__init__(backbone, class_names)
        self.image_tower = open_tower(backbone)

    def prompted_tokens(
        self, tokens: Float[Tensor, "B T V"], prompts: Mapping[int, Float[Tensor, "#B b V"]]
    ) -> Float[Tensor, "B tokens D"]:
        """Class feature and patch features of images to which ``prompts`` were added, by the index of the block.

        ``tokens`` and prompts of block 0 are as the block itself takes them, normed.
        """
        tower = self.image_tower
        # Deeper ones replace what the block before made of theirs; behind the last of them, tokens go on as they are.
        patches, pooled = tower.finish(tower.run_blocks(tokens, prompts=prompts))
        return torch.cat([pooled[:, None], patches], dim=1)


class DualPromptMethod(Method):
    """Two text features a class against the image's tokens, by the head of DualCoOp (Sun et al. 2022).

    The head compares the two, so its probabilities need no calibration. The asymmetric loss of its paper, on the pair
    of probabilities, is that of `Method.loss`: the second of the pair is one minus the first.
    """

    @abstractmethod
    def encode_text(self) -> Float[Tensor, "2 C D"]:
        """Text features of the classes, first the positive, then the negative ones; need not be normalised."""

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        positive, negative = self.encode_text() if text is None else text
        return dual_probabilities(csra_tokens(batch), positive, negative, logit_scale=self.logit_scale)
