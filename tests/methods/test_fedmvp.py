"""FedMVP's two forms against plain loops and transformers' own towers with hooks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from b16 import b16_backbone, trained_at_b16
from contract import CLASS_NAMES, build, gradients_of
from hooked_clip import image_features
from pictures import batch_of
from plain_attention import attend_plainly
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.image_tower import ClipBackbone
from fedmpt.data.datasets import voc as voc
from fedmpt.methods import fedmvp
from fedmpt.methods.base import Method
from fedmpt.methods.fedmvp import FedMVPConfig
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.types import UNKNOWN, Backbone, Batch, InputError

ATTRIBUTES = Path(__file__).with_name("attributes.json")
ORIGINAL = FedMVPConfig(attributes=str(ATTRIBUTES))
REDUCED = FedMVPConfig(form="reduced")
LABELS = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [0, 0, 0, 1, -1]])


def trained(config: FedMVPConfig, backbone: ClipBackbone) -> Method:
    """One with no tensor left at zero."""
    method = build(config, backbone)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return method


@pytest.fixture
def pixels(backbone: ClipBackbone) -> Tensor:
    size = backbone.image_size
    return torch.randn(len(LABELS), 3, size, size, generator=torch.Generator().manual_seed(3))


def batch(method: Method, backbone: ClipBackbone, pixels: Tensor) -> Batch:
    return batch_of(backbone, method.views, pixels, LABELS)


def written(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    return backbone.text_model(**backbone.tokenizer(list(texts), padding=True, return_tensors="pt")).text_embeds


def region_logit(tokens: Tensor, feature: Tensor) -> Tensor:
    s = 20 * torch.stack([torch.cosine_similarity(token, feature, dim=0) for token in tokens])
    return 5 * (s.softmax(0) * s).sum()


def calibrated(method: Method, rows: list[list[Tensor]]) -> Tensor:
    logits = torch.stack([torch.stack(row) for row in rows])
    z = (logits - logits.mean(1, keepdim=True)) / (1 + logits.std(1, keepdim=True, correction=0))
    return 1 / (1 + torch.exp(-(method.calibration.scale * z + method.calibration.bias)))


def plain_prompts(method: Method, patches: Tensor, texts: Tensor) -> Tensor:
    """The PromptFormer image by image, of patches before the tower's first norm."""
    former = method.prompt_former
    attention, down, up = former.attention, former.attention.low_rank_down, former.attention.low_rank_up
    context = texts @ former.from_text.weight.T + former.from_text.bias
    keys, values = context + context @ down[1] @ up[1], context + context @ down[2] @ up[2]
    norm, wide, _, narrow = attention.feed_forward
    rows = []
    for image in patches:
        queries = attention.query_norm(image + image @ down[0] @ up[0])
        found = attend_plainly(attention.attention, queries, attention.context_norm(keys), values)
        value, gate = (norm(found) @ wide.weight.T + wide.bias).chunk(2, dim=-1)
        found = found + (value * gate * 0.5 * (1 + torch.erf(gate / 2**0.5))) @ narrow.weight.T + narrow.bias
        bands = range(4)
        size = len(found) / 4
        rows.append(torch.stack([found[int(b * size) : math.ceil((b + 1) * size)].mean(0) for b in bands]))
    return torch.stack(rows)


@torch.no_grad()
def test_original_form_image_by_image_and_attribute_by_attribute(
    backbone: ClipBackbone, tiny_clip_folder: Path, pixels: Tensor
) -> None:
    method = trained(ORIGINAL, backbone)
    seen = batch(method, backbone, pixels)
    phrases = json.loads(ATTRIBUTES.read_text())["attributes"]
    by_class = {
        name: F.normalize(
            written(backbone, [f"a photo of a {name}, which has {text}." for text in phrases[name]]), dim=1
        )
        for name in CLASS_NAMES
    }
    texts = torch.cat(list(by_class.values()))
    torch.testing.assert_close(method.encode_text(), texts, atol=1e-5, rtol=0)
    prompts = plain_prompts(method, backbone.embed(pixels)[:, 1:], texts)
    torch.testing.assert_close(
        method.prompt_former(seen.views["embedded"][:, 0, 1:], texts), prompts, atol=1e-5, rtol=0
    )
    assert prompts.shape == (len(pixels), 4, backbone.width)
    patches, pooled = image_features(tiny_clip_folder, pixels, {0: prompts})
    rows = []
    for image in range(len(pixels)):
        tokens = torch.cat([pooled[image][None], patches[image]])
        rows.append(
            [sum(region_logit(tokens, text) for text in by_class[name]) / len(by_class[name]) for name in CLASS_NAMES]
        )
    expected = calibrated(method, rows)
    torch.testing.assert_close(method(seen), expected, atol=1e-5, rtol=0)
    drift = sum(1 - torch.cosine_similarity(one, other, dim=0) for one, other in zip(pooled, seen.pooled, strict=True))
    assert drift > 0.01
    torch.testing.assert_close(
        method.loss(seen), asymmetric_loss(expected, seen.labels) + 10 * drift / len(pixels), atol=1e-4, rtol=0
    )


@torch.no_grad()
def test_reduced_form_image_by_image(backbone: ClipBackbone, tiny_clip_folder: Path, pixels: Tensor) -> None:
    method = trained(replace(REDUCED, context_init="a photo of a", num_context=12), backbone)
    seen = batch(method, backbone, pixels)
    text = method.encode_text()
    attended = attend_plainly(method.attention, seen.pooled, text, text)
    first, _, second = method.to_token
    token = (attended @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias
    # By its own name: the token is not normed, and its own feature is one of those that the head sees.
    tokens = torch.cat([backbone.embed_patches(pixels), token[:, None]], dim=1)
    for block in backbone.image_blocks:
        tokens = block(tokens)
    features = backbone._projection(backbone._vision.post_layernorm(tokens))
    rows = [[region_logit(features[image], feature) for feature in text] for image in range(len(pixels))]
    expected = calibrated(method, rows)
    torch.testing.assert_close(method(seen), expected, atol=1e-5, rtol=0)
    by_hand = written(backbone, [f"a photo of a {name}." for name in CLASS_NAMES])
    cosines = [torch.cosine_similarity(one, other, dim=0) for one, other in zip(text, by_hand, strict=True)]
    anchor = 1 - sum(cosines) / len(cosines)
    assert anchor > 1e-3
    torch.testing.assert_close(
        method.loss(seen), asymmetric_loss(expected, seen.labels) + anchor / 3, atol=1e-4, rtol=0
    )


def test_reduced_context_stands_before_the_class_name(backbone: ClipBackbone) -> None:
    method = build(replace(REDUCED, context_init="of a", num_context=2), backbone)
    expected = written(backbone, [f"of a {name}." for name in CLASS_NAMES])
    torch.testing.assert_close(method.encode_text(), expected, atol=1e-5, rtol=0)


def test_without_labels_only_the_original_form_learns(backbone: ClipBackbone, pixels: Tensor) -> None:
    """It holds the image's feature to the frozen one, which takes no label; the reduced form's images count nothing."""
    for config, learns in ((ORIGINAL, True), (REDUCED, False)):
        method = trained(config, backbone)
        seen = batch(method, backbone, pixels)
        gradients = gradients_of(method, replace(seen, labels=torch.full_like(seen.labels, UNKNOWN)))
        image_side = [
            gradient for name, gradient in gradients.items() if not name.startswith(("calibration", "context"))
        ]
        assert any(gradient.abs().max() > 0 for gradient in image_side) == learns


@pytest.mark.parametrize("config", [ORIGINAL, REDUCED], ids=["original", "reduced"])
def test_bfloat16_towers_give_near_scores(config: FedMVPConfig, tiny_clip_folder: Path, pixels: Tensor) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = load_backbone(str(tiny_clip_folder), dtype=dtype)
        method = trained(config, backbone)
        found.append(method(batch(method, backbone, pixels)))
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found[-1].sum(), method.parameters()))
    torch.testing.assert_close(found[1], found[0], atol=0.03, rtol=0)


def test_consistency_weight_zero_leaves_the_asymmetric_loss(backbone: ClipBackbone, pixels: Tensor) -> None:
    method = trained(replace(ORIGINAL, consistency_weight=0.0), backbone)
    seen = batch(method, backbone, pixels)
    torch.testing.assert_close(method.loss(seen), asymmetric_loss(method(seen), seen.labels))


@pytest.mark.parametrize(
    ("config", "number"),
    [(FedMVPConfig(), 9_882_624), (REDUCED, 1_135_424)],
    ids=["original", "reduced"],
)
def test_trained_parameters_are_those_of_the_published_size(config: FedMVPConfig, number: int) -> None:
    counts = trained_at_b16(config)
    calibration = sum(count for name, count in counts.items() if name.startswith("calibration."))
    assert (sum(counts.values()) - calibration, calibration) == (number, 2)


def test_attributes_of_the_benchmarks_come_with_the_package() -> None:
    method = FedMVPConfig().build(b16_backbone(), voc.CLASS_NAMES, generator=torch.Generator())
    assert method.encode_text().shape == (80, 512)


def test_attributes_encoded_in_chunks_are_the_same(backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(ORIGINAL, backbone).encode_text()
    monkeypatch.setattr(fedmvp, "CHUNK", 3)
    torch.testing.assert_close(build(ORIGINAL, backbone).encode_text(), whole, atol=1e-6, rtol=0)


def test_text_of_the_original_form_is_frozen(backbone: ClipBackbone) -> None:
    assert not build(ORIGINAL, backbone).encode_text().requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_visual_tokens": 0}, "--num-visual-tokens must be positive, got 0"),
        ({"consistency_weight": -1.0}, "--consistency-weight must not be negative, got -1.0"),
        ({"consistency_weight": float("nan")}, "--consistency-weight must not be negative, got nan"),
        ({"attributes": "nowhere.json"}, "--attributes 'nowhere.json': no such file"),
    ],
)
def test_options_out_of_range_are_named(backbone: Backbone, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(ORIGINAL, **change), backbone)


def test_the_reduced_form_needs_a_context(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="--num-context must be positive, got 0"):
        build(replace(REDUCED, num_context=0), backbone)


@pytest.mark.parametrize(
    ("form", "owner", "change"),
    [
        ("reduced", "original", {"attributes": "voc2007"}),
        ("reduced", "original", {"num_visual_tokens": 99}),
        ("reduced", "original", {"consistency_weight": 0.0}),
        ("original", "reduced", {"num_context": 2}),
        ("original", "reduced", {"context_init": "a photo of a"}),
    ],
)
def test_options_of_the_other_form_are_refused(
    backbone: Backbone, form: str, owner: str, change: dict[str, object]
) -> None:
    config = ORIGINAL if form == "original" else REDUCED
    ((name, value),) = change.items()
    message = f"--{name.replace('_', '-')} {value!r} goes with --form {owner} of FedMVP, and this is --form {form}"
    with pytest.raises(InputError, match=message):
        build(replace(config, **change), backbone)


def test_every_option_belongs_to_a_form() -> None:
    named = {name for names in fedmvp.FORM_OPTIONS.values() for name in names}
    assert {field.name for field in fields(FedMVPConfig)} == named | {"form"}


def test_classes_without_attributes_are_named(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="'zebu'"):
        ORIGINAL.build(backbone, ["cat", "zebu"], generator=torch.Generator())
