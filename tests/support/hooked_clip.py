"""What our towers are held against where methods put tokens into them: transformers' own forward, with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from plain_prompts import encode_plainly
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModelWithProjection

from fedmpt.backbone.text_tower import PromptEmbeddings


def image_features(folder: Path, pixels: Tensor, prompts: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """Patch features and pooled feature of a CLIP in ``folder``, with ``prompts[i]`` [B, b, V] behind the patches.

    Those of 0 join the embedded patches, in front of the first norm, and are there from the start; those of i replace
    the last b tokens before block i.
    """
    model = CLIPModel.from_pretrained(folder).requires_grad_(False).eval()
    vision = model.vision_model
    edits: dict[nn.Module, Callable[[Tensor], Tensor]] = {
        vision.pre_layrnorm: lambda tokens: torch.cat([tokens, prompts[0]], dim=1)
    }
    for index, own in prompts.items():
        if index > 0:
            edits[vision.encoder.layers[index]] = lambda tokens, own=own: torch.cat(
                [tokens[:, : -own.shape[1]], own], dim=1
            )
    with edited(edits):
        last = vision(pixel_values=pixels).last_hidden_state
    features = model.visual_projection(vision.post_layernorm(last))
    return features[:, 1 : -prompts[0].shape[1]], features[:, 0]


def text_features(model: CLIPTextModelWithProjection, prompts: PromptEmbeddings, deep: Mapping[int, Tensor]) -> Tensor:
    """Features [N, C, D] of whole prompts, where ``deep[i]`` [b, W] replace the tokens behind [SOS] before block i."""
    layers = model.text_model.encoder.layers
    edits = {
        layers[index]: lambda tokens, own=own: torch.cat(
            [tokens[:, :1], own.expand(len(tokens), -1, -1), tokens[:, 1 + len(own) :]], dim=1
        )
        for index, own in deep.items()
    }
    with edited(edits):
        return encode_plainly(model, prompts)


@contextmanager
def edited(edits: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change the first argument of modules, for as long as the context lasts."""
    with ExitStack() as stack:
        for module, edit in edits.items():

            def hook(_: Any, arguments: Any, edit: Callable[[Tensor], Tensor] = edit) -> tuple[Any, ...]:
                return edit(arguments[0]), *arguments[1:]

            stack.callback(module.register_forward_pre_hook(hook).remove)
        yield
