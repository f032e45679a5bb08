"""RAM's local adapter, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmpt.methods.ram import LocalAdapter, attended_text

WIDTH, JOINT_WIDTH, SIDE = 5, 4, 3


@pytest.fixture
def adapter() -> LocalAdapter:
    """With numbers in it that training might have put there."""
    generator = torch.Generator().manual_seed(0)
    adapter = LocalAdapter(WIDTH, JOINT_WIDTH, generator)
    for tensor in adapter.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
    for branch in (adapter.point, adapter.window):
        branch.norm.running_var.add_(0.5)
    return adapter


def tokens_and_text() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 1 + SIDE**2, WIDTH, generator=generator)
    return tokens, torch.randn(6, JOINT_WIDTH, generator=generator)


def plain_convolution(image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[channels, H, W], zeros around it; one output at a time."""
    height, width = image.shape[1:]
    half = weight.shape[-1] // 2
    out = torch.zeros(len(weight), height, width)
    for o in range(len(weight)):
        for y in range(height):
            for x in range(width):
                total = 0.0 if bias is None else bias[o].item()
                for dy in range(-half, half + 1):
                    for dx in range(-half, half + 1):
                        if 0 <= y + dy < height and 0 <= x + dx < width:
                            total += (weight[o, :, half + dy, half + dx] @ image[:, y + dy, x + dx]).item()
                out[o, y, x] = total
    return out


def plain_branch(branch: Any, images: Tensor, text: Tensor, *, training: bool) -> Tensor:
    convolved = torch.stack([plain_convolution(i, branch.convolution.weight, branch.convolution.bias) for i in images])
    assert branch.convolution.bias is None
    out = torch.zeros_like(convolved)
    for channel in range(JOINT_WIDTH):
        values = convolved[:, channel]
        mean, variance = branch.norm.running_mean[channel], branch.norm.running_var[channel]
        if training:
            mean, variance = values.mean(), values.var(correction=0)
        normed = (values - mean) / (variance + 1e-5).sqrt() * branch.norm.weight[channel] + branch.norm.bias[channel]
        out[:, channel] = normed * 0.5 * (1 + torch.erf(normed / math.sqrt(2)))
    for b in range(len(images)):
        for y in range(SIDE):
            for x in range(SIDE):
                query = plain_norm(branch.query_norm, out[b, :, y, x])
                out[b, :, y, x] = out[b, :, y, x] + plain_attention(query, text)
    return out


def plain_norm(norm: Any, vector: Tensor) -> Tensor:
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * norm.weight + norm.bias


def plain_attention(query: Tensor, text: Tensor) -> Tensor:
    scores = [math.exp((query @ key).item() / math.sqrt(JOINT_WIDTH)) for key in text]
    return sum((score / sum(scores) * key for score, key in zip(scores, text, strict=True)), torch.zeros(JOINT_WIDTH))


def plain_adapter(adapter: LocalAdapter, tokens: Tensor, text: Tensor, *, training: bool) -> Tensor:
    images = torch.stack([torch.stack(list(image[1:]), 1).view(WIDTH, SIDE, SIDE) for image in tokens])
    keys = torch.stack([plain_norm(adapter.text_norm, vector) for vector in text])
    branches = [plain_branch(branch, images, keys, training=training) for branch in (adapter.point, adapter.window)]
    result = torch.zeros_like(tokens)
    for b in range(len(tokens)):
        maps = torch.zeros(2, SIDE, SIDE)
        for y in range(SIDE):
            for x in range(SIDE):
                channels = [value for branch in branches for value in branch[b, :, y, x].tolist()]
                maps[0, y, x], maps[1, y, x] = sum(channels) / len(channels), max(channels)
        gates = plain_convolution(maps, adapter.gate.weight, None)
        for y in range(SIDE):
            for x in range(SIDE):
                mixed = sum(
                    branch[b, :, y, x] / (1 + math.exp(-gate[y, x].item()))
                    for branch, gate in zip(branches, gates, strict=True)
                )
                result[b, 1 + y * SIDE + x] = adapter.up.weight[:, :, 0, 0] @ mixed
    return result


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_is_what_its_equations_say(adapter: LocalAdapter, training: bool) -> None:
    tokens, text = tokens_and_text()
    found = adapter.train(training)(tokens, text)
    # Statistics of the batch have moved; those before it are not read in training.
    torch.testing.assert_close(found, plain_adapter(adapter, tokens, text, training=training), atol=1e-5, rtol=1e-4)
    assert (found[:, 1:].abs().amax(-1) > 0).all()


def test_the_class_token_is_neither_read_nor_written(adapter: LocalAdapter) -> None:
    tokens, text = tokens_and_text()
    other = torch.cat([torch.randn(2, 1, WIDTH), tokens[:, 1:]], dim=1)
    found = adapter.eval()(tokens, text)
    assert torch.equal(adapter(other, text), found)
    assert (found[:, 0] == 0).all()


def test_text_is_attended_without_parameters() -> None:
    _, text = tokens_and_text()
    queries = torch.randn(2, 3, JOINT_WIDTH, generator=torch.Generator().manual_seed(2))
    expected = torch.stack([torch.stack([plain_attention(query, text) for query in some]) for some in queries])
    torch.testing.assert_close(attended_text(queries, text), expected)


def test_the_attention_tells_classes_apart() -> None:
    """Without norms before it, its weights are nearly even, whatever the text: CLIP's features are short."""
    generator = torch.Generator().manual_seed(0)
    branch = LocalAdapter(64, 512, generator).point
    hidden = 0.3 * torch.randn(1, 10, 512, generator=generator)
    text = F.normalize(torch.randn(20, 512, generator=generator), dim=-1)
    keys = F.layer_norm(text, [512])
    found = (branch.query_norm(hidden) @ keys.T / 512**0.5).softmax(-1)
    torch.testing.assert_close(attended_text(branch.query_norm(hidden), keys), found @ keys)
    assert found.amax() > 0.2
    assert (hidden @ text.T / 512**0.5).softmax(-1).amax() < 0.06


def test_starts_next_to_nothing_and_yet_every_part_learns_at_once() -> None:
    adapter = LocalAdapter(WIDTH, JOINT_WIDTH, torch.Generator().manual_seed(0))
    tokens, text = tokens_and_text()
    found = adapter(tokens, text)
    assert 0 < found.abs().max() < 0.02
    found.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.parameters())


def test_one_image_can_be_trained_on_and_moves_the_running_statistics(adapter: LocalAdapter) -> None:
    tokens, text = tokens_and_text()
    before = {name: buffer.clone() for name, buffer in adapter.named_buffers()}
    assert adapter.train()(tokens[:1], text).isfinite().all()
    assert before.keys() == {f"{part}.norm.running_{what}" for part in ("point", "window") for what in ("mean", "var")}
    assert not any(torch.equal(before[name], buffer) for name, buffer in adapter.named_buffers())
