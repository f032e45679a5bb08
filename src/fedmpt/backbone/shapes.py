"""A CLIP of published size without any numbers in it: enough to build a method and count what it trains."""

from __future__ import annotations

import torch

from fedmpt.backbone.image_tower import ClipBackbone


class _AnyWords:
    """A tokenizer that takes every word for one token: which one decides no shape."""

    bos_token_id, eos_token_id = 49406, 49407

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [0 for _ in text.split()]}


def shapes_of() -> ClipBackbone:
    """openai/clip-vit-base-patch16 on torch's meta device: tensors have shapes, and computing costs nothing."""
    from transformers import CLIPConfig, CLIPModel

    # Sizes are by default those of ViT-B/32, from which this one differs in the patches alone.
    config = CLIPConfig(vision_config={"patch_size": 16})
    with torch.device("meta"):
        model = CLIPModel(config).requires_grad_(False).eval()
    return ClipBackbone(name="shapes", model=model, logit_scale=100.0, tokenizer=_AnyWords(), processor=None)
