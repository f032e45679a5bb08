"""The frozen CLIP image tower: pictures to patch features, and its blocks for methods that add tokens.

Letters as in `fedmpt.types`; here ``T`` is the number of tokens in the tower (class token, patches, whatever a method
added behind them) and ``V`` the width of the tower.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fedmpt.types import Tokenizer

PREPROCESSING_FIELDS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
)
"""What decides the pixels; the rest of a preprocessor config varies with the version that wrote it."""

ARCHITECTURE_FIELDS = ("hidden_act", "num_attention_heads", "layer_norm_eps", "patch_size", "image_size")
"""What decides the features and cannot be read off the weights."""


class ImageBlock(nn.Module):
    """One transformer block of the image tower, on the weights of ``layer``: full attention, no mask."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, tokens: Float[Tensor, "B T V"]) -> Float[Tensor, "B T V"]:
        out = self.layer(tokens, attention_mask=None)
        return out[0] if isinstance(out, tuple) else out

    def value_attention(self, tokens: Float[Tensor, "B T V"]) -> Float[Tensor, "B T V"]:
        """What the block's attention gives where values stand for queries and keys: tokens attend to their likes.

        ``softmax(v v^T / sqrt(d_h)) v`` for every head, then the output projection (RAM, Tan et al. 2025). To be added
        to a stream beside ``tokens``.
        """
        attention: Any = self.layer.self_attn
        value = attention.v_proj(self.layer.layer_norm1(tokens))  # type: ignore[operator]
        value = value.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(value, value, value)
        return attention.out_proj(mixed.transpose(1, 2).flatten(2))


class ClipBackbone:
    """A Hugging Face CLIP model as the frozen backbone of `fedmpt.types.Backbone`.

    Beyond the protocol it opens the image tower: `embed_patches`, each of ``image_blocks`` in turn, then `finish` is
    `encode_image`. These three let gradients through, so a method may train tokens it puts in between.

    ``model`` is a ``CLIPModel``, whose weights are used where they are, on their device and in their dtype;
    ``logit_scale`` is in fp32 even if they are not. ``processor`` is a ``CLIPImageProcessorPil``.
    """

    def __init__(self, *, name: str, model: Any, logit_scale: float, tokenizer: Tokenizer, processor: Any) -> None:
        config = model.config.vision_config
        self.name = name
        self.image_size: int = config.image_size
        self.logit_scale = logit_scale
        self.tokenizer = tokenizer
        self.text_model = _text_model_of(model)
        self.num_patches: int = (config.image_size // config.patch_size) ** 2
        self.width: int = config.hidden_size
        self.image_blocks = nn.ModuleList(ImageBlock(layer) for layer in model.vision_model.encoder.layers).eval()
        self._vision = model.vision_model
        self._projection = model.visual_projection
        self._processor = processor

    @property
    def device(self) -> torch.device:
        """Where the towers are and features come out."""
        return self._projection.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In what the towers compute; features are fp32 whatever it is."""
        return self._projection.weight.dtype

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides the features of a picture: image tower weights, their dtype, preprocessing.

        The same on every device and for every name; read once (about a second for ViT-B/16), then kept.
        """
        config = self._vision.config
        settings = {
            "preprocessing": {field: _plain(getattr(self._processor, field)) for field in PREPROCESSING_FIELDS},
            "architecture": {field: getattr(config, field) for field in ARCHITECTURE_FIELDS},
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for part, module in (("vision", self._vision), ("projection", self._projection)):
            for name, tensor in sorted(module.state_dict().items()):
                digest.update(f"{part}.{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
                digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def preprocess(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """CLIP's own preparation of one picture of any size and mode, by the model's preprocessor config."""
        # Converted here as OpenAI's CLIP does, alpha dropped: newer transformers put transparent pictures on white,
        # and features must not depend on the installed version.
        batch = self._processor(images=image.convert("RGB"), do_convert_rgb=False, return_tensors="pt")
        return batch["pixel_values"][0].float()

    @torch.no_grad()  # not inference_mode: features become inputs of losses that are differentiated
    def encode_image(self, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
        """Features of every patch and of the class token, fp32, on the tower's device, not normalised, no gradient.

        Every output token takes the way of the class token: final layer norm, then projection into the text space.
        """
        tokens = self.embed_patches(pixels)
        for block in self.image_blocks:
            tokens = block(tokens)
        return self.finish(tokens)

    def embed(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T V"]:
        """Class token, then the embedded patches row by row, positions added, not yet normed.

        ``pixels`` [B, 3, image_size, image_size], as `preprocess` makes them, may be on any device.
        """
        return self._vision.embeddings(pixels.to(self.device, self.dtype))

    def embed_patches(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T V"]:
        """Tokens before the first block: those of `embed`, normed."""
        return self.norm_before(self.embed(pixels))

    def run_blocks(
        self, tokens: Float[Tensor, "B T V"], *, start: int = 0, prompts: Mapping[int, Float[Tensor, "#B b V"]]
    ) -> Float[Tensor, "B _ V"]:
        """Tokens before block ``start`` through all blocks from there; ``prompts[i]`` behind the patches in block i.

        What stood there before is replaced; a block without prompts of its own keeps what is there. Attention has no
        order, so where prompts stand changes nothing.
        """
        assert all(start <= index < len(self.image_blocks) for index in prompts)
        tokens = tokens.to(self.dtype)
        for index, block in enumerate(self.image_blocks[start:], start):
            if index in prompts:
                own = prompts[index].to(tokens.dtype).expand(len(tokens), -1, -1)
                tokens = torch.cat([tokens[:, : 1 + self.num_patches], own], dim=1)
            tokens = block(tokens)
        return tokens

    def norm_before(self, tokens: Float[Tensor, "B b V"]) -> Float[Tensor, "B b V"]:
        """The tower's norm in front of its first block, also for tokens that are put in there."""
        return self._vision.pre_layrnorm(tokens.to(self.dtype))  # transformers' spelling

    def finish(self, tokens: Float[Tensor, "B T V"]) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B D"]]:
        """Tokens after the last block to patch features and pooled feature, fp32, not normalised.

        The class token is first and the patches follow it; tokens a method added behind the patches are dropped.
        """
        assert tokens.shape[1] > self.num_patches, "the class token and all patches must still be there"
        features = self.project(tokens[:, : 1 + self.num_patches])
        return features[:, 1:], features[:, 0]

    def project(self, tokens: Float[Tensor, "B T V"]) -> Float[Tensor, "B T D"]:
        """Features of any tokens after the last block, fp32, not normalised."""
        return self._projection(self._vision.post_layernorm(tokens)).float()


def _text_model_of(model: Any) -> Any:
    """The text tower by itself, on the weights of ``model``."""
    from transformers import CLIPTextModelWithProjection

    with torch.device("meta"):  # a shell without memory; both its parts are replaced
        text_model = CLIPTextModelWithProjection(model.config.text_config)
    text_model.text_model, text_model.text_projection = model.text_model, model.text_projection
    text_model.config.projection_dim = model.config.projection_dim  # the joint width; its own entry may be stale
    return text_model.requires_grad_(False).eval()


def _plain(value: Any) -> Any:
    """Preprocessor settings as JSON has them, whichever classes the transformers version uses."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in sorted(dict(value).items()) if item is not None}


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
