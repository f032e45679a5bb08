"""What methods read beside features: tokens within the image tower, a local stream, a strongly augmented copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fedmpt.backbone import load_backbone
from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.backbone.views import StrongView, TowerTokens, open_tower, strongly_augmented, tokens_of
from fedmpt.types import InputError


@pytest.fixture(params=["tiny", "medium"])
def backbone(request: pytest.FixtureRequest) -> ClipBackbone:
    folder: Path = request.getfixturevalue(f"{request.param}_clip_folder")
    return open_tower(load_backbone(str(folder)))


def pixels_for(backbone: ClipBackbone, num: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, 3, backbone.image_size, backbone.image_size, generator=generator)


def test_tokens_before_a_block_lead_to_the_same_features(backbone: ClipBackbone) -> None:
    pixels = pixels_for(backbone)
    expected = backbone.encode_image(pixels)
    for block in range(len(backbone.image_blocks) + 1):
        tokens = tokens_of(*TowerTokens(block).of(backbone).encode_image(pixels), num_streams=1)
        assert tokens.shape[1] == 1
        found = backbone.finish(backbone.run_blocks(tokens[:, 0], start=block, prompts={}))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_prompts_enter_their_blocks_as_in_a_tower_with_hooks(backbone: ClipBackbone) -> None:
    pixels, num_blocks = pixels_for(backbone), len(backbone.image_blocks)
    generator = torch.Generator().manual_seed(1)
    prompts = {index: torch.randn(1, 2, backbone.width, generator=generator) for index in (0, num_blocks - 1)}
    tokens = backbone.embed_patches(pixels)
    patches, pooled = backbone.finish(backbone.run_blocks(tokens, prompts=prompts))
    handles = []
    for index, own in prompts.items():

        def hook(_: nn.Module, arguments: tuple[Tensor, ...], own: Tensor = own) -> tuple[object, ...]:
            # In front of the patches: attention has no order.
            kept = arguments[0][:, [0, *range(-backbone.num_patches, 0)]]
            return torch.cat([kept[:, :1], own.expand(len(kept), -1, -1), kept[:, 1:]], dim=1), *arguments[1:]

        handles.append(backbone.image_blocks[index].layer.register_forward_pre_hook(hook))
    try:
        for block in backbone.image_blocks:
            out = block.layer(tokens, attention_mask=None)
            tokens = out[0] if isinstance(out, tuple) else out
    finally:
        for handle in handles:
            handle.remove()
    plain = backbone.finish(tokens[:, [0, *range(-backbone.num_patches, 0)]])
    torch.testing.assert_close((patches, pooled), plain, atol=1e-5, rtol=1e-5)


def test_gradients_reach_prompts_and_never_the_tower(backbone: ClipBackbone) -> None:
    prompt = torch.zeros(1, 1, backbone.width, requires_grad=True)
    tokens = backbone.embed_patches(pixels_for(backbone))
    backbone.finish(backbone.run_blocks(tokens, prompts={1: prompt}))[0].sum().backward()
    assert prompt.grad is not None
    assert prompt.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in backbone.image_blocks.parameters())


def test_value_attention_by_explicit_loops(backbone: ClipBackbone) -> None:
    tokens = backbone.embed_patches(pixels_for(backbone, 2))
    layer = backbone.image_blocks[0].layer
    normed = layer.layer_norm1(tokens)
    attention = layer.self_attn
    size = backbone.width // attention.num_heads
    expected = torch.zeros_like(tokens)
    for image in range(len(tokens)):
        value = normed[image] @ attention.v_proj.weight.T + attention.v_proj.bias
        heads = []
        for head in range(attention.num_heads):
            part = value[:, head * size : (head + 1) * size]
            heads.append((part @ part.T / size**0.5).softmax(-1) @ part)
        expected[image] = torch.cat(heads, -1) @ attention.out_proj.weight.T + attention.out_proj.bias
    torch.testing.assert_close(backbone.image_blocks[0].value_attention(tokens), expected, atol=1e-5, rtol=1e-5)


def test_the_local_stream_gathers_value_attention_of_the_untouched_stream(backbone: ClipBackbone) -> None:
    pixels = pixels_for(backbone)
    view = TowerTokens(2, with_local=True)
    normal, local = tokens_of(*view.of(backbone).encode_image(pixels), num_streams=2).unbind(1)
    first = backbone.embed_patches(pixels)
    second = backbone.image_blocks[0](first)
    torch.testing.assert_close(normal, backbone.image_blocks[1](second), atol=1e-5, rtol=1e-5)
    added = backbone.image_blocks[0].value_attention(first) + backbone.image_blocks[1].value_attention(second)
    torch.testing.assert_close(local, first + added, atol=1e-5, rtol=1e-5)


def test_every_view_has_its_own_fingerprint(backbone: ClipBackbone) -> None:
    views = (TowerTokens(0), TowerTokens(1), TowerTokens(1, with_local=True))
    found = {view.of(backbone).fingerprint for view in views} | {backbone.fingerprint}
    assert len(found) == 4
    assert TowerTokens(1).of(backbone).fingerprint == TowerTokens(1).of(backbone).fingerprint


def test_a_closed_tower_is_said_so(backbone: ClipBackbone) -> None:
    with pytest.raises(InputError, match=r"does not open its own.*--backbone"):
        open_tower(StrongView().of(backbone))


def picture(seed: int = 0, size: tuple[int, int] = (90, 60)) -> Image.Image:
    draws = torch.randint(256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(draws.to(torch.uint8).numpy())


def test_the_strong_copy_is_the_same_always_and_another_for_every_picture() -> None:
    first, again, other = (strongly_augmented(picture(seed)) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != picture().tobytes()
    assert (first.size, first.tobytes()) != (other.size, other.tobytes())


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (640, 480)])
@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "RGB"])
def test_the_strong_copy_is_of_any_picture(size: tuple[int, int], mode: str) -> None:
    copy = strongly_augmented(picture(size=size).convert(mode))
    assert copy.mode == "RGB"
    assert copy.width <= size[0]
    assert copy.height <= size[1]


def test_the_strong_view_is_of_the_augmented_picture(backbone: ClipBackbone) -> None:
    view, image = StrongView().of(backbone), picture()
    assert torch.equal(view.preprocess(image), backbone.preprocess(strongly_augmented(image)))
    pixels = pixels_for(backbone)
    torch.testing.assert_close(view.encode_image(pixels), backbone.encode_image(pixels), atol=0, rtol=0)
