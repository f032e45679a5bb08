"""FedMPT's options: what they reach, what the paper says, and which are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from contract import CLASS_NAMES, build, images, whole

from fedmpt.methods.fedmpt import FedMPTConfig
from fedmpt.methods.parts.heads import rate_unit
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.types import Backbone, InputError

PLAIN = FedMPTConfig(conditions=("dog", "the pose"), text="prompts", csra=False, model_rates=False, rank=4)


def test_rates_reach_the_tensors_they_are_named_after(backbone: Backbone) -> None:
    rates = replace(PLAIN, calibration=True, context_rate=2.0, adapter_rate=3.0, gate_rate=5.0)
    method = build(rates, backbone)
    optimizer = method.optimizer(learning_rate=0.1, momentum=0.0, weight_decay=0.0)
    by_identity = {id(group["params"][0]): group["lr"] / 0.1 for group in optimizer.param_groups}
    found = {name: by_identity[id(parameter)] for name, parameter in method.named_parameters()}
    assert found == pytest.approx(
        {
            # Rates are for five conditions, and these are two.
            "condition_context": 2 * 2 / 5,
            "class_context": 2,
            "adapter_down": 3 * 2 / 5,
            "adapter_up": 3 * 2 / 5,
            "gate_down": 5,
            "gate_up": 5,
            "scale": rates.calibration_rate,
            "bias": rates.calibration_rate,
        }
    )


def test_rates_of_vectors(backbone: Backbone) -> None:
    for condition_prompts, own in ((True, 2 / 5), (False, 1.0)):
        config = replace(
            PLAIN, text="vectors", csra=True, vector_rate=7.0, csra_rate=2.0, condition_prompts=condition_prompts
        )
        factors = build(config, backbone).learning_rate_factors()
        assert factors["vectors"] == pytest.approx(7 * own)
        assert factors["csra.vectors"] == 14


def test_rates_in_units_of_the_model(backbone: Backbone) -> None:
    options = replace(PLAIN, text="vectors", csra=True)
    plain, in_units = build(options, backbone), build(replace(options, model_rates=True), backbone)
    text = hand_written_features(plain.tower, CLASS_NAMES)
    spread = torch.stack([(row - text.mean(0)).square().sum() for row in text]).mean().item()
    unit = spread / 0.925 * (26.3 / backbone.logit_scale) ** 2
    for name, factor in plain.learning_rate_factors().items():
        is_in_units = name in ("vectors", "residual", "csra.vectors", "adapter_")
        assert in_units.learning_rate_factors()[name] == pytest.approx(factor * (unit if is_in_units else 1))
    assert rate_unit(text, 2 * backbone.logit_scale) == pytest.approx(unit / 4)


@pytest.mark.parametrize("scale_rates", [True, False])
def test_a_condition_takes_the_same_step_whatever_the_number_of_others(backbone: Backbone, scale_rates: bool) -> None:
    """Where all conditions see the same, each gets one N-th of the gradient of a single one."""
    steps = []
    for conditions in (("dog",), ("dog", "the pose", "a cat")):
        config = replace(PLAIN, conditions=conditions, condition_prompts=False, gate=False, scale_rates=scale_rates)
        method = build(config, backbone)
        with torch.no_grad():
            method.adapter_down.fill_(0.02)
            method.adapter_up.fill_(0.01)
        before = method.adapter_up[0].detach().clone()
        optimizer = method.optimizer(learning_rate=0.1, momentum=0.0, weight_decay=0.0)
        method.loss(whole(images(method, backbone))).backward()
        optimizer.step()
        steps.append(method.adapter_up[0].detach() - before)
    assert steps[0].abs().max() > 0
    torch.testing.assert_close(steps[1] * (1 if scale_rates else 3), steps[0], rtol=1e-3, atol=1e-9)


def test_several_steps_with_momentum_and_gate_are_the_same_too(backbone: Backbone) -> None:
    moved = []
    for conditions in (("dog",), ("dog", "the pose", "a cat")):
        method = build(replace(PLAIN, conditions=conditions, condition_prompts=False, gate=True), backbone)
        with torch.no_grad():
            method.adapter_down.fill_(0.02)
            method.adapter_up.fill_(0.01)
        optimizer = method.optimizer(learning_rate=0.1, momentum=0.9, weight_decay=0.0)
        batch = whole(images(method, backbone))
        for _ in range(5):
            optimizer.zero_grad()
            method.loss(batch).backward()
            optimizer.step()
        moved.append((method.adapter_up[0].detach() - 0.01, method.class_context.detach()))
    assert moved[0][0].abs().max() > 1e-6
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-3, atol=1e-7)


def test_paper_values_are_the_papers() -> None:
    paper = FedMPTConfig.paper()
    assert (paper.entropy, paper.patch_temperature, paper.rank) == (0.2, 4.0, 32)
    assert (paper.num_condition_context, paper.num_class_context, len(paper.conditions)) == (4, 4, 5)
    assert (paper.gamma_positive, paper.gamma_negative, paper.margin) == (1.0, 2.0, 0.05)
    assert not paper.scale_rates
    assert paper.condition_prompts
    assert paper.adapters
    assert paper.gate
    assert paper.transport == "sinkhorn"
    assert paper.text == "prompts"
    assert not paper.csra
    assert not paper.model_rates
    assert not paper.calibration


def test_runs_of_before_vectors_go_on_with_prompts() -> None:
    before = FedMPTConfig.of_stored({"scale_rates": True, "entropy": 1.0})
    assert before == {"scale_rates": True, "entropy": 1.0, "text": "prompts", "csra": False, "model_rates": False}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("entropy", 0.0, "--entropy must be positive, got 0.0"),
        ("entropy", float("nan"), "--entropy must be positive, got nan"),
        ("entropy", float("inf"), "--entropy must be positive, got inf"),
        ("patch_temperature", -4.0, "--patch-temperature must be positive, got -4.0"),
        ("rank", 0, "--rank must be positive, got 0"),
        ("num_class_context", 0, "--num-class-context must be positive, got 0"),
        ("num_condition_context", -1, "--num-condition-context must not be negative, got -1"),
        ("sinkhorn_iterations", 0, "--sinkhorn-iterations must be positive, got 0"),
        ("sinkhorn_tolerance", -1.0, "--sinkhorn-tolerance must not be negative, got -1.0"),
        ("gate_rate", -0.5, "--gate-rate must not be negative, got -0.5"),
        ("context_rate", float("nan"), "--context-rate must not be negative, got nan"),
        ("gamma_negative", -2.0, "--gamma-negative must not be negative, got -2.0"),
        ("margin", 1.0, r"--margin must be in \[0, 1\), got 1.0"),
        ("conditions", (), r"--conditions must be at least one.* got \(\)"),
        ("conditions", ("pose", "pose"), "--conditions must be .* all different"),
        ("conditions", ("pose", " "), "--conditions must be .* in words"),
    ],
)
def test_wrong_options_are_named(backbone: Backbone, name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(PLAIN, **{name: value}), backbone)
