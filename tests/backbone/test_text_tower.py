"""The text tower against transformers' own forward on whole, padded prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from plain_prompts import encode_plainly
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.backbone.text_tower import TextTower
from fedmpt.methods.parts.prompts import PromptTemplate, random_context
from fedmpt.types import Backbone

CLASSES = ("cat", "dining table", "tv monitor", "a very long class name of many words", "ox")
CONDITIONS = ("layout", "lighting and weather", "the pose of the object")


@pytest.fixture(params=["tiny", "medium"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    folder: Path = request.getfixturevalue(f"{request.param}_clip_folder")
    return load_backbone(str(folder))


def contexts(tower: TextTower, num_prefixes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    # Far from zero, so that a token in the wrong place would show.
    prefix = 30 * random_context(num_prefixes, 4, tower.width, generator=generator)
    suffix = 30 * random_context(2, tower.width, generator=generator)
    return prefix.requires_grad_(), suffix.requires_grad_()


def features_and_gradients(encode: Callable[[], Tensor], *inputs: Tensor) -> list[Tensor]:
    features = encode()
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    return [features.detach(), *torch.autograd.grad((features * weights).sum(), inputs)]


@pytest.mark.parametrize("conditions", [CONDITIONS, ("",), ("one",)])
def test_features_and_gradients_equal_the_plain_computation(backbone: Backbone, conditions: tuple[str, ...]) -> None:
    tower = TextTower(backbone)
    template = PromptTemplate(tower, CLASSES, prefix_texts=conditions, num_prefix_context=4, num_suffix_context=2)
    prefix, suffix = contexts(tower, len(conditions))
    fast = features_and_gradients(lambda: tower.encode(template.embed(prefix, suffix)), prefix, suffix)
    plain = features_and_gradients(
        lambda: encode_plainly(backbone.text_model, template.embed(prefix, suffix)), prefix, suffix
    )
    torch.testing.assert_close(fast[0], plain[0], atol=1e-5, rtol=0)
    for ours, theirs in zip(fast[1:], plain[1:], strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_fixed_prompts_equal_the_model_on_tokenised_text(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    template = PromptTemplate(tower, CLASSES, prefix_texts=["a photo of a"])
    texts = [f"a photo of a {name}." for name in CLASSES]
    tokens = backbone.tokenizer(texts, padding="max_length", return_tensors="pt")
    expected = backbone.text_model(**tokens).text_embeds
    torch.testing.assert_close(tower.encode(template.embed())[0], expected, atol=1e-5, rtol=0)


def test_padding_is_never_read(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    template = PromptTemplate(tower, CLASSES, prefix_texts=CONDITIONS)
    prompts = template.embed()
    before = tower.encode(prompts)
    for row, length in zip(prompts.prefixes, prompts.prefix_lengths.tolist(), strict=True):
        row[length:] = 1e3
    for row, end in zip(prompts.suffixes, prompts.ends.tolist(), strict=True):
        row[end + 1 :] = 1e3
    torch.testing.assert_close(tower.encode(prompts), before, atol=0, rtol=0)


def test_prompts_at_the_length_limit(backbone: Backbone) -> None:
    tower = TextTower(backbone)
    name = " ".join(["x"] * 72)
    template = PromptTemplate(tower, [name, "y"], prefix_texts=["z", "z z"])
    prompts = template.embed()
    assert prompts.max_length == tower.max_length == 77
    torch.testing.assert_close(tower.encode(prompts), encode_plainly(backbone.text_model, prompts), atol=1e-5, rtol=0)


def test_bf16_is_close_to_fp32(tiny_clip_folder: Path) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        backbone = load_backbone(str(tiny_clip_folder), dtype=dtype)
        tower = TextTower(backbone)
        found.append(tower.encode(PromptTemplate(tower, CLASSES).embed()))
    assert found[1].dtype == torch.float32
    assert torch.cosine_similarity(found[0], found[1], dim=-1).min() > 0.99
