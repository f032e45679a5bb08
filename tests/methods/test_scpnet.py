"""SCPNet: its graph and its losses against plain loops and by hand, its pseudo-labels, its two views, its options."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import CLASS_NAMES, TRAINING, build, images, train_rounds, whole
from torch import Tensor

from fedmpt.federated.client import local_update
from fedmpt.methods.parts.losses import binary_cross_entropy, corrected_labels, focal_margin_loss
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.methods.scpnet import SCPNet, SCPNetConfig, confident_labels, graph_network, label_graph, label_relation
from fedmpt.state import get_state
from fedmpt.types import Backbone, Batch, InputError

CONFIG = SCPNetConfig(num_context=2, context_init="of a", graph_width=16)


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The graph


@pytest.mark.parametrize("num_classes", [2, 3, 21, 30])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_label_graph_equals_a_plain_loop(num_classes: int, shift: float) -> None:
    """Without the shift about half of the cosines are negative."""
    text = F.normalize(features(num_classes, 12) + shift, dim=-1)
    expected = torch.zeros(num_classes, num_classes)
    for row in range(num_classes):
        cosines = {other: float(text[row] @ text[other]) for other in range(num_classes) if other != row}
        nearest = sorted(cosines, key=cosines.__getitem__, reverse=True)[:20]
        total = sum(max(cosines[other], 1e-6) for other in nearest)
        for other in nearest:
            expected[row, other] = 0.2 * max(cosines[other], 1e-6) / total
        expected[row, row] = 0.8
    found = label_graph(text, num_neighbours=20, neighbour_share=0.2)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("num_classes", [2, 3, 20, 80])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_rows_of_the_graph_sum_to_one(num_classes: int, share: float) -> None:
    text = F.normalize(features(num_classes, 8), dim=-1)
    graph = label_graph(text, num_neighbours=20, neighbour_share=share)
    torch.testing.assert_close(graph.sum(1), torch.ones(num_classes))
    torch.testing.assert_close(graph.diagonal(), torch.full((num_classes,), 1 - share))
    assert (graph >= 0).all()
    if share:
        # The class itself is none of its neighbours.
        assert ((graph > 0).sum(1) == min(20, num_classes - 1) + (share < 1)).all()


def test_classes_that_resemble_no_other_hear_all_alike() -> None:
    """Three classes at 120 degrees: every cosine is negative."""
    angles = 2 * math.pi * torch.arange(3) / 3
    graph = label_graph(torch.stack([angles.cos(), angles.sin()], 1), num_neighbours=20, neighbour_share=0.2)
    torch.testing.assert_close(graph, torch.full((3, 3), 0.1) + 0.7 * torch.eye(3))


def test_graph_network_equals_plain_loops() -> None:
    text, weights = features(3, 4), [features(4, 5, seed=1), features(5, 6, seed=2), features(6, 4, seed=3)]
    graph = label_graph(F.normalize(text, dim=-1), num_neighbours=1, neighbour_share=0.3)
    rows = text.tolist()
    for layer, weight in enumerate(weights):
        mixed = [
            [sum(float(graph[i, j]) * rows[j][k] for j in range(3)) for k in range(len(rows[0]))] for i in range(3)
        ]
        rows = [[sum(x * float(w) for x, w in zip(row, weight[:, k], strict=True)) for k in range(weight.shape[1])]
                for row in mixed]  # fmt: skip
        if layer < 2:
            rows = [[x if x > 0 else 0.2 * x for x in row] for row in rows]
    torch.testing.assert_close(graph_network(text, graph, weights), torch.tensor(rows), atol=1e-4, rtol=1e-4)


def test_text_is_the_prompts_feature_plus_what_the_graph_says(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    written = backbone.tokenizer([f"of a {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    text = backbone.text_model(**written).text_embeds
    frozen = hand_written_features(method.tower, CLASS_NAMES)
    graph = label_graph(frozen, num_neighbours=19, neighbour_share=0.2)
    hidden = F.leaky_relu(graph @ text @ method.weights[0], 0.2)
    hidden = F.leaky_relu(graph @ hidden @ method.weights[1], 0.2)
    expected = text + graph @ hidden @ method.weights[2]
    torch.testing.assert_close(method.encode_text(), expected, atol=1e-5, rtol=0)
    assert (expected - text).norm() > 0.05


def test_the_graph_is_frozen_and_stays_home(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    shapes = {name: tuple(tensor.shape) for name, tensor in get_state(method).items()}
    assert shapes == {
        "context": (2, 48),
        "weights.0": (40, 16),
        "weights.1": (16, 16),
        "weights.2": (16, 40),
        "calibration.scale": (),
        "calibration.bias": (),
    }
    assert not method.adjacency.requires_grad


def test_relation_by_hand() -> None:
    """Of weights 0.8, 0.2 and 0 at a temperature of 0.5: exp of 1.6 and 0.4, and nothing."""
    graph = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.8, 0.1], [0.0, 0.2, 0.8]])
    weights = [math.exp(1.6), math.exp(0.4), 0.0]
    found = label_relation(graph, temperature=0.5)
    torch.testing.assert_close(found[0], torch.tensor([weight / sum(weights) for weight in weights]))
    torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_three_classes_train(backbone: Backbone) -> None:
    method = CONFIG.build(backbone, ["cat", "dog", "x"], generator=torch.Generator().manual_seed(0))
    batch = whole(images(method, backbone))
    three = replace(batch, labels=batch.labels[:, :3])
    method.start_round(2)
    assert all(
        gradient.isfinite().all() for gradient in torch.autograd.grad(method.loss(three), list(method.parameters()))
    )


# The losses


def test_pseudo_labels_flip_exactly_the_absent_that_are_found() -> None:
    probabilities = torch.tensor([[0.61, 0.6, 0.59, 0.99], [0.01, 0.99, 0.99, 0.0], [1.0, 0.7, 0.3, 0.601]])
    labels = torch.tensor([[0, 0, 0, 1], [1, -1, 0, 0], [-1, 1, 0, 0]], dtype=torch.int8)
    before = labels.clone()
    expected = torch.tensor([[1, 0, 0, 1], [1, -1, 1, 0], [-1, 1, 0, 1]], dtype=torch.int8)
    assert torch.equal(corrected_labels(probabilities, labels), expected)
    assert torch.equal(labels, before)
    assert torch.equal(corrected_labels(probabilities, labels, threshold=1.0), before)


def test_focal_margin_loss_by_hand() -> None:
    """Odds of 0.8 are 4; held back by the margin they are 4 / e, a probability of 0.595390."""
    probabilities = torch.tensor([[0.8, 0.3, 0.6], [0.5, 0.5, 0.5]])
    labels = torch.tensor([[1, 0, -1], [-1, -1, -1]], dtype=torch.int8)
    positive = -((1 - 0.595390) ** 2) * math.log(0.595390)
    negative = -(0.3**2) * math.log(0.7)
    assert focal_margin_loss(probabilities, labels).item() == pytest.approx((positive + negative) / 2, rel=1e-5)


def test_the_margin_is_for_labels_that_were_present_from_the_start() -> None:
    """A corrected label at a logit of 1 costs -(1 - p)^2 log p with p = 0.731059, 0.022656; with a margin, 0.173287."""
    found, given = torch.tensor([[0.731059]]), torch.zeros(1, 1, dtype=torch.int8)
    corrected = corrected_labels(found, given)
    assert focal_margin_loss(found, corrected, given=given).item() == pytest.approx(0.022656, rel=1e-4)
    assert focal_margin_loss(found, corrected, given=corrected).item() == pytest.approx(0.173287, rel=1e-4)


def test_focal_margin_loss_is_cross_entropy_without_focus_and_margin() -> None:
    probabilities = features(8, 5).sigmoid()
    labels = (features(8, 5, seed=1) > 0).to(torch.int8)
    theirs = F.binary_cross_entropy(probabilities, labels.float(), reduction="sum") / 8
    torch.testing.assert_close(focal_margin_loss(probabilities, labels, gamma=0, margin=0), theirs)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_losses_are_finite_at_the_ends(probability: float, label: int) -> None:
    probabilities = torch.full((1, 1), probability, requires_grad=True)
    loss = focal_margin_loss(probabilities, torch.full((1, 1), label, dtype=torch.int8))
    loss = loss + binary_cross_entropy(probabilities, torch.full((1, 1), 0.5), torch.ones(1, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, probabilities)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_cross_entropy_is_torchs_in_the_images_that_count() -> None:
    probabilities, target = features(9, 6).mul(3).sigmoid().requires_grad_(), features(9, 6, seed=1).mul(3).sigmoid()
    counted = torch.arange(9) % 3 > 0
    expected = F.binary_cross_entropy(probabilities[counted], target[counted], reduction="sum") / 9
    found = binary_cross_entropy(probabilities, target, counted)
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-5)
    gradients = [torch.autograd.grad(loss, probabilities)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_confident_are_the_highest_that_reach_their_classs_threshold() -> None:
    probabilities = torch.tensor([[0.9, 0.8, 0.7, 0.1], [0.2, 0.1, 0.3, 0.0], [0.1, 0.1, 0.0, 0.05]])
    thresholds = torch.tensor([0.95, 0.2, 0.3, 0.01])
    found = confident_labels(probabilities, thresholds, most=2).int().tolist()
    assert found == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert confident_labels(probabilities, thresholds, most=9).int().tolist()[0] == [0, 1, 1, 1]


def plain_consistency(
    method: SCPNet, strong: Tensor, weak: Tensor, given: Tensor, counts: list[int], seen: int
) -> float:
    """Number by number, as published; ``counts`` go on with this batch."""
    config, num_classes = method.config, strong.shape[1]
    rest = max(max(counts), config.num_confident * seen - sum(counts))
    share = [max(count / rest if max(counts) else 0.0, 1 / num_classes) for count in counts]
    total = 0.0
    for b in range(len(strong)):
        highest = sorted(range(num_classes), key=lambda c: -float(weak[b, c]))[: config.num_confident]
        confident = [c for c in highest if float(weak[b, c]) >= 0.95 * share[c] / (2 - share[c])]
        labels = [int(c in confident or int(given[b, c]) == 1) for c in range(num_classes)]
        for c in range(num_classes):
            counts[c] += labels[c]
            if confident:
                p = float(strong[b, c])
                mixed = sum(float(method.relation[c, k]) * float(weak[b, k]) for k in range(num_classes))
                for target, factor in ((labels[c], 1.0), (mixed, config.relation_weight)):
                    total -= factor * (target * math.log(p) + (1 - target) * math.log(1 - p))
    return total / len(strong)


def test_consistency_is_that_of_plain_loops_step_after_step(backbone: Backbone) -> None:
    method = build(replace(CONFIG, num_confident=2), backbone)
    assert isinstance(method, SCPNet)
    method.train()
    method.start_round(1)
    counts, seen = [0] * len(CLASS_NAMES), 0
    shape = (6, len(CLASS_NAMES))
    for step in range(4):
        strong, weak = (features(*shape, seed=10 * step + k).sub(2).sigmoid() for k in (0, 1))
        given = (features(*shape, seed=10 * step + 2) > 0.7).to(torch.int8)
        expected = plain_consistency(method, strong, weak, given, counts, seen)
        seen += 6
        assert method.consistency(strong, weak, given).item() == pytest.approx(expected, rel=1e-5)
    # Between steps nothing is counted, and a new round counts from nothing.
    method.eval()
    one, other = (method.consistency(strong, weak, given) for _ in range(2))
    assert torch.equal(one, other)
    method.start_round(2)
    assert method.consistency(strong, weak, given) != one


def test_a_model_that_diverges_is_said_to_do_so(backbone: Backbone) -> None:
    """The client asks whether a loss is finite, so no part of it may fail on NaN."""
    nan, half, counted = torch.tensor([[float("nan"), 0.5]]), torch.tensor([[0.5, 0.5]]), torch.tensor([True])
    assert binary_cross_entropy(nan, half, counted).isnan()
    assert binary_cross_entropy(half, nan, counted).isnan()
    method = build(CONFIG, backbone)
    data = images(method, backbone)
    with pytest.raises(InputError, match="client 3, round 1: the loss is nan; try a lower learning rate"):
        local_update(
            method,
            get_state(method),
            data,
            personal={},
            client=3,
            round_index=1,
            seed=0,
            learning_rate=1e30,
            training=TRAINING,
        )


def views(method: Any, backbone: Backbone) -> tuple[Batch, Batch]:
    """A batch, and what its strong view looks like as a batch of its own."""
    batch = whole(images(method, backbone))
    tokens = batch.views["strong"]
    assert tokens.shape == (len(batch), 1, 1 + batch.patches.shape[1], batch.patches.shape[2])
    strong = Batch(pooled=tokens[:, 0, 0], patches=tokens[:, 0, 1:], labels=batch.labels)
    return batch, strong


def test_loss_is_that_of_the_labels_and_an_eighth_of_the_consistency(backbone: Backbone) -> None:
    method = build(CONFIG, backbone).eval()
    batch, strong = views(method, backbone)
    classification = focal_margin_loss(method(batch), batch.labels)
    consistency = method.consistency(method(strong), method(batch).detach(), batch.labels)
    assert consistency > 1e-3
    torch.testing.assert_close(method.loss(batch), classification + 0.125 * consistency)


def test_the_strong_view_follows_the_weak_one(backbone: Backbone) -> None:
    """Where labels say nothing, the gradient is that of the strong view's probabilities alone."""
    method = build(CONFIG, backbone).eval()
    batch, strong = views(method, backbone)
    batch = replace(batch, labels=torch.full_like(batch.labels, -1))
    parameters = list(method.parameters())
    found = torch.autograd.grad(method.loss(batch), parameters)
    consistency = method.consistency(method(strong), method(batch).detach(), batch.labels)
    expected = torch.autograd.grad(0.125 * consistency, parameters)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-3)
    assert any(gradient.abs().max() > 1e-5 for gradient in found)


def test_unknown_labels_carry_no_loss_but_that_of_consistency(backbone: Backbone) -> None:
    method = build(replace(CONFIG, consistency_weight=0.0, pseudo_label_after=0), backbone)
    batch, _ = views(method, backbone)
    labels = batch.labels.clone()
    labels[::2] = -1
    labels[:, 1] = -1
    text = method.encode_text()
    found = method(batch, text)
    (gradient,) = torch.autograd.grad(method.loss(replace(batch, labels=labels), text), text)
    kept = corrected_labels(found.detach()[1::2], batch.labels[1::2])
    kept[:, 1] = -1
    (expected,) = torch.autograd.grad(focal_margin_loss(method(batch, text)[1::2], kept, given=labels[1::2]) / 2, text)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-4)


# Pseudo-labels


@pytest.mark.parametrize(("after", "first"), [(0, 1), (1, 2), (3, 4)])
def test_pseudo_labels_come_after_the_first_rounds(backbone: Backbone, after: int, first: int) -> None:
    method = build(replace(CONFIG, pseudo_label_after=after, consistency_weight=0.0), backbone)
    batch, _ = views(method, backbone)
    found = method(batch).detach()
    flipped = corrected_labels(found, batch.labels)
    plain, corrected = (
        focal_margin_loss(found, labels, given=batch.labels).item() for labels in (batch.labels, flipped)
    )
    assert plain != pytest.approx(corrected, rel=1e-3)
    for round_index in range(1, 6):
        method.start_round(round_index)
        expected = corrected if round_index >= first else plain
        assert method.loss(batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_pseudo_label_does_not_have_the_weight_of_the_absent_label_that_it_was(backbone: Backbone) -> None:
    method = build(replace(CONFIG, pseudo_label_after=0, consistency_weight=0.0), backbone)
    batch, _ = views(method, backbone)
    weights = 0.5 + 3 * torch.rand(batch.labels.shape, generator=torch.Generator().manual_seed(0))
    found = method(batch).detach()
    flipped = corrected_labels(found, batch.labels)
    is_flipped = flipped != batch.labels
    assert is_flipped.any()
    expected = focal_margin_loss(found, flipped, torch.where(is_flipped, 1.0, weights), given=batch.labels)
    torch.testing.assert_close(method.loss(replace(batch, weights=weights)).detach(), expected)


@pytest.mark.parametrize("learning_rate", [0.01, 0.05])
def test_pseudo_labels_do_not_make_everything_present(backbone: Backbone, learning_rate: float) -> None:
    method = build(SCPNetConfig(), backbone)
    data = images(method, backbone)
    train_rounds(method, data, rounds=20, learning_rate=learning_rate)
    batch = whole(data)
    present = batch.labels == 1
    found = method(batch).detach()
    assert method.has_pseudo_labels
    assert (found > 0.5).float().mean() < present.float().mean() + 0.35
    assert ((found > 0.5) == present).float().mean() > 0.65
    assert found[present].mean() > found[~present].mean() + 0.2


# Size and options


def test_trained_parameters_at_vit_b_16() -> None:
    found = trained_at_b16(SCPNetConfig())
    assert found.pop("calibration.scale") == found.pop("calibration.bias") == 1
    assert found == {
        "context": 4 * 512,
        "weights.0": 512 * 1024,
        "weights.1": 1024 * 1024,
        "weights.2": 1024 * 512,
    }
    assert sum(found.values()) == 2_099_200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_context": 0}, "--num-context must be positive, got 0"),
        ({"graph_width": 0}, "--graph-width must be positive, got 0"),
        ({"num_neighbours": -3}, "--num-neighbours must be positive, got -3"),
        ({"pseudo_label_after": -1}, "--pseudo-label-after must not be negative, got -1"),
        ({"neighbour_share": 1.1}, r"--neighbour-share must be in \[0, 1\], got 1.1"),
        ({"pseudo_label_threshold": 0.0}, r"--pseudo-label-threshold must be in \(0, 1\], got 0.0"),
        ({"num_confident": 0}, "--num-confident must be positive, got 0"),
        ({"confidence": 1.5}, r"--confidence must be in \(0, 1\], got 1.5"),
        ({"graph_rate": 0.0}, "--graph-rate must be positive, got 0.0"),
        ({"consistency_weight": float("nan")}, "--consistency-weight must not be negative, got nan"),
    ],
)
def test_wrong_options_are_named(backbone: Backbone, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(CONFIG, **options), backbone)
