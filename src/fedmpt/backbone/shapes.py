"""A CLIP of published size without any numbers in it: enough to build a method and count what it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fedmpt.backbone.image_tower import ClipBackbone

VIT_B_16: Mapping[str, Any] = {
    "projection_dim": 512,
    "text": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8},
    "vision": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
}
"""openai/clip-vit-base-patch16."""


class _AnyWords:
    """A tokenizer that takes every word for one token: which one decides no shape."""

    bos_token_id, eos_token_id = 49406, 49407

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [0 for _ in text.split()]}


def shapes_of(sizes: Mapping[str, Any] = VIT_B_16) -> ClipBackbone:
    """A backbone of these sizes on torch's meta device: tensors have shapes, and computing costs nothing."""
    from transformers import CLIPConfig, CLIPModel

    joint = {"projection_dim": sizes["projection_dim"]}
    config = CLIPConfig(text_config={**sizes["text"], **joint}, vision_config={**sizes["vision"], **joint}, **joint)
    with torch.device("meta"):
        model = CLIPModel(config).requires_grad_(False).eval()
    return ClipBackbone(name="shapes", model=model, logit_scale=100.0, tokenizer=_AnyWords(), processor=None)
