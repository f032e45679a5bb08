"""Pictures for methods that work within the image tower: features and tokens are the tower's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from synthetic import feature_set, with_views
from torch import Tensor

from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.backbone.views import ImageView, tokens_of
from fedmpt.data.features.store import FeatureSet
from fedmpt.types import Batch


def pictured(
    backbone: ClipBackbone, views: Mapping[str, ImageView], *, num_images: int, num_classes: int, seed: int = 0
) -> FeatureSet:
    """Images of one or two classes, each of which fills some squares of the picture with its own pattern."""
    side = backbone.image_size // round(backbone.num_patches**0.5)
    per_row = backbone.image_size // side
    patterns = torch.randn(num_classes, 3, side, side, generator=torch.Generator().manual_seed(98))
    generator = torch.Generator().manual_seed(seed)
    first = torch.arange(num_images) % num_classes
    second = torch.randint(num_classes, (num_images,), generator=generator)
    is_second = torch.rand(num_images, per_row, per_row, generator=generator) < 0.5
    squares = patterns[torch.where(is_second, second[:, None, None], first[:, None, None])]
    pixels = squares.permute(0, 3, 1, 4, 2, 5).reshape(num_images, 3, backbone.image_size, backbone.image_size)
    pixels = pixels + 0.2 * torch.randn(pixels.shape, generator=generator)
    labels = torch.zeros(num_images, num_classes, dtype=torch.int8)
    labels[torch.arange(num_images), first] = labels[torch.arange(num_images), second] = 1
    batch = batch_of(backbone, views, pixels, labels)
    return with_views(feature_set(batch.patches, labels, batch.pooled), batch.views)


def batch_of(backbone: ClipBackbone, views: Mapping[str, ImageView], pixels: Tensor, labels: Tensor) -> Batch:
    """All that a method reads of pictures that are at hand."""
    patches, pooled = backbone.encode_image(pixels)
    tokens = {
        name: tokens_of(*view.of(backbone).encode_image(pixels), num_streams=view.num_streams)
        for name, view in views.items()
    }
    return Batch(patches=patches, pooled=pooled, labels=labels.to(torch.int8), views=tokens)
