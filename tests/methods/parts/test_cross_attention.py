"""The cross-attention that FedTPG and FedMVP share, against its equations written out."""

from __future__ import annotations

import math

import pytest
import torch
from plain_attention import attend_plainly
from torch import Tensor, nn

from fedmpt.methods.fedmvp import LowRankCrossAttention, PromptFormer
from fedmpt.methods.parts.layers import GEGLU, CrossAttention, initialise

WIDTH = 8


def filled(module: nn.Module) -> nn.Module:
    """No tensor left at the zeros or ones it starts from."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def fed_forward(x: Tensor, feed_forward: nn.Module) -> Tensor:
    norm, widen, _, narrow = feed_forward
    rows = []
    for wide in normed(x, norm) @ widen.weight.T + widen.bias:
        half = len(wide) // 2
        rows.append(torch.tensor([wide[i].item() * gelu(wide[half + i].item()) for i in range(half)]))
    return torch.stack(rows) @ narrow.weight.T + narrow.bias


def expected(module: CrossAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    attended = attend_plainly(module.attention, query, key, value)
    return attended + fed_forward(attended, module.feed_forward)


@torch.no_grad()
def test_cross_attention_equals_its_equations() -> None:
    module = filled(CrossAttention(WIDTH, num_heads=4))
    queries, context = drawn(3, WIDTH), drawn(5, WIDTH, seed=1)
    query, key = normed(queries, module.query_norm), normed(context, module.context_norm)
    torch.testing.assert_close(module(queries, context), expected(module, query, key, key), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_low_rank_terms_act_before_the_norms_and_values_have_none() -> None:
    module = filled(LowRankCrossAttention(WIDTH, num_heads=4, rank=2, generator=torch.Generator()))
    queries, context = drawn(3, WIDTH), drawn(5, WIDTH, seed=1)
    inputs = (queries, context, context)
    query, key, value = (x + x @ module.low_rank_down[i] @ module.low_rank_up[i] for i, x in enumerate(inputs))
    query, key = normed(query, module.query_norm), normed(key, module.context_norm)
    torch.testing.assert_close(module(queries, context), expected(module, query, key, value), atol=1e-4, rtol=1e-4)


def test_low_rank_terms_start_small() -> None:
    module = LowRankCrossAttention(64, num_heads=2, rank=8, generator=torch.Generator().manual_seed(0))
    for factor in (module.low_rank_down, module.low_rank_up):
        assert 0.018 < factor.std() < 0.022


@torch.no_grad()
def test_geglu_gates_the_first_half_by_the_second() -> None:
    found = GEGLU()(torch.tensor([[2.0, -3.0, 0.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0 * gelu(0.0), -3.0 * gelu(1.0)]]))


@pytest.mark.parametrize("num_tokens", [1, 2, 4])
@torch.no_grad()
def test_prompt_former_averages_bands_of_patches_of_each_image(num_tokens: int) -> None:
    module = filled(PromptFormer(6, WIDTH, num_tokens=num_tokens, generator=torch.Generator()))
    patches, texts = drawn(2, 8, WIDTH), drawn(5, 6, seed=1)
    context = texts @ module.from_text.weight.T + module.from_text.bias
    found = module(patches, texts)
    assert found.shape == (2, num_tokens, WIDTH)
    size = 8 // num_tokens
    for image in range(2):
        seen = torch.stack([module.attention(patch[None], context)[0] for patch in patches[image]])
        for token in range(num_tokens):
            band = seen[token * size : (token + 1) * size].mean(0)
            torch.testing.assert_close(found[image, token], band, atol=1e-4, rtol=1e-4)


def test_prompt_former_is_drawn_from_the_generator() -> None:
    def state(seed: int, noise: int) -> dict[str, Tensor]:
        torch.manual_seed(noise)
        return PromptFormer(6, WIDTH, num_tokens=4, generator=torch.Generator().manual_seed(seed)).state_dict()

    one, again, other = state(1, 1), state(1, 2), state(2, 2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["from_text.weight"], other["from_text.weight"])


def test_initialise_reaches_what_cross_attention_holds() -> None:
    one, other = CrossAttention(WIDTH, num_heads=2), CrossAttention(WIDTH, num_heads=2)
    for module in (one, other):
        initialise(module, torch.Generator().manual_seed(4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
