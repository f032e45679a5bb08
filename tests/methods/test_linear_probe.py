"""The linear probe: logistic regression, and where it starts."""

from __future__ import annotations

import copy

import pytest
import torch
from b16 import trained_at_b16
from contract import build, images, train_rounds, whole
from scipy.special import expit

from fedmpt.methods.linear_probe import LinearProbeConfig
from fedmpt.methods.zero_shot import ZeroShotConfig
from fedmpt.state import get_state
from fedmpt.types import Backbone

CONFIG = LinearProbeConfig()


def scaled(backbone: Backbone, logit_scale: float) -> Backbone:
    changed = copy.copy(backbone)
    changed.logit_scale = logit_scale
    return changed


@pytest.mark.parametrize("logit_scale", [10.0, 100.0])
def test_starts_with_the_classes_of_an_image_in_zero_shot_order(backbone: Backbone, logit_scale: float) -> None:
    method, zero_shot = (build(c, scaled(backbone, logit_scale)) for c in (CONFIG, ZeroShotConfig(head="pooled")))
    batch = whole(images(method, backbone))
    found, expected = method(batch), zero_shot(batch)
    assert torch.equal(found.argsort(1), expected.argsort(1))
    # Odds of two classes of an image are those that zero-shot CLIP gives the two.
    torch.testing.assert_close(found.logit().softmax(1), expected, rtol=1e-3, atol=1e-6)


def test_starts_undecided_on_average(backbone: Backbone) -> None:
    method = build(CONFIG, scaled(backbone, 100.0))
    log_odds = method(whole(images(method, backbone))).logit()
    torch.testing.assert_close(log_odds.mean(1), torch.zeros(len(log_odds)), atol=1e-2, rtol=0)


def test_is_logistic_regression_on_the_normalised_pooled_feature(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    features = images(method, backbone)
    train_rounds(method, features, rounds=2, learning_rate=0.3)
    batch, state = whole(features), get_state(method)
    feature = batch.pooled / batch.pooled.norm(dim=1, keepdim=True)
    expected = expit(feature.numpy() @ state["weight"].numpy().T + state["bias"].numpy())
    torch.testing.assert_close(method(batch), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_trains_a_weight_and_a_bias_a_class_at_b16() -> None:
    assert trained_at_b16(CONFIG) == {"weight": 20 * 512, "bias": 20}
