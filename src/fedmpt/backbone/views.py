"""What a method may read of an image beside its frozen features: tokens inside the image tower, or another view of it.

All of these depend on the frozen tower alone, so they are computed once an image and stored like features: only what
comes behind the first block that a method touches runs in every step.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from fedmpt.backbone.image_tower import ClipBackbone, ImageBlock
from fedmpt.backbone.plugin import Wrapped
from fedmpt.types import Backbone, InputError

MIN_AREA = 0.3
"""Smallest share of a picture that the crop of its augmented copy keeps."""
CHANGE = 0.4
"""Brightness, contrast and colour are scaled by factors in [1 - CHANGE, 1 + CHANGE]."""


class ImageView(ABC):
    """Names something to read of images. Equal views are the same thing, computed and stored once.

    ``num_streams`` (S) rows of tokens of equal length come of every image, each with its class token first.
    """

    num_streams: int = 1

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is, in a few words for a table."""

    @abstractmethod
    def of(self, backbone: Backbone) -> Backbone:
        """A backbone whose "features" are this view's tokens: the first one as pooled, all others as patches. Raises
        InputError if the backbone does not open its image tower."""


@dataclass(frozen=True)
class TowerTokens(ImageView):
    """The tokens before block ``block`` of the image tower, class token first; 0 is before the first block.

    With ``with_local`` there is a second stream beside them, which attends by values alone (RAM's local stream).
    """

    block: int
    with_local: bool = False

    @property
    def num_streams(self) -> int:  # type: ignore[override]
        return 2 if self.with_local else 1

    @property
    def label(self) -> str:
        return f"image tower from block {self.block}"

    def of(self, backbone: Backbone) -> Backbone:
        return _TowerTokensOf(open_tower(backbone), self)


@dataclass(frozen=True)
class EmbeddedPatches(ImageView):
    """Class token and embedded patches before the image tower's first norm, which stands in front of block 0."""

    @property
    def label(self) -> str:
        return "image tower from block 0"

    def of(self, backbone: Backbone) -> Backbone:
        return _EmbeddedPatchesOf(open_tower(backbone), self)


@dataclass(frozen=True)
class LocalPatches(ImageView):
    """The patches of the frozen tower's local stream (see `TowerTokens`) behind its last block, as features, and the
    pooled feature before them."""

    @property
    def label(self) -> str:
        return "the image tower's local stream"

    def of(self, backbone: Backbone) -> Backbone:
        return _LocalPatchesOf(open_tower(backbone), self)


@dataclass(frozen=True)
class StrongView(ImageView):
    """The frozen features of one strongly augmented copy of the image, the same in every step and every run."""

    @property
    def label(self) -> str:
        return "an augmented copy"

    def of(self, backbone: Backbone) -> Backbone:
        return _StrongViewOf(backbone)


def open_tower(backbone: Backbone) -> ClipBackbone:
    """The backbone as one whose image tower can be entered. Raises InputError if it is a plug-in, which is closed."""
    if not isinstance(backbone, ClipBackbone):
        raise InputError(
            f"this method puts tokens into the image tower, and backbone {backbone.name!r} does not open its own; "
            "give a model in Hugging Face CLIP layout with --backbone, or choose a method that reads features"
        )
    return backbone


def tokens_of(
    others: Float[Tensor, "B L V"], first: Float[Tensor, "B V"], *, num_streams: int
) -> Float[Tensor, "B S T V"]:
    """What a view's backbone gives, as streams of tokens."""
    return torch.cat([first[:, None], others], dim=1).unflatten(1, (num_streams, -1))


class _TowerViewOf(Wrapped):
    """Of a fingerprint that the view is part of: the tokens are others than the features."""

    def __init__(self, backbone: ClipBackbone, view: ImageView) -> None:
        super().__init__(backbone)
        self.view: Any = view

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.plugin.fingerprint} {self.view!r}".encode()).hexdigest()


class _TowerTokensOf(_TowerViewOf):
    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B L V"], Float[Tensor, "B V"]]:
        view = self.view
        rows = torch.cat(_streams(self.plugin, pixels, num_blocks=view.block, with_local=view.with_local), dim=1)
        return rows[:, 1:].float(), rows[:, 0].float()


def _streams(
    tower: ClipBackbone, pixels: Float[Tensor, "B 3 H W"], *, num_blocks: int, with_local: bool
) -> list[Float[Tensor, "B T V"]]:
    """The tokens behind so many blocks, and those of the local stream if asked for."""
    tokens = tower.embed_patches(pixels)
    local = tokens
    for block in cast("Sequence[ImageBlock]", tower.image_blocks[:num_blocks]):
        if with_local:
            local = local + block.value_attention(tokens)
        tokens = block(tokens)
    return [tokens, local] if with_local else [tokens]


class _EmbeddedPatchesOf(_TowerViewOf):
    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B M V"], Float[Tensor, "B V"]]:
        tokens = self.plugin.embed(pixels).float()
        return tokens[:, 1:], tokens[:, 0]


class _LocalPatchesOf(_TowerViewOf):
    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
        tower = self.plugin
        tokens, local = _streams(tower, pixels, num_blocks=len(tower.image_blocks), with_local=True)
        return tower.finish(local)[0], tower.finish(tokens)[1]


class _StrongViewOf(Wrapped):
    """Of the same fingerprint, where the backbone has one of its own: the preprocessing tells the views apart."""

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        return self.plugin.preprocess(strongly_augmented(image))

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
        return self.plugin.encode_image(pixels)


def strongly_augmented(image: Image.Image) -> Image.Image:
    """A random crop, perhaps mirrored, with colours changed, sometimes grey or blurred (SimCLR, Chen et al. 2020).

    What is drawn depends on the picture's pixels alone, so features of the copy can be stored.
    """
    picture = image.convert("RGB")
    # Of a small copy: enough to tell pictures apart, and quick for large ones.
    seed = hashlib.sha256(picture.resize((32, 32)).tobytes() + repr(picture.size).encode()).digest()
    draw = random.Random(seed)
    scale = draw.uniform(MIN_AREA, 1) ** 0.5
    width, height = (max(1, round(side * scale)) for side in picture.size)
    left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    picture = picture.crop((left, top, left + width, top + height))
    if draw.random() < 0.5:
        picture = ImageOps.mirror(picture)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(1 + draw.uniform(-CHANGE, CHANGE))
    if draw.random() < 0.2:
        picture = ImageOps.grayscale(picture).convert("RGB")
    if draw.random() < 0.5:
        # Relative to the size, so that a large photo is blurred as much as a small one.
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.1, 2.0) * min(picture.size) / 224))
    return picture
