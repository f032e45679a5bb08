"""The image tower against transformers run the ordinary way, and preprocessing against Pillow and numpy by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fedmpt.backbone import load_backbone
from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.types import Backbone

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module", params=["tiny_clip_folder", "medium_clip_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> ClipBackbone:
    return load_clip(folder)


def load_clip(folder: Path, **options: torch.dtype) -> ClipBackbone:
    loaded = load_backbone(str(folder), **options)
    assert isinstance(loaded, ClipBackbone)
    return loaded


def random_pixels(backbone: ClipBackbone, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, backbone.image_size, backbone.image_size, generator=generator)


def picture(width: int, height: int) -> Image.Image:
    """Smooth in places and noisy in others, so that resampling filters differ on it."""
    generator = np.random.default_rng(2)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
    noise = generator.integers(0, 55, (height, width, 3))
    return Image.fromarray((ramp + noise).astype(np.uint8))


def prepared_by_hand(rgb: Image.Image, side: int) -> Tensor:
    """Shortest edge to ``side`` (bicubic), centre crop, to [0, 1], normalised."""
    width, height = rgb.size
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    pixels = np.asarray(rgb.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    top, left = (size[1] - side) // 2, (size[0] - side) // 2
    cropped = pixels[top : top + side, left : left + side]
    return torch.from_numpy(((cropped / 255 - MEAN) / STD).transpose(2, 0, 1)).float()


def test_features_are_those_of_transformers(folder: Path, backbone: ClipBackbone) -> None:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    pixels = random_pixels(backbone)
    with torch.no_grad():
        expected_pooled = model.get_image_features(pixels).pooler_output
        hidden = model.vision_model(pixels).last_hidden_state
        expected_patches = model.visual_projection(model.vision_model.post_layernorm(hidden[:, 1:]))
    patches, pooled = backbone.encode_image(pixels)
    torch.testing.assert_close(pooled, expected_pooled, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(patches, expected_patches, rtol=1e-5, atol=1e-6)
    assert patches.shape == (3, backbone.num_patches, backbone.text_model.config.projection_dim)


def test_text_tower_is_that_of_transformers(folder: Path, backbone: ClipBackbone) -> None:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    tokens = backbone.tokenizer(["a photo of a dog", "the cat"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**tokens).pooler_output
        torch.testing.assert_close(backbone.text_model(**tokens).text_embeds, expected)


def test_stepping_through_the_blocks_is_encode_image(backbone: ClipBackbone) -> None:
    pixels = random_pixels(backbone)
    tokens = backbone.embed_patches(pixels)
    assert tokens.shape == (3, 1 + backbone.num_patches, backbone.width)
    for block in backbone.image_blocks:
        tokens = block(tokens)
    for stepped, whole in zip(backbone.finish(tokens), backbone.encode_image(pixels), strict=True):
        torch.testing.assert_close(stepped, whole, rtol=1e-6, atol=1e-6)


def test_added_tokens_act_get_gradients_and_are_dropped(backbone: ClipBackbone) -> None:
    pixels = random_pixels(backbone)
    added = torch.full((3, 2, backbone.width), 0.5, requires_grad=True)
    tokens = torch.cat([backbone.embed_patches(pixels), added], dim=1)
    for block in backbone.image_blocks:
        tokens = block(tokens)
    patches, pooled = backbone.finish(tokens)
    assert patches.shape[1] == backbone.num_patches
    assert not torch.allclose(pooled, backbone.encode_image(pixels)[1], atol=1e-4)
    pooled.sum().backward()
    assert added.grad is not None
    assert added.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in backbone.image_blocks.parameters())


def test_features_carry_no_gradient_but_may_enter_one(backbone: ClipBackbone) -> None:
    patches, pooled = backbone.encode_image(random_pixels(backbone).requires_grad_())
    assert not patches.requires_grad
    assert not pooled.requires_grad
    weight = torch.ones(backbone.text_model.config.projection_dim, requires_grad=True)
    (patches * weight).square().sum().backward()  # inference tensors cannot be saved for backward
    torch.testing.assert_close(weight.grad, 2 * patches.square().sum((0, 1)))


def test_everything_is_frozen_and_in_evaluation_mode(backbone: ClipBackbone) -> None:
    towers = (backbone.text_model, backbone.image_blocks, backbone._vision, backbone._projection)
    parameters = [parameter for tower in towers for parameter in tower.parameters()]
    assert parameters
    assert not any(parameter.requires_grad for parameter in parameters)
    assert not any(module.training for tower in towers for module in tower.modules())


def test_it_is_a_backbone(folder: Path, backbone: ClipBackbone) -> None:
    assert isinstance(backbone, Backbone)
    assert backbone.name == folder.name
    stored = load_file(folder / "model.safetensors")["logit_scale"]
    assert backbone.logit_scale == pytest.approx(stored.double().exp().item())


@pytest.mark.parametrize("size", [(90, 60), (61, 97), (50, 50), (31, 30), (20, 200), (200, 20)])
def test_preprocess_is_resize_crop_normalise(backbone: ClipBackbone, size: tuple[int, int]) -> None:
    image = picture(*size)
    torch.testing.assert_close(
        backbone.preprocess(image), prepared_by_hand(image, backbone.image_size), rtol=1e-5, atol=1e-5
    )


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L")


def palette(image: Image.Image) -> Image.Image:
    return image.quantize(16)


def bilevel(image: Image.Image) -> Image.Image:
    return image.convert("1")


def cmyk(image: Image.Image) -> Image.Image:
    return image.convert("CMYK")


def half_transparent(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def transparent_colour(image: Image.Image) -> Image.Image:
    """As in a PNG: RGB, and one colour of it means nothing is there."""
    image = image.copy()
    image.info["transparency"] = image.getpixel((0, 0))
    return image


@pytest.mark.parametrize("change", [grey, palette, bilevel, cmyk, half_transparent, transparent_colour])
def test_preprocess_takes_every_mode_as_openai_does(backbone: ClipBackbone, change) -> None:
    image = change(picture(80, 60))
    expected = prepared_by_hand(image.convert("RGB"), backbone.image_size)
    torch.testing.assert_close(backbone.preprocess(image), expected, rtol=1e-5, atol=1e-5)


def test_preprocess_leaves_the_picture_alone(backbone: ClipBackbone) -> None:
    image = transparent_colour(picture(80, 60))
    before, info = image.tobytes(), dict(image.info)
    backbone.preprocess(image)
    assert (image.tobytes(), image.info) == (before, info)


def test_bfloat16_is_close_and_comes_out_as_float32(folder: Path, backbone: ClipBackbone) -> None:
    half = load_clip(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.text_model.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in half.image_blocks.parameters()} == {torch.bfloat16}
    assert half.logit_scale == backbone.logit_scale
    pixels = random_pixels(backbone)
    for rough, exact in zip(half.encode_image(pixels), backbone.encode_image(pixels), strict=True):
        assert rough.dtype == torch.float32
        assert not torch.equal(rough, exact)
        assert cosine_similarity(rough, exact, dim=-1).min() > 0.99


def test_float64_pixels_are_taken(backbone: ClipBackbone) -> None:
    pixels = random_pixels(backbone)
    torch.testing.assert_close(backbone.encode_image(pixels.double()), backbone.encode_image(pixels))


def test_fingerprint_is_of_what_decides_the_features(tiny_clip_folder: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_clip_folder, tmp_path / name))

    def change_weight(folder: Path, key: str) -> Path:
        weights = load_file(folder / "model.safetensors")
        weights[key].view(-1)[0] += 1e-3
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    def change_setting(folder: Path, file: str, change: dict) -> Path:
        settings = json.loads((folder / file).read_text())
        for key, value in change.items():
            settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
        (folder / file).write_text(json.dumps(settings))
        return folder

    original = load_clip(tiny_clip_folder).fingerprint
    assert len(original) == 64
    assert load_clip(copy("same")).fingerprint == original
    text = change_weight(copy("text"), "text_model.encoder.layers.0.mlp.fc1.weight")
    version = change_setting(copy("version"), "preprocessor_config.json", {"note": "written by another version"})
    assert load_clip(text).fingerprint == load_clip(version).fingerprint == original

    variants = [
        change_weight(copy("weight"), "vision_model.encoder.layers.1.mlp.fc1.weight"),
        change_weight(copy("projection"), "visual_projection.weight"),
        change_setting(copy("mean"), "preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}),
        change_setting(copy("activation"), "config.json", {"vision_config": {"hidden_act": "gelu"}}),
    ]
    changed = {load_clip(variant).fingerprint for variant in variants}
    changed.add(load_clip(tiny_clip_folder, dtype=torch.bfloat16).fingerprint)
    assert len(changed) == 5
    assert original not in changed
