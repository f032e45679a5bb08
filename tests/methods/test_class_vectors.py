"""Class vectors: where they start, and the rate at which they learn."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from b16 import trained_at_b16
from contract import TRAINING, build, images, train_rounds, whole

from fedmpt.methods.class_vectors import ClassVectorsConfig
from fedmpt.methods.zero_shot import ZeroShotConfig
from fedmpt.state import get_state
from fedmpt.types import Backbone, InputError

CONFIG = ClassVectorsConfig()


def test_start_as_zero_shot_clip_with_the_same_head(backbone: Backbone) -> None:
    method, zero_shot = build(CONFIG, backbone), build(ZeroShotConfig(head="csra"), backbone)
    batch = whole(images(method, backbone))
    torch.testing.assert_close(method(batch), zero_shot(batch), atol=1e-6, rtol=0)


def test_learn_without_the_text_tower(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    features = images(method, backbone)
    train_rounds(method, features, rounds=1, learning_rate=0.05)
    before = method(whole(features))
    method.tower = None
    assert torch.equal(method(whole(features)), before)


def test_vectors_learn_at_a_rate_of_their_own(backbone: Backbone) -> None:
    """In a single step, how far a tensor moves is in proportion to its rate."""
    moved = {}
    for rate in (1.0, 10.0):
        method = build(replace(CONFIG, vector_rate=rate), backbone)
        start = get_state(method)
        training = replace(TRAINING, batch_size=24, weight_decay=0.0)
        train_rounds(method, images(method, backbone), rounds=1, learning_rate=1e-3, training=training)
        moved[rate] = {name: (tensor - start[name]).norm().item() for name, tensor in get_state(method).items()}
    assert moved[10.0]["vectors"] == pytest.approx(10 * moved[1.0]["vectors"], rel=1e-3)
    assert moved[10.0]["calibration.scale"] == pytest.approx(moved[1.0]["calibration.scale"], rel=1e-3)


def test_trains_a_vector_a_class_at_b16() -> None:
    assert trained_at_b16(CONFIG) == {"vectors": 20 * 512, "calibration.scale": 1, "calibration.bias": 1}


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_the_rate_must_not_be_negative(backbone: Backbone, rate: float) -> None:
    with pytest.raises(InputError, match=r"--vector-rate must not be negative, got"):
        build(replace(CONFIG, vector_rate=rate), backbone)
