"""Shapes of CLIP ViT-B/16, for counting parameters."""

from __future__ import annotations

import torch

from fedmpt.backbone.image_tower import ClipBackbone, shapes_of
from fedmpt.data.datasets.voc import CLASS_NAMES
from fedmpt.methods import MethodConfig


def b16_backbone() -> ClipBackbone:
    """ViT-B/16 on torch's meta device: shapes without numbers."""
    return shapes_of()


def trained_at_b16(config: MethodConfig) -> dict[str, int]:
    """Trained parameters by name, for 20 classes."""
    method = config.build(b16_backbone(), CLASS_NAMES, generator=torch.Generator().manual_seed(0))
    return {name: parameter.numel() for name, parameter in method.named_parameters()}
