"""PosCoOp: its vectors beside the text features, how they are trained and averaged, its options."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from b16 import trained_at_b16
from contract import CLASS_NAMES, build, images, whole

from fedmpt.methods.poscoop import PosCoOpConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, InputError

CONFIG = PosCoOpConfig(num_context=3)
NUM_CLASSES, WIDTH = len(CLASS_NAMES), 40


@pytest.fixture
def backbone(backbone: Backbone) -> Backbone:
    """With CLIP's own logit scale, for which the published constants are made."""
    clip = copy.copy(backbone)
    clip.logit_scale = 100.0
    return clip


def test_texts_are_raw_features_plus_delta_and_nu_alone(backbone: Backbone) -> None:
    """With the embeddings of words as context, against transformers."""
    method = build(replace(CONFIG, num_context=2, context_init="of a"), backbone)
    written = backbone.tokenizer([f"of a {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    positive, negative = method.encode_text()
    raw = backbone.text_model(**written).text_embeds
    assert (raw.norm(dim=1) - 1).abs().min() > 0.1
    torch.testing.assert_close(positive, raw + method.delta, atol=1e-5, rtol=0)
    assert torch.equal(negative, method.nu)


def test_nothing_of_the_text_tower_reaches_the_negatives(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    (gradient,) = torch.autograd.grad(method.encode_text()[1].sum(), method.context, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_prediction_by_plain_python(backbone: Backbone) -> None:
    """The head's weights are of the positive cosines alone."""
    method = build(CONFIG, backbone)
    batch = whole(images(method, backbone))
    positive, negative = method.encode_text().detach()
    tokens = [batch.pooled[0], *batch.patches[0]]
    for name, found in enumerate(method(batch)[0].tolist()):
        present = [20 * float(torch.cosine_similarity(token, positive[name], dim=0)) for token in tokens]
        absent = [20 * float(torch.cosine_similarity(token, negative[name], dim=0)) for token in tokens]
        weights = [math.exp(value) for value in present]
        gap = sum(w * (p - a) for w, p, a in zip(weights, present, absent, strict=True)) / sum(weights)
        assert found == pytest.approx(1 / (1 + math.exp(-5 * gap)), abs=1e-5)


def test_vectors_start_from_a_standard_normal_distribution(backbone: Backbone) -> None:
    for std in (1.0, 0.3):
        state = get_state(build(replace(CONFIG, vector_std=std), backbone))
        for name in ("delta", "nu"):
            assert state[name].shape == (NUM_CLASSES, WIDTH)
            assert state[name].std().item() == pytest.approx(std, rel=0.15)
            assert abs(state[name].mean().item()) < 0.2 * std
        assert not torch.equal(state["delta"], state["nu"])
        assert 0 < state["context"].std() < 0.03


def test_context_learns_a_hundred_times_slower_and_nothing_decays(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    optimizer = method.optimizer(learning_rate=2.0, momentum=0.9, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    groups = {names[id(group["params"][0])]: group for group in optimizer.param_groups}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"context": 0.02, "delta": 2.0, "nu": 2.0}
    )
    assert {group["weight_decay"] for group in groups.values()} == {0.0}
    assert {group["momentum"] for group in groups.values()} == {0.9}


def test_everything_travels(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    shared, personal = method.split(get_state(method))
    assert shared.keys() == {"context", "delta", "nu"}
    assert not personal


def test_a_client_without_images_of_a_class_trains_its_vectors_too(backbone: Backbone) -> None:
    """Which is why rows of all classes are averaged over all clients."""
    method = build(CONFIG, backbone)
    # Texts that look alike, so that no probability is one.
    with torch.no_grad():
        positive = method.encode_text()[0]
    noise = torch.randn(positive.shape, generator=torch.Generator().manual_seed(0))
    set_state(method, {**get_state(method), "nu": positive + 0.1 * noise})
    batch = whole(images(method, backbone))
    labels = batch.labels.clone()
    labels[:, 2] = 0
    gradients = torch.autograd.grad(method.loss(replace(batch, labels=labels)), [method.delta, method.nu])
    assert all((gradient[2].abs() > 0).any() for gradient in gradients)
    labels[:, 2] = -1
    gradients = torch.autograd.grad(method.loss(replace(batch, labels=labels)), [method.delta, method.nu])
    assert not any(gradient[2].any() for gradient in gradients)


def test_trained_parameters_at_vit_b_16() -> None:
    found = trained_at_b16(PosCoOpConfig())
    assert found == {"context": 8192, "delta": 10240, "nu": 10240}
    assert sum(found.values()) == 28672


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_context": 0}, "--num-context must be positive, got 0"),
        ({"vector_std": 0.0}, "--vector-std must be positive, got 0.0"),
        ({"vector_std": float("nan")}, "--vector-std must be positive, got nan"),
        ({"context_rate": -1.0}, "--context-rate must not be negative, got -1.0"),
        ({"context_rate": float("inf")}, "--context-rate must not be negative, got inf"),
    ],
)
def test_wrong_options_are_named(backbone: Backbone, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(CONFIG, **options), backbone)
