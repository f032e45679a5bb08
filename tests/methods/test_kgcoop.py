"""KgCoOp: its anchor, its options, and what its subclasses get from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from b16 import trained_at_b16
from contract import CLASS_NAMES, build, images, whole
from torch import Tensor

from fedmpt.methods.kgcoop import KgCoOp, KgCoOpConfig
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.types import Backbone, InputError

CONFIG = KgCoOpConfig()


def written_features(backbone: Backbone) -> Tensor:
    """Of the hand-written prompts, by transformers; not normalised."""
    written = backbone.tokenizer([f"a photo of a {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    return backbone.text_model(**written).text_embeds


def test_loss_adds_the_distance_from_hand_written_prompts(backbone: Backbone) -> None:
    method = build(replace(CONFIG, anchor_weight=3.0), backbone)
    batch = whole(images(method, backbone))
    text, anchor = method.encode_text(), written_features(backbone)
    cosines = [(t @ a) / (t.norm() * a.norm()) for t, a in zip(text, anchor, strict=True)]
    expected = asymmetric_loss(method(batch), batch.labels) + 3.0 * (1 - sum(cosines) / len(CLASS_NAMES))
    torch.testing.assert_close(method.loss(batch), expected, atol=1e-4, rtol=0)


def test_anchor_is_eight_times_as_heavy_as_a_cosine(backbone: Backbone) -> None:
    method, lighter = build(CONFIG, backbone), build(replace(CONFIG, anchor_weight=7.0), backbone)
    batch = whole(images(method, backbone))
    text = method.encode_text()
    distance = 1 - torch.cosine_similarity(text, written_features(backbone), dim=-1).mean()
    assert distance > 0.01
    torch.testing.assert_close(method.loss(batch) - lighter.loss(batch), distance, atol=1e-4, rtol=0)
    none = build(replace(CONFIG, anchor_weight=0.0), backbone)
    torch.testing.assert_close(method.loss(batch) - none.loss(batch), 8 * distance, atol=1e-4, rtol=0)


def test_context_that_is_the_hand_written_prompt_costs_nothing(backbone: Backbone) -> None:
    num = len(backbone.tokenizer("a photo of a", add_special_tokens=False)["input_ids"])
    method = build(replace(CONFIG, num_context=num), backbone)
    assert isinstance(method, KgCoOp)
    torch.testing.assert_close(method.encode_text(), method.hand_written, atol=1e-5, rtol=0)
    batch = whole(images(method, backbone))
    torch.testing.assert_close(method.loss(batch), asymmetric_loss(method(batch), batch.labels), atol=1e-4, rtol=0)


def test_trains_four_tokens_at_b16() -> None:
    assert trained_at_b16(CONFIG) == {"context": 4 * 512, "calibration.scale": 1, "calibration.bias": 1}


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_anchor_weight_must_not_be_negative(backbone: Backbone, weight: float) -> None:
    with pytest.raises(InputError, match=f"--anchor-weight must not be negative, got {weight}"):
        build(KgCoOpConfig(anchor_weight=weight), backbone)


def test_checks_of_promptfl_speak_of_kgcoop(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="--num-context must be positive, got 0"):
        build(KgCoOpConfig(num_context=0), backbone)
