"""RAM's features: its two streams against a tower in plain loops, its prompts in both towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from b16 import b16_backbone
from contract import build, images
from torch import Tensor
from used_ram import CONFIG, few, used_ram

from fedmpt.backbone.text_tower import DeepTokens
from fedmpt.backbone.views import LocalPatches, TowerTokens
from fedmpt.data.datasets.voc import CLASS_NAMES as VOC_CLASS_NAMES
from fedmpt.methods.ram import RAM
from fedmpt.types import Backbone


@pytest.fixture
def method(backbone: Backbone) -> RAM:
    return used_ram(backbone)


def plain_block(layer: Any, tokens: Sequence[Tensor]) -> list[Tensor]:
    """A block of the image tower with attention head by head, token by token; one image."""
    attention = layer.self_attn
    normed = [layer.layer_norm1(token) for token in tokens]
    query, key, value = (
        [projection(token).chunk(attention.num_heads) for token in normed]
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = plain_heads(query, key, value)
    tokens = [token + attention.out_proj(new) for token, new in zip(tokens, mixed, strict=True)]
    return [token + layer.mlp(layer.layer_norm2(token)) for token in tokens]


def plain_heads(query: Sequence[Any], key: Sequence[Any], value: Sequence[Any]) -> list[Tensor]:
    out = []
    for own in query:
        heads = []
        for head, vector in enumerate(own):
            scores = torch.stack([vector @ other[head] for other in key]) / vector.numel() ** 0.5
            heads.append((scores.softmax(0)[:, None] * torch.stack([other[head] for other in value])).sum(0))
        out.append(torch.cat(heads))
    return out


def plain_streams(method: RAM, tower: Any, streams: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Class token of the normal stream and patches of the local one, projected, for one image."""
    normal, local = list(streams[0]), list(streams[1])
    for offset, adapter in enumerate(method.adapters):
        layer = tower.image_blocks[method.first_image_block + offset].layer
        value = [layer.self_attn.v_proj(layer.layer_norm1(token)).chunk(layer.self_attn.num_heads) for token in normal]
        added = [layer.self_attn.out_proj(new) for new in plain_heads(value, value, value)]
        normal = plain_block(layer, [*normal, *method.visual_context[offset]])[: len(normal)]
        adapted = adapter(torch.stack(normal)[None], text)[0]
        local = [a + b + c for a, b, c in zip(local, added, adapted, strict=True)]
    patches, pooled = tower.finish(torch.stack([torch.stack(normal), torch.stack(local)]))
    return pooled[0], patches[1]


@torch.no_grad()
def test_the_two_streams_are_those_of_the_equations(backbone: Backbone) -> None:
    """With the touched block put first, so that two of them follow each other."""
    method = build(CONFIG, backbone)
    shallow = images(method, backbone)
    method.first_image_block = 0
    second = build(CONFIG, backbone, seed=1)
    method.adapters = torch.nn.ModuleList([*second.adapters, *method.adapters])
    for adapter in method.adapters:
        adapter.up.weight.data.mul_(500)
    method.visual_context.data = 2 * torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0))
    method.eval()
    batch, text = shallow.batch(torch.arange(2)), method.encode_text()
    unit = F.normalize(text, dim=-1)
    pooled, patches = method.cosines(batch, text)
    for index, streams in enumerate(batch.views["tokens"]):
        expected_pooled, expected_patches = plain_streams(method, backbone, streams, text)
        torch.testing.assert_close(pooled[index], F.normalize(expected_pooled, dim=-1) @ unit.T, atol=1e-5, rtol=0)
        torch.testing.assert_close(patches[index], F.normalize(expected_patches, dim=-1) @ unit.T, atol=1e-5, rtol=0)


@torch.no_grad()
def test_at_the_start_the_local_stream_is_nearly_that_of_the_frozen_tower(backbone: Backbone) -> None:
    method = build(CONFIG, backbone).eval()
    batch, text = few(method, backbone), method.encode_text()
    tokens, local = batch.views["tokens"].unbind(1)
    for block in backbone.image_blocks[method.first_image_block :]:
        local = local + block.value_attention(tokens)
        tokens = block(tokens)
    frozen = F.normalize(backbone.finish(local)[0], dim=-1) @ F.normalize(text, dim=-1).T
    torch.testing.assert_close(batch.views["teacher"][:, 0, 1:], backbone.finish(local)[0])
    torch.testing.assert_close(batch.views["teacher"][:, 0, 0], batch.pooled)
    torch.testing.assert_close(method.cosines(batch, text)[1], frozen, atol=5e-3, rtol=0)


@torch.no_grad()
def test_visual_prompts_change_the_normal_stream_and_the_local_one_only_through_it(
    method: RAM, backbone: Backbone
) -> None:
    batch, text = few(method, backbone), method.encode_text()
    with_prompts = method.cosines(batch, text)
    method.visual_context.data.mul_(-3)
    changed = method.cosines(batch, text)
    assert not torch.allclose(changed[0], with_prompts[0], atol=1e-3)
    assert not torch.allclose(changed[1], with_prompts[1], atol=1e-3)
    # Here one block is touched, and without its adapter nothing carries the prompts over.
    for adapter in method.adapters:
        adapter.up.weight.data.zero_()
    without = method.cosines(batch, text)[1]
    method.visual_context.data.mul_(-3)
    assert torch.equal(method.cosines(batch, text)[1], without)


@torch.no_grad()
def test_text_has_tokens_behind_the_start_in_the_upper_blocks(method: RAM) -> None:
    assert method.first_text_block == 2
    deep = DeepTokens(inserted={2: method.context})
    expected = method.tower.encode(method.template.embed(), deep)[0]
    torch.testing.assert_close(method.encode_text(), expected)
    plain = method.tower.encode(method.template.embed())[0]
    torch.testing.assert_close(method.hand_written, F.normalize(plain, dim=-1))
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_acts_in_the_published_blocks_and_caches_what_comes_before() -> None:
    method = CONFIG.build(b16_backbone(), VOC_CLASS_NAMES, generator=torch.Generator())
    assert (method.first_image_block, method.first_text_block) == (9, 9)
    assert method.views == {"tokens": TowerTokens(block=9, with_local=True)}
    assert method.training_views == {"teacher": LocalPatches()}
