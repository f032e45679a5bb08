"""What scenes-clip is trained for: captions, patches, and labels of the whole image, under varied prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from captions import CONCEPTS, concept_words
from jaxtyping import Float, Int64
from stream import Examples
from torch import Tensor

from fedmpt.data.datasets.scenes import CLASS_NAMES
from fedmpt.data.datasets.scenes.draws import Draws

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

MAX_PREFIX = 16
PREFIX_CHANCE, PREFIX_RAMP = 0.6, 1000
TOKEN_STD = 0.02  # Of token vectors at the start, in CLIP and in transformers; learned contexts start there too.
# Patches of nothing but background are most of an image, and the easiest part.
BACKGROUND_WEIGHT = 0.2
PATCH_WEIGHT, IMAGE_WEIGHT = 1.0, 0.5

_PROMPT_PURPOSE = 0x9503


@dataclass(frozen=True)
class Text:
    """Tokens of one text: some random ones, words, more random ones, more words, end. ``gap`` is where the second
    lot of random ones stands in ``ids``."""

    ids: list[int]
    gap: int


def normalised_pixels(pixels: Tensor) -> Float[Tensor, "B 3 H W"]:
    """As the model's preprocessor config says."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


class Objective:
    """Losses of a batch, with prompts and random tokens that depend on the step alone."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._cache: dict[str, list[int]] = {}

    def __call__(self, batch: Examples, step: int) -> dict[str, Tensor]:
        draws = Draws(_PROMPT_PURPOSE, step)
        noise = torch.Generator().manual_seed(step)
        chance = PREFIX_CHANCE * min(1.0, step / PREFIX_RAMP)
        patches, pooled = image_features(self.model, normalised_pixels(batch.pixels))
        captions = self.text_features([self._text("", text) for text in batch.captions], draws, noise, chance=chance)
        prompts = [self._text(*concept_words(concept, draws), end=".") for concept in CONCEPTS]
        concepts = self.text_features(prompts, draws, noise, chance=chance)
        scale = self.model.logit_scale.exp()
        return {
            "caption": _contrast(scale * pooled @ captions.T),
            "patch": PATCH_WEIGHT * _patch_loss(scale * patches @ concepts.T, batch.shares),
            "image": IMAGE_WEIGHT * _image_loss(scale * pooled @ concepts[: len(CLASS_NAMES)].T, batch.present),
        }

    def _text(self, before: str, words: str, end: str = "") -> Text:
        first, second = self._ids(before), self._ids(words + end)
        return Text([*first, *second], gap=len(first))

    def _ids(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
        return self._cache[text]

    def text_features(
        self, texts: Sequence[Text], draws: Draws, noise: torch.Generator, *, chance: float
    ) -> Float[Tensor, "T D"]:
        """Texts with random tokens in front and in the gap: words, or vectors of random length, as learned contexts
        may be. ``chance`` is how many texts have any, in each of the two places."""
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        rows: list[list[int]] = []
        spans: list[tuple[int, int, float]] = []
        for number, text in enumerate(texts):
            counts = [draws.below(MAX_PREFIX // 2 + 1) if draws.chance(chance) else 0 for _ in range(2)]
            fillers = [[draws.below(start) for _ in range(count)] for count in counts]
            row = [start, *fillers[0], *text.ids[: text.gap], *fillers[1], *text.ids[text.gap :]]
            places = (1, 1 + counts[0] + text.gap)
            for place, count in zip(places, counts, strict=True):
                if count and draws.chance(0.7):  # Vectors instead of words, a fifth to five times as long.
                    size = 0.2 * 25 ** (draws.below(1000) / 1000)
                    spans += [(number, place + offset, size) for offset in range(count)]
            rows.append([*row, end])
        ends = torch.tensor([len(row) - 1 for row in rows])
        longest = int(ends.max()) + 1
        ids = torch.tensor([[*row, *[end] * (longest - len(row))] for row in rows])
        table = self.model.text_model.embeddings.token_embedding
        tokens = table(ids)
        if spans:
            which, where, sizes = (torch.tensor(column) for column in zip(*spans, strict=True))
            lengths = sizes[:, None] * TOKEN_STD
            drawn = torch.randn(len(spans), tokens.shape[-1], generator=noise) * lengths
            tokens = tokens.index_put((which, where), drawn.to(tokens.dtype))
        return encode_text(self.model, tokens, ends)


def image_features(model: Any, pixels: Float[Tensor, "B 3 H W"]) -> tuple[Tensor, Tensor]:
    """Normalised features of patches and of the class token, with gradient, fp32."""
    vision = model.vision_model
    hidden = vision(pixel_values=pixels).last_hidden_state
    features = F.normalize(model.visual_projection(vision.post_layernorm(hidden)).float(), dim=-1)
    return features[:, 1:], features[:, 0]


def encode_text(model: Any, tokens: Float[Tensor, "T L W"], ends: Int64[Tensor, " T"]) -> Float[Tensor, "T D"]:
    """Normalised text features of embedded tokens, which transformers' own forward does not take."""
    text = model.text_model
    hidden = tokens + text.embeddings.position_embedding.weight[: tokens.shape[1]]
    for layer in text.encoder.layers:
        normed, attention = layer.layer_norm1(hidden), layer.self_attn
        query, key, value = (
            part(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + attention.out_proj(attended.transpose(1, 2).flatten(2))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    last = text.final_layer_norm(hidden[torch.arange(len(ends)), ends])
    return F.normalize(model.text_projection(last).float(), dim=-1)


def _contrast(logits: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
    """CLIP's loss: each image finds its caption among the batch's, each caption its image."""
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _patch_loss(logits: Float[Tensor, "B M concepts"], shares: Float[Tensor, "B M concepts"]) -> Float[Tensor, ""]:
    """Cross-entropy of each patch with the shares of its pixels."""
    is_background = shares[..., CONCEPTS.index("indoor") :].sum(-1) > 0.95
    weights = torch.where(is_background, BACKGROUND_WEIGHT, 1.0)
    losses = -(shares * logits.log_softmax(-1)).sum(-1)
    return (weights * losses).sum() / weights.sum()


def _image_loss(logits: Float[Tensor, "B C"], present: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
    """Cross-entropy of the class token with an even share for each class that is there."""
    target = present / present.sum(-1, keepdim=True)
    return -(target * logits.log_softmax(-1)).sum(-1).mean()
