"""RAM: its plans against POT, its loss and its scores by hand, its optimiser and its state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import build, gradients_of, images, whole
from used_ram import CONFIG, few, used_ram

from fedmpt.federated.aggregate import aggregate
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.methods.parts.losses import asymmetric_loss, multi_matching_loss
from fedmpt.methods.ram import RAM, teacher_cost
from fedmpt.state import Update, get_state
from fedmpt.types import Backbone, InputError


@pytest.fixture
def method(backbone: Backbone) -> RAM:
    return used_ram(backbone)


def pot_plan(cosines: np.ndarray, extra: np.ndarray, *, scale: float, entropy: float) -> np.ndarray:
    num_classes = cosines.shape[1]
    cost = np.array([1 - np.exp(scale * row) / np.exp(scale * row).sum() for row in cosines]) + extra
    best = np.exp([max(row) / 0.1 for row in cosines])
    columns = np.full(num_classes, 1 / num_classes)
    return ot.sinkhorn(
        best / best.sum(), columns, cost, entropy, method="sinkhorn_log", numItermax=50_000, stopThr=1e-12
    )


def plain_teacher(frozen: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Minus log F, entry by entry; ``frozen`` on the logit scale."""
    num_patches, num_classes = frozen.shape
    shares = np.array([np.exp(row) / np.exp(row).sum() for row in frozen])
    found = np.zeros_like(shares)
    for c in range(num_classes):
        weights = [math.exp(20 * shares[m, c]) for m in range(num_patches)]
        found[:, c] = [weight / sum(weights) for weight in weights]
    smallest = found.min()
    for c in range(num_classes):
        if labels[c] != 1:
            found[:, c] = smallest
    return -np.log(found)


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_plans_are_pots(method: RAM, backbone: Backbone, training: bool) -> None:
    batch = few(method, backbone)
    labels = batch.labels.clone()
    labels[0, 0] = -1
    _, cosines = method.cosines(batch, method.encode_text())
    teacher = batch.views["teacher"][:, 0, 1:]
    frozen = method.logit_scale * F.normalize(teacher, dim=-1) @ method.hand_written.T
    entropy, weight = (0.15, 0.05) if training else (0.1, 0.0)
    plans = method.plan(cosines, entropy=entropy, extra=weight * teacher_cost(frozen, labels))
    for index, plan in enumerate(plans):
        extra = weight * plain_teacher(frozen[index].double().numpy(), labels[index].tolist())
        expected = pot_plan(cosines[index].double().numpy(), extra, scale=method.logit_scale, entropy=entropy)
        assert np.abs(plan.numpy() - expected).max() < 2e-3 * expected.max()
        assert expected.std() > 0.2 * expected.mean()


def test_the_teacher_draws_classes_that_are_there_to_where_the_frozen_model_sees_them() -> None:
    similarity = torch.zeros(1, 3, 2)
    similarity[0, 1, 0] = 4
    cost = teacher_cost(similarity, torch.tensor([[1, 0]], dtype=torch.int8))[0]
    assert cost[1, 0] < cost[0, 0] == cost[2, 0]
    # The other class has one cost everywhere: the largest of the image.
    assert cost[:, 1].unique().tolist() == [teacher_cost(similarity, torch.ones(1, 2, dtype=torch.int8)).max()]


@torch.no_grad()
def test_the_cost_of_absent_classes_does_not_matter(method: RAM, backbone: Backbone) -> None:
    """So neither does whose smallest F it is."""
    _, cosines = method.cosines(few(method, backbone), method.encode_text())
    raised = torch.zeros(cosines.shape)
    raised[..., 1] = 0.7
    plans = method.plan(cosines, entropy=0.15)
    torch.testing.assert_close(method.plan(cosines, entropy=0.15, extra=raised), plans, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_scores_are_the_mean_of_two_softmaxes(method: RAM) -> None:
    generator = torch.Generator().manual_seed(0)
    pooled = torch.rand(3, 5, generator=generator)
    patches = torch.rand(3, 7, 5, generator=generator)
    method.log_temperature.fill_(math.log(0.05))
    plans = method.plan(patches, entropy=0.1)
    scores = method.log_scores(pooled, patches).exp()
    for b in range(3):
        seen = [math.exp(method.logit_scale * value) for value in pooled[b].tolist()]
        sums = [sum((plans[b, m, c] * patches[b, m, c]).item() for m in range(7)) for c in range(5)]
        matched = [math.exp(value / 0.05) for value in sums]
        expected = [one / sum(seen) / 2 + other / sum(matched) / 2 for one, other in zip(seen, matched, strict=True)]
        assert scores[b].tolist() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_calibration_is_of_the_log_odds_and_keeps_the_order_of_images(method: RAM, backbone: Backbone) -> None:
    batch = whole(images(method, backbone))
    scores = method.log_scores(*method.cosines(batch, method.encode_text())).exp()
    # At the start an even share is undecided: with five classes, odds of 1 to 4 become even ones.
    even = method.calibrated(torch.full((1, 5), 0.2).log())
    torch.testing.assert_close(even, torch.full((1, 5), 0.5), atol=1e-6, rtol=0)
    method.calibration.scale.fill_(0.4)
    method.calibration.bias.fill_(1.2)
    expected = 1 / (1 + (-0.4 * (scores / (1 - scores)).log() - 1.2).exp())
    torch.testing.assert_close(method(batch), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(method(batch).argsort(0), scores.argsort(0))
    assert method.calibrated(torch.tensor([[0.0, -1e4]])).isfinite().all()


def test_the_loss_is_matching_of_both_streams_and_the_calibration_learns_by_itself(
    method: RAM, backbone: Backbone
) -> None:
    batch = few(method, backbone)
    pooled, patches = method.cosines(batch, method.encode_text())
    teacher = batch.views["teacher"][:, 0, 1:]
    frozen = method.logit_scale * F.normalize(teacher, dim=-1) @ method.hand_written.T
    plan = method.plan(patches, entropy=0.15, extra=0.05 * teacher_cost(frozen, batch.labels))
    method.log_global_temperature.data.fill_(math.log(0.02))
    seen = multi_matching_loss(pooled / 0.02, batch.labels)
    matched = multi_matching_loss((plan * patches).sum(1) / 2e-3, batch.labels)
    calibrated = asymmetric_loss(method(batch), batch.labels)
    torch.testing.assert_close(method.loss(batch), seen + matched + calibrated, atol=1e-4, rtol=1e-4)
    found = gradients_of(method, batch)
    named = {name: p for name, p in method.named_parameters() if not name.startswith(("calibration.", "log_"))}
    expected = torch.autograd.grad(seen + matched, list(named.values()))
    torch.testing.assert_close([found[name] for name in named], list(expected))
    assert all(found[name] != 0 for name in ("log_temperature", "log_global_temperature"))
    assert all(found[f"calibration.{name}"] != 0 for name in ("scale", "bias"))


def test_the_plan_of_scores_does_not_know_the_labels(method: RAM, backbone: Backbone) -> None:
    batch = few(method, backbone)
    others = dataclasses.replace(batch, labels=1 - batch.labels)
    assert torch.equal(method(batch), method(others))


def test_a_client_with_one_image_trains(method: RAM, backbone: Backbone) -> None:
    state = get_state(method)
    result = local_update(
        method,
        state,
        images(method, backbone).subset(torch.tensor([5])),
        personal={},
        client=0,
        round_index=1,
        seed=0,
        learning_rate=5e-5,
        training=LocalTraining(),
    )
    assert result.update.loss > 0
    assert not [name for name, tensor in result.update.state.items() if torch.equal(tensor, state[name])]


def test_temperatures_start_as_published_and_stay_positive(method: RAM, backbone: Backbone) -> None:
    named = {"log_temperature": 2e-3, "log_global_temperature": 1 / method.logit_scale}
    batch = few(method, backbone)
    optimizer = method.optimizer(learning_rate=5e-5, momentum=0.9, weight_decay=0.0)
    method.loss(batch).backward()
    for name, start in named.items():
        assert getattr(method, name).exp().item() == pytest.approx(start)
    optimizer.step()
    for name, start in named.items():
        # AdamW's first step is its rate: 5e-5 of the temperature itself, to first order.
        assert abs(getattr(method, name).exp().item() - start) == pytest.approx(5e-5, rel=0.02)
    method.optimizer(learning_rate=1.0, momentum=0.9, weight_decay=0.0).step()
    assert all(getattr(method, name).exp() >= 0 for name in named)


def test_prompts_train_with_sgd_and_all_else_with_adamw(method: RAM, backbone: Backbone) -> None:
    adam, sgd = method.optimizer(learning_rate=5e-5, momentum=0.8, weight_decay=0.1).optimizers
    assert isinstance(adam, torch.optim.AdamW)
    assert isinstance(sgd, torch.optim.SGD)
    rates = {id(group["params"][0]): group["lr"] for group in (*adam.param_groups, *sgd.param_groups)}
    published = {"adapters.": 5e-6, "context": 1e-3, "visual_context": 1e-3, "calibration.": 0.015}
    named = dict(method.named_parameters())
    assert rates.keys() == {id(parameter) for parameter in named.values()}
    for prefix, rate in published.items():
        found = [rates[id(parameter)] for name, parameter in named.items() if name.startswith(prefix)]
        assert found == pytest.approx([rate] * len(found))
    assert [id(group["params"][0]) for group in sgd.param_groups] == [id(method.visual_context), id(method.context)]
    assert {(group["momentum"], group["weight_decay"]) for group in sgd.param_groups} == {(0.8, 0.1)}
    assert {group["weight_decay"] for group in adam.param_groups} == {0.1}


def test_the_optimisers_step_and_forget_together(method: RAM, backbone: Backbone) -> None:
    state, batch = get_state(method), few(method, backbone)
    optimizer = method.train().optimizer(learning_rate=5e-5, momentum=0.9, weight_decay=0.0)
    method.loss(batch).backward()
    optimizer.step()
    assert not [name for name, tensor in get_state(method).items() if torch.equal(tensor, state[name])]
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in method.parameters())


def test_statistics_of_batches_travel_and_are_averaged(method: RAM) -> None:
    state = get_state(method)
    assert {name for name in state if "running_" in name} == {
        f"adapters.0.{branch}.norm.running_{what}" for branch in ("point", "window") for what in ("mean", "var")
    }
    updates = [
        Update(client=client, state={k: v + client for k, v in state.items()}, num_examples=client + 1, loss=1.0)
        for client in range(3)
    ]
    mean, _ = aggregate(method, state, updates)
    name = "adapters.0.window.norm.running_var"
    torch.testing.assert_close(mean[name], state[name] + 1)


def test_parameters_at_b16() -> None:
    sizes = trained_at_b16(CONFIG)
    names = ("calibration.scale", "calibration.bias", "log_temperature", "log_global_temperature")
    assert [sizes.pop(name) for name in names] == [1] * 4
    assert sum(sizes.values()) == 13_016_172
    assert sizes["visual_context"] == 3 * 8 * 768
    assert sizes["context"] == 3 * 4 * 512
    adapter = 512 * 768 + 9 * 512 * 768 + 2 * 1024 + 3 * 1024 + 36 + 512 * 768
    assert sum(size for name, size in sizes.items() if name.startswith("adapters.0.")) == adapter


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("num_context", 0, "--num-context must be positive, got 0"),
        ("num_visual_context", -1, "--num-visual-context must be positive, got -1"),
        ("training_entropy", 0.0, "--training-entropy must be positive, got 0.0"),
        ("temperature", float("nan"), "--temperature must be positive, got nan"),
        ("teacher_weight", -0.1, "--teacher-weight must not be negative, got -0.1"),
    ],
)
def test_options_that_cannot_be(backbone: Backbone, name: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(dataclasses.replace(CONFIG, **{name: value}), backbone)


def test_a_backbone_that_is_closed_is_refused(backbone: Backbone) -> None:
    class Closed:
        name, image_size, logit_scale = "closed", 32, 100.0
        tokenizer, text_model = backbone.tokenizer, backbone.text_model
        preprocess, encode_image = backbone.preprocess, backbone.encode_image

    with pytest.raises(InputError, match="puts tokens into the image tower, and backbone 'closed' does not open"):
        build(CONFIG, Closed())
