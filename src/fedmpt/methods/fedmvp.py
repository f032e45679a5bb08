"""FedMVP (Singha et al., ICCV 2025): tokens for the image tower, made of the image and of texts about the classes.

In two forms: the original, whose texts are attributes of the classes and whose text side trains nothing, and the
reduced one of published comparisons, which makes one token of the image's class feature and learned prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fedmpt.backbone.text_tower import TextTower
from fedmpt.backbone.views import EmbeddedPatches, ImageView
from fedmpt.conditions.attributes import find_attributes
from fedmpt.methods.base import Method, MethodConfig
from fedmpt.methods.parts.heads import ImagePromptMethod, csra_logits
from fedmpt.methods.parts.layers import CrossAttention, initialise
from fedmpt.methods.parts.losses import asymmetric_loss, text_anchor_loss
from fedmpt.methods.parts.prompts import PromptTemplate, context_from, hand_written_features, random_context
from fedmpt.types import Backbone, Batch, InputError, check_options

NUM_HEADS = 4
RANK = 8
"""Of the low-rank terms on queries, keys and values."""
REDUCED_HEADS = 8
REDUCED_WIDTH = 64
FORM_OPTIONS = {
    "original": ("attributes", "num_visual_tokens", "consistency_weight"),
    "reduced": ("num_context", "context_init"),
}
"""Options that only one of the forms reads."""
CHUNK = 256
"""Attribute prompts encoded at once."""


@dataclass(frozen=True)
class FedMVPConfig(MethodConfig):
    """Visual prompts from the image and texts about the classes, with the CSRA head."""

    name: ClassVar[str] = "fedmvp"
    summary: ClassVar[str] = "image tokens made from the patches and class attributes, CSRA head"
    source: ClassVar[str] = "Singha et al., ICCV 2025 (FedMVP)"
    revision: ClassVar[int] = 2

    form: Literal["original", "reduced"] = "original"
    """original: class attributes and a PromptFormer; reduced: learned prompts and one token, as in published tables."""

    attributes: str = ""
    """original: JSON file with attributes of every class, or the name of a shipped list; empty finds a shipped one."""
    num_visual_tokens: int = 4
    """original: tokens put into the image tower."""
    consistency_weight: float = 10.0
    """original: weight of one minus the cosine of the image's class feature with that of the frozen tower."""

    num_context: int = 4
    """reduced: learnable tokens before the class name."""
    context_init: str = ""
    """reduced: words the context starts from; where too few, and if empty, tokens are drawn from N(0, 0.02^2)."""

    def build(self, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator) -> Method:
        check_options(self, "(0, inf)", "num_context", "num_visual_tokens")
        check_options(self, "[0, inf)", "consistency_weight")
        self._check_form()
        form = FedMVP if self.form == "original" else ReducedFedMVP
        built = form(self, backbone, class_names, generator=generator)
        return built.to(built.device)

    def _check_form(self) -> None:
        """Raises InputError for an option that only the other form reads: it would be ignored."""
        other = "reduced" if self.form == "original" else "original"
        for name in FORM_OPTIONS[other]:
            if (value := getattr(self, name)) != getattr(FedMVPConfig, name):
                raise InputError(
                    f"--{name.replace('_', '-')} {value!r} goes with --form {other} of FedMVP, and this is --form "
                    f"{self.form}; leave it out or take the other form"
                )


class FedMVP(ImagePromptMethod):
    """The original form. State: ``prompt_former``, and the head's calibration.

    ``attribute_features`` [A, D] of all classes are frozen; ``averages`` [A, C] takes scores of attributes to their
    mean over each class's own.
    """

    views: Mapping[str, ImageView] = {"embedded": EmbeddedPatches()}

    def __init__(
        self, config: FedMVPConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        self.consistency_weight = config.consistency_weight
        found = find_attributes(config.attributes, class_names)
        self.sources = dict(found.sources)
        attributes = found.attributes
        self.attribute_features = _attribute_features(self.tower, class_names, attributes)
        counts = torch.tensor([len(own) for own in attributes])
        owners = torch.arange(len(counts)).repeat_interleave(counts)
        self.averages = (F.one_hot(owners, len(counts)) / counts).to(self.tower.device)
        self.prompt_former = PromptFormer(
            self.tower.joint_width,
            self.image_tower.width,
            num_tokens=config.num_visual_tokens,
            generator=generator,
        )

    def encode_text(self) -> Float[Tensor, "A D"]:
        """Features of all attributes: nothing of the text is trained."""
        return self.attribute_features

    def image_tokens(self, batch: Batch, text: Float[Tensor, "A D"]) -> Float[Tensor, "B tokens D"]:
        embedded = batch.views["embedded"][:, 0]
        own = self.prompt_former(embedded[:, 1:].float(), text)
        normed = self.image_tower.norm_before(torch.cat([embedded, own.to(embedded.dtype)], dim=1))
        num = embedded.shape[1]
        return self.prompted_tokens(normed[:, :num], {0: normed[:, num:]})

    def forward(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, "B C"]:
        text = self.encode_text() if text is None else text
        return self.class_probabilities(self.image_tokens(batch, text), text)

    def class_probabilities(
        self, tokens: Float[Tensor, "B tokens D"], text: Float[Tensor, "A D"]
    ) -> Float[Tensor, "B C"]:
        """A class scores as its attributes do on average."""
        # Paper has one class an image, and a softmax over classes; several need the head of all one-prompt methods.
        return self.calibration(csra_logits(tokens, text) @ self.averages)

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        text = self.encode_text() if text is None else text
        tokens = self.image_tokens(batch, text)
        # Needs no labels, so it counts every image.
        drift = 1 - F.cosine_similarity(tokens[:, 0], batch.pooled, dim=-1).mean()
        found = self.class_probabilities(tokens, text)
        return asymmetric_loss(found, batch.labels, batch.weights) + self.consistency_weight * drift


class ReducedFedMVP(ImagePromptMethod):
    """The reduced form. State: ``context`` [b, W]; ``attention`` over the prompts' features; ``to_token``, from D to V;
    and the head's calibration."""

    def __init__(
        self, config: FedMVPConfig, backbone: Backbone, class_names: Sequence[str], *, generator: torch.Generator
    ) -> None:
        super().__init__(backbone, class_names)
        num, width = config.num_context, self.tower.joint_width
        self.template = PromptTemplate(self.tower, class_names, num_prefix_context=num)
        self.anchor = hand_written_features(self.tower, class_names)
        self.context = nn.Parameter(context_from(self.tower, config.context_init, num, generator=generator))
        self.attention = nn.MultiheadAttention(width, REDUCED_HEADS)
        self.to_token = nn.Sequential(
            nn.Linear(width, REDUCED_WIDTH), nn.ReLU(), nn.Linear(REDUCED_WIDTH, self.image_tower.width)
        )
        initialise(self.attention, generator)
        initialise(self.to_token, generator)

    def encode_text(self) -> Float[Tensor, "C D"]:
        """Not normalised: between unit vectors, attention of fresh weights is even, and all images' tokens the same."""
        return self.tower.encode(self.template.embed(self.context[None]))[0]

    def image_tokens(self, batch: Batch, text: Float[Tensor, "C D"]) -> Float[Tensor, "B tokens D"]:
        # Queries do not see each other, so the images may stand in one row.
        attended, _ = self.attention(batch.pooled, text, text, need_weights=False)
        own, tower = self.to_token(attended)[:, None], self.image_tower
        # As in the code behind published tables: not normed before the first block, and the head sees the token too.
        return tower.project(tower.run_blocks(batch.views["tokens"][:, 0], prompts={0: own}))

    def loss(self, batch: Batch, text: Tensor | None = None) -> Float[Tensor, ""]:
        text = self.encode_text() if text is None else text
        # There the labels' loss is a sum over the images, and the anchor one term beside it.
        return super().loss(batch, text) + text_anchor_loss(text, self.anchor) / len(batch)


def _attribute_features(
    tower: TextTower, class_names: Sequence[str], attributes: Sequence[Sequence[str]]
) -> Float[Tensor, "A D"]:
    """Features of "a photo of a CLASS, which has ATTRIBUTE." (Menon and Vondrick 2023), class by class."""
    texts = [f"{name}, which has {text}" for name, own in zip(class_names, attributes, strict=True) for text in own]
    chunks = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
    return torch.cat([hand_written_features(tower, chunk) for chunk in chunks])


class PromptFormer(nn.Module):
    """Patches attend to texts; what they found, averaged over parts of the image, is ``num_tokens`` tokens for it.

    Args:
        text_width: D.
        width: V, divisible by `NUM_HEADS`.
    """

    def __init__(self, text_width: int, width: int, *, num_tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.from_text = nn.Linear(text_width, width)
        self.attention = LowRankCrossAttention(width, num_heads=NUM_HEADS, rank=RANK, generator=generator)
        initialise(self, generator)

    def forward(self, patches: Float[Tensor, "B M V"], texts: Float[Tensor, "L D"]) -> Float[Tensor, "B b V"]:
        found = self.attention(patches.flatten(0, 1), self.from_text(texts)).view_as(patches)
        # Patches come row by row, so each token is of a band across the image.
        return F.adaptive_avg_pool1d(found.transpose(1, 2), self.num_tokens).transpose(1, 2)


class LowRankCrossAttention(CrossAttention):
    """``MHA(LN q, LN k, v)`` of queries, keys and values that are each ``x + x A B`` first, A [V, r] and B [r, V]."""

    def __init__(self, width: int, *, num_heads: int, rank: int, generator: torch.Generator) -> None:
        super().__init__(width, num_heads=num_heads)
        self.low_rank_down = nn.Parameter(random_context(3, width, rank, generator=generator))
        self.low_rank_up = nn.Parameter(random_context(3, rank, width, generator=generator))

    def attention_inputs(
        self, queries: Float[Tensor, "Q width"], context: Float[Tensor, "L width"]
    ) -> tuple[Float[Tensor, "Q width"], Float[Tensor, "L width"], Float[Tensor, "L width"]]:
        # Published code has these terms, alone in training, from the round on in which a client's loss falls below 0.5.
        # Each client has a switch of its own there and the server's model has none on; one averaged model needs one.
        pairs = zip(self.low_rank_down, self.low_rank_up, strict=True)
        query, key, value = (
            x + x @ down @ up for x, (down, up) in zip((queries, context, context), pairs, strict=True)
        )
        return self.query_norm(query), self.context_norm(key), value
