"""The frozen CLIP text tower, run on prompts that share prefixes.

Attention is causal, so two savings are exact. Nothing after the end-of-text token matters: prompts are cut to
the longest one instead of padded to 77. And a prefix cannot see its suffix: its keys and values are computed once
and every class suffix attends to them. Only the end-of-text token is read, so the last block runs for it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fedmpt.types import Backbone


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embedded prompts, N prefixes times C suffixes, before position embeddings.

    Prefix n has ``prefix_lengths[n]`` tokens and is padded behind them; suffix c ends at token ``ends[c]`` (its
    end-of-text token) and is padded behind it. What stands in the padding is never read.
    """

    prefixes: Float[Tensor, "N P W"]
    prefix_lengths: Int64[Tensor, " N"]
    suffixes: Float[Tensor, "C S W"]
    ends: Int64[Tensor, " C"]
    max_length: int
    """Tokens of the longest prompt."""


@dataclass(frozen=True)
class DeepTokens:
    """Learnable tokens that enter the text tower before some of its blocks, by the block's index.

    ``prefix`` and ``suffix`` replace the context tokens in their places, behind [SOS] or at the start of every suffix:
    [N, b, W] and [C, b, W], where 1 stands for "the same for all" (MaPLe, TCP). ``inserted`` [N, b, W] stand behind
    [SOS] during that block alone and have no positions (RAM).
    """

    prefix: Mapping[int, Float[Tensor, "N b W"]] = field(default_factory=dict)
    suffix: Mapping[int, Float[Tensor, "C b W"]] = field(default_factory=dict)
    inserted: Mapping[int, Float[Tensor, "N b W"]] = field(default_factory=dict)


class TextTower:
    """Prompt embeddings to text features. A plain object: nothing of it is a parameter of what holds it."""

    def __init__(self, backbone: Backbone) -> None:
        model: Any = backbone.text_model
        inner = model.text_model
        self.tokenizer = backbone.tokenizer
        # Any: transformers' layers are used by the names of their weights, which checkpoints fix, not by signature.
        self.layers: list[Any] = list(inner.encoder.layers)
        self.token_embedding: nn.Embedding = inner.embeddings.token_embedding
        self.position_embedding: nn.Embedding = inner.embeddings.position_embedding
        self.final_norm = inner.final_layer_norm
        self.projection = model.text_projection
        self.num_heads: int = model.config.num_attention_heads

    @property
    def width(self) -> int:
        return self.token_embedding.embedding_dim

    @property
    def joint_width(self) -> int:
        """D: what the projection leads to."""
        return self.projection.out_features

    @property
    def max_length(self) -> int:
        """Most tokens a prompt may have (77 for CLIP)."""
        return self.position_embedding.num_embeddings

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    @torch.no_grad()
    def embed_tokens(self, ids: Int64[Tensor, "*shape"]) -> Float[Tensor, "*shape W"]:
        """Frozen token embeddings in fp32, without positions."""
        return self.token_embedding(ids.to(self.device)).float()

    def encode(self, prompts: PromptEmbeddings, deep: DeepTokens | None = None) -> Float[Tensor, "N C D"]:
        """Projected features at the end-of-text token of every prompt, fp32, not normalised.

        Equals the tower run on each whole prompt (to rounding), and so do the gradients.
        """
        assert prompts.max_length <= self.max_length, "prompts.py checks the length with a message"
        deep = deep or DeepTokens()
        tokens = self._with_positions(prompts)
        tree = _PromptTree.of(prompts)
        last = len(self.layers) - 1
        assert all(index <= last for index in (*deep.prefix, *deep.suffix, *deep.inserted))
        for index, layer in enumerate(self.layers[:last]):
            tokens, wider = _with_deep_tokens(tokens, tree, deep, index)
            tokens = self._block(layer, tokens, wider)
            if wider is not tree:
                tokens = torch.cat([tokens[:, :1], tokens[:, 1 + wider.prefix_size - tree.prefix_size :]], dim=1)
        ends = self._last_block(self.layers[last], *_with_deep_tokens(tokens, tree, deep, last))
        return self.projection(self.final_norm(ends)).float()

    def _with_positions(self, prompts: PromptEmbeddings) -> Float[Tensor, "N L W"]:
        """Prefix n, then all C suffixes, as one row of P + C * S tokens."""
        num_prefixes, prefix_size, _ = prompts.prefixes.shape
        num_classes, suffix_size, _ = prompts.suffixes.shape
        positions = self.position_embedding.weight
        steps = torch.arange(suffix_size, device=positions.device)
        # Padding behind a short prompt's end may point past the table; it is never read.
        suffix_index = (prompts.prefix_lengths[:, None] + steps).clamp_max(self.max_length - 1)
        prefixes = prompts.prefixes.to(positions.dtype) + positions[:prefix_size]
        suffixes = prompts.suffixes.to(positions.dtype) + positions[suffix_index][:, None]
        assert suffixes.shape[:2] == (num_prefixes, num_classes)
        return torch.cat([prefixes, suffixes.flatten(1, 2)], dim=1)

    def _block(self, layer: Any, tokens: Float[Tensor, "N L W"], tree: _PromptTree) -> Float[Tensor, "N L W"]:
        normed, p = layer.layer_norm1(tokens), tree.prefix_size
        query, (key, value) = self._split(layer.self_attn.q_proj(normed)), self._keys_and_values(layer, normed)
        # A padded token of a prefix stands behind all real ones, so the causal mask alone hides it from them.
        prefix = F.scaled_dot_product_attention(query[:, :, :p], key[:, :, :p], value[:, :, :p], is_causal=True)
        suffix = _attend(tree.suffixes(query), key, value, tree, tree.suffix_bias).flatten(2, 3)
        return _block_output(layer, tokens, torch.cat([prefix, suffix], dim=2))

    def _last_block(self, layer: Any, tokens: Float[Tensor, "N L W"], tree: _PromptTree) -> Float[Tensor, "N C W"]:
        key, value = self._keys_and_values(layer, layer.layer_norm1(tokens))
        ends = tokens[:, tree.end_index]
        query = self._split(layer.self_attn.q_proj(layer.layer_norm1(ends)))
        bias = tree.suffix_bias[tree.ends][:, None]
        return _block_output(layer, ends, _attend(query[:, :, :, None], key, value, tree, bias)[:, :, :, 0])

    def _keys_and_values(self, layer: Any, normed: Float[Tensor, "N L W"]) -> tuple[Tensor, Tensor]:
        return self._split(layer.self_attn.k_proj(normed)), self._split(layer.self_attn.v_proj(normed))

    def _split(self, projected: Float[Tensor, "N L W"]) -> Float[Tensor, "N H L d"]:
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


@dataclass(frozen=True)
class _PromptTree:
    """Where prefix and suffixes lie in a row of P + C * S tokens, and who may attend to whom."""

    prefix_size: int
    num_classes: int
    suffix_size: int
    ends: Int64[Tensor, " C"]
    end_index: Int64[Tensor, " C"]
    prefix_bias: Float[Tensor, "N 1 1 1 P"]
    suffix_bias: Float[Tensor, "S S"]

    @classmethod
    def of(cls, prompts: PromptEmbeddings) -> _PromptTree:
        prefix_size, (num_classes, suffix_size) = prompts.prefixes.shape[1], prompts.suffixes.shape[:2]
        device = prompts.suffixes.device
        padding = torch.arange(prefix_size, device=device) >= prompts.prefix_lengths[:, None]
        prefix_bias = torch.zeros(padding.shape, device=device).masked_fill(padding, -torch.inf)
        later = torch.ones(suffix_size, suffix_size, dtype=torch.bool, device=device).triu(1)
        return cls(
            prefix_size=prefix_size,
            num_classes=num_classes,
            suffix_size=suffix_size,
            ends=prompts.ends,
            end_index=prefix_size + torch.arange(num_classes, device=device) * suffix_size + prompts.ends,
            prefix_bias=prefix_bias[:, None, None, None],
            suffix_bias=torch.zeros(later.shape, device=device).masked_fill(later, -torch.inf),
        )

    def with_inserted(self, num: int) -> _PromptTree:
        """The same with ``num`` more tokens behind [SOS] in every prefix."""
        bias = self.prefix_bias
        return replace(
            self,
            prefix_size=self.prefix_size + num,
            end_index=self.end_index + num,
            prefix_bias=torch.cat([bias[..., :1], bias.new_zeros(*bias.shape[:-1], num), bias[..., 1:]], dim=-1),
        )

    def suffixes(self, heads: Float[Tensor, "N H L d"]) -> Float[Tensor, "N H C S d"]:
        return heads[:, :, self.prefix_size :].unflatten(2, (self.num_classes, self.suffix_size))


def _with_deep_tokens(
    tokens: Float[Tensor, "N L W"], tree: _PromptTree, deep: DeepTokens, index: int
) -> tuple[Float[Tensor, "N _ W"], _PromptTree]:
    """The tokens as block ``index`` gets them, and where they lie."""
    num_prefixes, width = tokens.shape[0], tokens.shape[-1]
    if index in deep.prefix:
        own = deep.prefix[index].to(tokens.dtype).expand(num_prefixes, -1, -1)
        assert 1 + own.shape[1] <= tree.prefix_size
        tokens = torch.cat([tokens[:, :1], own, tokens[:, 1 + own.shape[1] :]], dim=1)
    if index in deep.suffix:
        own = deep.suffix[index].to(tokens.dtype).expand(num_prefixes, tree.num_classes, -1, -1)
        suffixes = tokens[:, tree.prefix_size :].unflatten(1, (tree.num_classes, tree.suffix_size))
        assert own.shape[2] <= tree.suffix_size
        suffixes = torch.cat([own, suffixes[:, :, own.shape[2] :]], dim=2)
        tokens = torch.cat([tokens[:, : tree.prefix_size], suffixes.reshape(num_prefixes, -1, width)], dim=1)
    if index in deep.inserted:
        own = deep.inserted[index].to(tokens.dtype).expand(num_prefixes, -1, -1)
        tokens = torch.cat([tokens[:, :1], own, tokens[:, 1:]], dim=1)
        tree = tree.with_inserted(own.shape[1])
    return tokens, tree


def _block_output(
    layer: Any, tokens: Float[Tensor, "N L W"], attended: Float[Tensor, "N H L d"]
) -> Float[Tensor, "N L W"]:
    tokens = tokens + layer.self_attn.out_proj(attended.transpose(1, 2).flatten(2))
    return tokens + layer.mlp(layer.layer_norm2(tokens))


def _attend(
    query: Float[Tensor, "N H C Q d"], key: Tensor, value: Tensor, tree: _PromptTree, bias: Tensor
) -> Float[Tensor, "N H C Q d"]:
    """Suffix queries over the shared prefix and their own suffix, without copying the prefix C times."""
    p = tree.prefix_size
    query = query * query.shape[-1] ** -0.5
    flat = query.flatten(2, 3)
    to_prefix = (flat @ key[:, :, :p].transpose(-1, -2)).unflatten(2, query.shape[2:4]) + tree.prefix_bias
    to_suffix = query @ tree.suffixes(key).transpose(-1, -2) + bias
    # Softmax in fp32 (the biases are) also where the tower runs in bf16.
    weights = torch.cat([to_prefix, to_suffix], dim=-1).softmax(-1).to(query.dtype)
    from_prefix = (weights[..., :p].flatten(2, 3) @ value[:, :, :p]).unflatten(2, query.shape[2:4])
    return from_prefix + weights[..., p:] @ tree.suffixes(value)
