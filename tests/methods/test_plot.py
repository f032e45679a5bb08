"""PLOT: its plans against POT, its logits in plain loops, its contexts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import CLASS_NAMES, build, images, train_rounds, whole
from torch import Tensor

from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.methods.parts.heads import standardised
from fedmpt.methods.plot import PLOT, PLOTConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, Batch, InputError

CONFIG = PLOTConfig(num_prompts=3, num_context=2)


@pytest.fixture
def method(backbone: Backbone) -> PLOT:
    """With contexts far enough from each other that a class's prompts see different things."""
    method = build(CONFIG, backbone)
    method.context.data.mul_(20)
    return method


def few(method: PLOT, backbone: Backbone) -> Batch:
    return images(method, backbone).batch(torch.arange(3))


def pot_plan(cosines: Tensor) -> np.ndarray:
    num_patches, num_prompts = cosines.shape
    return ot.sinkhorn(
        np.full(num_patches, 1 / num_patches),
        np.full(num_prompts, 1 / num_prompts),
        1 - cosines.double().numpy(),
        0.1,
        method="sinkhorn_log",
        numItermax=50_000,
        stopThr=1e-12,
    )


def plain_cosines(batch: Batch, text: Tensor, image: int, c: int) -> Tensor:
    patches = F.normalize(batch.patches[image], dim=-1)
    return torch.stack([torch.stack([patch @ prompt for prompt in text[:, c]]) for patch in patches])


@torch.no_grad()
def test_logits_are_the_similarities_that_pots_plans_transport(method: PLOT, backbone: Backbone) -> None:
    batch, text = few(method, backbone), method.encode_text()
    logits = method.logits(batch, text)
    for image in range(len(batch)):
        for c in range(len(CLASS_NAMES)):
            cosines = plain_cosines(batch, text, image, c)
            expected = 100 * (pot_plan(cosines) * cosines.double().numpy()).sum()
            assert logits[image, c].item() == pytest.approx(expected, abs=1e-2)


@torch.no_grad()
def test_plans_are_pots_and_far_from_uniform_where_contexts_differ(method: PLOT, backbone: Backbone) -> None:
    batch, text = few(method, backbone), method.encode_text()
    for image in range(len(batch)):
        cosines = torch.stack([plain_cosines(batch, text, image, c) for c in range(len(CLASS_NAMES))])
        plans = method.plan(cosines[None])[0]
        uniform = 1 / plans[0].numel()
        expected = np.stack([pot_plan(some) for some in cosines])
        assert np.abs(plans.numpy() - expected).max() < 1e-3 * uniform
        # What a patch sends to a prompt is off by a third and more.
        assert ((plans - uniform).abs().amax((-2, -1)) > uniform / 3).all()


@torch.no_grad()
def mean_deviation(method: PLOT, batch: Batch) -> float:
    """Of what a patch sends to a prompt from what it would send if all were alike, as a share of that."""
    plans = method.plan(torch.einsum("bmd,ncd->bcmn", F.normalize(batch.patches, dim=-1), method.encode_text()))
    uniform = 1 / plans[0, 0].numel()
    return float((plans - uniform).abs().mean() / uniform)


def test_plans_part_from_uniform_in_training_at_the_default_rate(backbone: Backbone) -> None:
    """From contexts as they are built, all from the same words; at a hundredth of the rate they do not get as far."""
    method = build(replace(CONFIG, context_init="of a"), backbone)
    features = images(method, backbone)
    before = mean_deviation(method, whole(features))
    train_rounds(method, features, rounds=3, learning_rate=PLOTConfig.learning_rate)
    assert before < 0.2
    assert mean_deviation(method, whole(features)) > max(1.5 * before, 0.25)


def test_only_patches_are_matched(method: PLOT, backbone: Backbone) -> None:
    batch = few(method, backbone)
    assert torch.equal(method(replace(batch, pooled=torch.randn(batch.pooled.shape))), method(batch))


def test_prediction_is_calibrated(method: PLOT, backbone: Backbone) -> None:
    batch = few(method, backbone)
    values = {"calibration.scale": torch.tensor(1.7), "calibration.bias": torch.tensor(-0.4)}
    set_state(method, {**get_state(method), **values})
    logits = method.logits(batch, method.encode_text())
    torch.testing.assert_close(method(batch), (1.7 * standardised(logits) - 0.4).sigmoid())


def test_no_gradient_goes_through_the_plan(method: PLOT, backbone: Backbone) -> None:
    batch = few(method, backbone)
    text = method.encode_text().detach().requires_grad_()
    (gradient,) = torch.autograd.grad(method.logits(batch, text).sum(), text)
    patches = F.normalize(batch.patches, dim=-1)
    plans = method.plan(torch.einsum("bmd,ncd->bcmn", patches, text.detach()))
    torch.testing.assert_close(gradient, 100 * torch.einsum("bcmn,bmd->ncd", plans, patches), atol=1e-3, rtol=1e-4)


def test_every_context_has_text_features_of_its_own(method: PLOT, backbone: Backbone) -> None:
    text = method.encode_text()
    assert text.shape == (3, len(CLASS_NAMES), 40)
    one = build(replace(CONFIG, num_prompts=1), backbone)
    one.context.data.copy_(method.context.data[1:2])
    torch.testing.assert_close(one.encode_text()[0], text[1], atol=1e-6, rtol=0)


def test_contexts_that_start_from_words_part(backbone: Backbone) -> None:
    method = build(replace(CONFIG, context_init="of a"), backbone)
    words = build(replace(CONFIG, context_init="of a", num_prompts=1), backbone).context.detach()[0]
    first, *others = method.context.detach()
    assert torch.equal(first, words)
    for other in others:
        assert 0 < (other - words).abs().max() < 0.1
    before = method.encode_text()
    features = images(method, backbone)
    local_update(
        method,
        get_state(method),
        features,
        personal={},
        client=0,
        round_index=1,
        seed=0,
        learning_rate=0.3,
        training=LocalTraining(batch_size=8, local_epochs=3),
    )
    parted = [1 - (text[0] * text[1]).sum(-1).mean() for text in (before, method.encode_text())]
    assert parted[1] > 2 * parted[0] > 0


def test_words_that_fill_a_part_leave_the_rest_random_as_ever(backbone: Backbone) -> None:
    contexts = build(replace(CONFIG, context_init="a", num_context=20), backbone).context.detach()
    assert (contexts[:, :19].std((1, 2)) - 0.02).abs().max() < 0.002
    assert len({tuple(row) for row in contexts[:, 0, :4].tolist()}) == 3


def test_parameters_at_b16() -> None:
    assert trained_at_b16(PLOTConfig()) == {"context": 4 * 16 * 512, "calibration.scale": 1, "calibration.bias": 1}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_prompts", 0, "--num-prompts must be positive, got 0"),
        ("num_context", 0, "--num-context must be positive, got 0"),
        ("entropy", 0.0, "--entropy must be positive, got 0.0"),
        ("entropy", float("nan"), "--entropy must be positive, got nan"),
    ],
)
def test_options_that_cannot_be(backbone: Backbone, name: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(CONFIG, **{name: value}), backbone)


def test_a_diverged_model_is_said_to_be_one(method: PLOT, backbone: Backbone) -> None:
    with pytest.raises(InputError, match="no longer finite"):
        method(whole(images(method, backbone)), torch.full((3, len(CLASS_NAMES), 40), float("nan")))
