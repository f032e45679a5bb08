"""DualCoOp: its head and loss by hand and by an independent formula, its two prompts, its options."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from b16 import trained_at_b16
from contract import CLASS_NAMES, build, images, train_rounds, whole
from torch import Tensor

from fedmpt.methods.dualcoop import DualCoOpConfig
from fedmpt.state import get_state
from fedmpt.types import Backbone, Batch, InputError

CONFIG = DualCoOpConfig(num_context=3, num_negative_context=3)
SAME_WORDS = DualCoOpConfig(num_context=2, num_negative_context=2, context_init="of a", negative_context_init="of a")


@pytest.fixture
def backbone(backbone: Backbone) -> Backbone:
    """With CLIP's own logit scale, for which the published constants are made."""
    clip = copy.copy(backbone)
    clip.logit_scale = 100.0
    return clip


def unit(x: float, y: float) -> list[float]:
    """A vector of length one that has these cosines with the first two axes."""
    return [x, y, math.sqrt(1 - x * x - y * y)]


def test_probabilities_and_loss_worked_out_by_hand(backbone: Backbone) -> None:
    """One image of two tokens, two classes.

    Class 1: 20 cos is 2 and 1.6 to the positive text, 1.8 and 1.8 to the negative one. The tokens weigh
    e^0.4 / (e^0.4 + 1) = 0.598688 and 0.401312, so l+ - l- = 5 (0.598688 * 0.2 - 0.401312 * 0.2) = 0.197375 and
    p = 0.549184. Class 2 has the texts the other way round: equal weights, and p = 0.5.
    """
    batch = Batch(
        pooled=torch.tensor([[1.0, 0.0, 0.0]]),
        patches=torch.tensor([[[0.0, 3.0, 0.0]]]),
        labels=torch.tensor([[1, 0]], dtype=torch.int8),
    )
    text = torch.tensor([[unit(0.10, 0.08), unit(0.09, 0.09)], [unit(0.09, 0.09), unit(0.10, 0.08)]])
    method = build(CONFIG, backbone)
    assert method(batch, 7 * text)[0].tolist() == pytest.approx([0.549184, 0.5], abs=1e-6)
    # Present: (1 - p) -log p = 0.450816 * 0.599322. Absent: p - 0.05 = 0.45, so 0.45^2 * -log 0.55.
    assert method.loss(batch, text).item() == pytest.approx(0.270184 + 0.121062, abs=2e-6)


def test_logits_are_on_the_scale_of_the_model(backbone: Backbone) -> None:
    """A fifth of CLIP's logit scale makes a fifth of the log-odds."""
    softer = copy.copy(backbone)
    softer.logit_scale = 20.0
    methods = [build(SAME_WORDS, some) for some in (backbone, softer)]
    text = torch.tensor([[unit(0.10, 0.08), unit(0.09, 0.09)], [unit(0.09, 0.09), unit(0.10, 0.08)]])
    batch = Batch(
        pooled=torch.tensor([[1.0, 0.0, 0.0]]),
        patches=torch.tensor([[[0.0, 3.0, 0.0]]]),
        labels=torch.tensor([[1, 0]], dtype=torch.int8),
    )
    odds = [method(batch, text).logit() for method in methods]
    torch.testing.assert_close(odds[1], odds[0] / 5, atol=1e-6, rtol=1e-5)


def test_probabilities_and_loss_equal_an_independent_formula(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    batch = whole(images(method, backbone))
    labels = batch.labels.clone()
    labels[::3, ::2] = -1
    batch = replace(batch, labels=labels)
    with torch.no_grad():
        # Closer to each other than at the start, where some probabilities are 1 but for rounding.
        positive, negative = method.encode_text()
        text = torch.stack([positive, 0.8 * positive + 0.2 * negative])
        found, loss = method(batch, text), method.loss(batch, text)
    pairs = [
        [
            plain_pair([batch.pooled[image], *batch.patches[image]], text[0, name], text[1, name])
            for name in range(len(CLASS_NAMES))
        ]
        for image in range(len(batch))
    ]
    expected = torch.tensor([[pair[1] for pair in row] for row in pairs])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    total = sum(
        plain_pair_loss(pair, int(label))
        for row, row_labels in zip(pairs, labels, strict=True)
        for pair, label in zip(row, row_labels, strict=True)
    )
    assert loss.item() == pytest.approx(total / len(batch), rel=1e-4)
    assert 0.1 < found.mean() < 0.9


def plain_pair(tokens: list[Tensor], positive: Tensor, negative: Tensor) -> tuple[float, float]:
    """Probabilities that a class is absent and that it is present: CSRA of both, weights of the positive, softmax."""
    found, missed = ([20 * cosine(token, text) for token in tokens] for text in (positive, negative))
    total = sum(math.exp(value) for value in found)
    weights = [math.exp(value) / total for value in found]
    present = 5 * sum(weight * value for weight, value in zip(weights, found, strict=True))
    absent = 5 * sum(weight * value for weight, value in zip(weights, missed, strict=True))
    largest = max(present, absent)
    parts = [math.exp(absent - largest), math.exp(present - largest)]
    return parts[0] / sum(parts), parts[1] / sum(parts)


def cosine(one: Tensor, other: Tensor) -> float:
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    lengths = math.sqrt(sum(x * x for x, _ in pairs) * sum(y * y for _, y in pairs))
    return sum(x * y for x, y in pairs) / lengths


def plain_pair_loss(pair: tuple[float, float], label: int) -> float:
    """The asymmetric loss as DualCoOp has it, on the probability of either answer."""
    absent, present = pair
    eased = min(absent + 0.05, 1)
    return {1: -(1 - present) * math.log(present), 0: -((1 - eased) ** 2) * math.log(eased), -1: 0.0}[label]


def test_both_prompts_are_those_that_are_written(backbone: Backbone) -> None:
    """With the embeddings of words as contexts, of different lengths, against transformers."""
    config = DualCoOpConfig(
        num_context=2, num_negative_context=3, context_init="of a", negative_context_init="dog of a"
    )
    text = build(config, backbone).encode_text()
    for found, words in zip(text, ("of a", "dog of a"), strict=True):
        written = backbone.tokenizer([f"{words} {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
        torch.testing.assert_close(found, backbone.text_model(**written).text_embeds, atol=1e-5, rtol=0)


def test_the_tower_runs_once_for_both(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    method = build(CONFIG, backbone)
    calls = []
    encode = method.tower.encode
    monkeypatch.setattr(method.tower, "encode", lambda *given: calls.append(1) or encode(*given))
    method.loss(whole(images(method, backbone)))
    assert len(calls) == 1


def test_contexts_of_the_same_words_say_nothing_and_part_in_training(backbone: Backbone) -> None:
    method = build(SAME_WORDS, backbone)
    features = images(method, backbone)
    batch = whole(features)
    assert torch.equal(method.positive_context, method.negative_context)
    assert (method(batch) == 0.5).all()
    before = method.loss(batch)
    gradients = torch.autograd.grad(before, list(method.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    train_rounds(method, features, rounds=4, learning_rate=1e-5)
    assert not torch.equal(method.positive_context, method.negative_context)
    found = method(batch)
    present = batch.labels == 1
    assert found[present].mean() > found[~present].mean() + 0.05
    assert method.loss(batch) < 0.95 * before


def test_trained_parameters_at_vit_b_16() -> None:
    assert trained_at_b16(DualCoOpConfig()) == {"positive_context": 8192, "negative_context": 8192}


def test_what_travels_is_two_contexts(backbone: Backbone) -> None:
    method = build(replace(CONFIG, num_negative_context=5), backbone)
    shapes = {name: tuple(tensor.shape) for name, tensor in get_state(method).items()}
    assert shapes == {"positive_context": (3, 48), "negative_context": (5, 48)}
    assert not method.personal


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_context": 0}, "--num-context must be positive, got 0"),
        ({"num_negative_context": -1}, "--num-negative-context must be positive, got -1"),
        ({"num_negative_context": 76}, "shorten a name or use fewer context tokens"),
    ],
)
def test_wrong_options_are_named(backbone: Backbone, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(CONFIG, **options), backbone)
