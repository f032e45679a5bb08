"""FedMPT against the paper's equations for prompts, transport and gate, computed with plain loops."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from contract import CLASS_NAMES, build, images, whole
from plain_prompts import encode_plainly
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from fedmpt.methods.fedmpt import FedMPT, FedMPTConfig
from fedmpt.methods.parts.heads import adapted_cosines
from fedmpt.methods.zero_shot import ZeroShotConfig
from fedmpt.state import get_state, num_parameters, set_state
from fedmpt.types import Backbone, Batch

CONDITIONS = ("dog", "the pose", "in")
PLAIN = FedMPTConfig(
    conditions=CONDITIONS,
    text="prompts",
    csra=False,
    rank=4,
    num_condition_context=2,
    num_class_context=3,
    class_context_init="",
    entropy=0.3,
    calibration=False,
    sinkhorn_iterations=3000,
    sinkhorn_tolerance=1e-6,
)


def randomised(config: FedMPTConfig, backbone: Backbone, *, seed: int = 0) -> FedMPT:
    """A method whose every tensor is far from where it starts, so that no term of the equations is zero."""
    method = config.build(backbone, CLASS_NAMES, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    set_state(method, {name: 0.3 * torch.randn(t.shape, generator=generator) for name, t in get_state(method).items()})
    return method


def few(backbone: Backbone, num_images: int = 4) -> Batch:
    return images(build(FedMPTConfig(), backbone), backbone).batch(torch.arange(num_images))


def cosines_inputs(seed: int = 0) -> list[Tensor]:
    """Patches [2, 6, 10], text [3, 4, 10] and adapters of rank 5, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, 6, 10), (3, 4, 10), (3, 10, 5), (3, 5, 10)
    patches, text, down, up = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [F.normalize(patches, dim=-1), F.normalize(text, dim=-1), down, up]


def plain_cosines(patches: Tensor, text: Tensor, down: Tensor, up: Tensor) -> Tensor:
    adapted = F.normalize(patches[:, None] + patches[:, None] @ down @ up, dim=-1)
    return adapted @ text.transpose(-1, -2)


@pytest.mark.parametrize("num_prompts", [1, 3])
def test_adapted_cosines_equal_the_materialised_ones_with_gradients(num_prompts: int) -> None:
    patches, text, down, up = cosines_inputs()
    inputs = [patches, text[:num_prompts], down, up]
    for tensor in inputs:
        tensor.requires_grad_()
    ours, plain = adapted_cosines(*inputs), plain_cosines(*inputs)
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-10)
    weights = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = (torch.autograd.grad((weights * value).sum(), inputs) for value in (ours, plain))
    # Of the patches' gradient only what is tangent to the sphere counts: ours takes their length for one.
    radial = (found[0] - expected[0]) - ((found[0] - expected[0]) * patches).sum(-1, keepdim=True) * patches
    torch.testing.assert_close(radial, torch.zeros_like(radial), atol=1e-10, rtol=0)
    torch.testing.assert_close(found[1:], expected[1:], atol=1e-10, rtol=1e-8)


def test_adapted_cosines_stay_finite_where_an_adapter_cancels_a_patch() -> None:
    patches, text, down, up = (tensor.float() for tensor in cosines_inputs())
    down, up = torch.zeros(3, 10, 10), torch.zeros(3, 10, 10)
    down[:], up[:] = torch.eye(10), -torch.eye(10)
    up.requires_grad_()
    found = adapted_cosines(patches, text, down, up)
    found.sum().backward()
    assert found.isfinite().all()
    assert up.grad is not None
    assert up.grad.isfinite().all()


def test_single_precision_cosines_are_accurate() -> None:
    inputs = cosines_inputs()
    single = adapted_cosines(*(tensor.float() for tensor in inputs))
    torch.testing.assert_close(single.double(), plain_cosines(*inputs), atol=2e-6, rtol=0)


@pytest.mark.parametrize("adapters", [True, False])
def test_training_starts_from_zero_shot_clip(backbone: Backbone, adapters: bool) -> None:
    start = replace(
        PLAIN,
        condition_prompts=False,
        adapters=adapters,
        transport="mean",
        class_context_init="of a",
        num_class_context=2,
    )
    zero_shot = build(ZeroShotConfig(template="of a {}.", head="patches"), backbone)
    batch = whole(images(zero_shot, backbone))
    torch.testing.assert_close(build(start, backbone)(batch), zero_shot(batch), atol=1e-6, rtol=1e-5)


def test_plan_has_the_marginals_of_the_paper(backbone: Backbone) -> None:
    method, batch = randomised(PLAIN, backbone), few(backbone)
    similarity = method.similarities(F.normalize(batch.patches, dim=-1), method.encode_text())
    plan = method.plan(similarity)
    assert plan.shape == (4, len(CONDITIONS), 6, len(CLASS_NAMES))
    assert (plan >= 0).all()
    assert not plan.requires_grad
    columns = plan.sum(-2)
    torch.testing.assert_close(columns, torch.full_like(columns, 1 / len(CLASS_NAMES)), atol=1e-6, rtol=0)
    rows = (similarity.amax(-1) / PLAIN.patch_temperature).softmax(-1)
    torch.testing.assert_close(plan.sum(-1), rows, atol=0, rtol=1e-4)


@pytest.mark.parametrize("transport", ["sinkhorn", "rows", "mean"])
def test_predictions_of_conditions_are_probabilities(backbone: Backbone, transport: Any) -> None:
    method = randomised(replace(PLAIN, transport=transport), backbone)
    for scale in (0.1, 1.0, 30.0):
        similarity = scale * torch.randn(3, len(CONDITIONS), 9, len(CLASS_NAMES), generator=torch.Generator())
        found = method.condition_predictions(similarity)
        assert found.min() >= 0
        assert found.max() <= 1 + 1e-6


@pytest.mark.parametrize("transport", ["sinkhorn", "rows"])
def test_weights_of_patches_carry_no_gradient(backbone: Backbone, transport: Any) -> None:
    """As in PLOT and RAM: the shares learn, where the plan sends the mass is taken as given."""
    method = build(replace(PLAIN, transport=transport), backbone)
    similarity = torch.randn(2, 3, 6, len(CLASS_NAMES), generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = (similarity.detach().amax(-1) / PLAIN.patch_temperature).softmax(-1)[..., None]
    weights = rows if transport == "rows" else len(CLASS_NAMES) * method.plan(similarity)
    upstream = torch.randn(2, 3, len(CLASS_NAMES), generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((upstream * method.condition_predictions(similarity)).sum(), similarity)
    expected = torch.autograd.grad((upstream * (weights * similarity.softmax(-1)).sum(2)).sum(), similarity)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("adapters", [True, False])
@pytest.mark.parametrize("condition_prompts", [True, False])
@pytest.mark.parametrize("transport", ["sinkhorn", "rows", "mean"])
def test_prediction_is_that_of_the_equations(
    backbone: Backbone, transport: Any, condition_prompts: bool, adapters: bool
) -> None:
    config = replace(PLAIN, transport=transport, condition_prompts=condition_prompts, adapters=adapters)
    method, batch = randomised(config, backbone), few(backbone)
    torch.testing.assert_close(method(batch).double(), by_the_book(method, backbone, batch), atol=2e-5, rtol=0)


@torch.no_grad()
def by_the_book(method: FedMPT, backbone: Backbone, batch: Batch) -> Tensor:
    """Probabilities [B, C], image by image and condition by condition, in double precision, the plans from POT."""
    config, state = method.config, {name: tensor.double() for name, tensor in get_state(method).items()}
    context = method.condition_context if config.condition_prompts else None
    prompts = method.template.embed(context, method.class_context)
    text = F.normalize(encode_plainly(backbone.text_model, prompts).double(), dim=-1)
    found = []
    for patches in F.normalize(batch.patches.double(), dim=-1):
        by_condition = []
        for n in range(config.num_conditions):
            adapted = patches
            if config.adapters:
                adapted = patches + patches @ state["adapter_down"][n] @ state["adapter_up"][n]
            sim = backbone.logit_scale * F.normalize(adapted, dim=-1) @ text[min(n, len(text) - 1)].T
            by_condition.append(condition_prediction(sim, config))
        gate = torch.zeros(config.num_conditions, dtype=torch.float64)
        if "gate_up" in state:
            gate = patches.mean(0) @ state["gate_down"] @ state["gate_up"]
        found.append((gate.softmax(0)[:, None] * torch.stack(by_condition)).sum(0))
    return torch.stack(found)


def condition_prediction(sim: Tensor, config: FedMPTConfig) -> Tensor:
    """P_n(c) of one image from the similarities [M, C] on the logit scale."""
    num_patches, num_classes = sim.shape
    shares = sim.softmax(1)
    if config.transport == "mean":
        return shares.sum(0) / num_patches
    rows = (sim.max(1).values / config.patch_temperature).softmax(0)
    if config.transport == "rows":
        return sum((rows[m] * shares[m] for m in range(num_patches)), torch.zeros(num_classes))
    columns = np.full(num_classes, 1 / num_classes)
    cost = (1 - shares).numpy()
    plan = ot.sinkhorn(
        rows.numpy(), columns, cost, config.entropy, method="sinkhorn_log", numItermax=50_000, stopThr=1e-12
    )
    psi = [sum(plan[m, c] * shares[m, c].item() for m in range(num_patches)) for c in range(num_classes)]
    return torch.tensor(psi) / torch.from_numpy(columns)


@pytest.mark.parametrize("condition_prompts", [True, False])
def test_vectors_start_where_the_prompts_do(backbone: Backbone, condition_prompts: bool) -> None:
    prompts = replace(PLAIN, condition_prompts=condition_prompts)
    batch, expected = few(backbone), build(prompts, backbone)
    for text in ("vectors", "both"):
        method = build(replace(prompts, text=text), backbone)  # type: ignore[arg-type]
        torch.testing.assert_close(method(batch), expected(batch))
    vectors = build(replace(prompts, text="vectors"), backbone)
    assert vectors.vectors.shape == (len(CONDITIONS) if condition_prompts else 1, len(CLASS_NAMES), 40)
    assert not {name for name in vectors.state_dict() if "context" in name}


def test_trained_vectors_are_the_text(backbone: Backbone) -> None:
    method = randomised(replace(PLAIN, text="vectors"), backbone)
    lengths = method.vectors.detach().square().sum(-1, keepdim=True).sqrt()
    torch.testing.assert_close(method.encode_text(), method.vectors / lengths)


def test_a_residual_is_added_to_the_prompts_features(backbone: Backbone) -> None:
    method = randomised(replace(PLAIN, text="both"), backbone)
    prompts = method.template.embed(method.condition_context, method.class_context)
    features = F.normalize(encode_plainly(backbone.text_model, prompts), dim=-1) + method.residual
    torch.testing.assert_close(method.encode_text(), F.normalize(features, dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("calibration", [True, False])
def test_the_second_reading_is_averaged_in_log_odds(backbone: Backbone, calibration: bool) -> None:
    batch, plain = few(backbone), replace(PLAIN, calibration=calibration)
    method = randomised(replace(plain, csra=True), backbone)
    state = get_state(method)
    first = build(plain, backbone)
    set_state(first, {name: tensor for name, tensor in state.items() if not name.startswith("csra")})
    transport = first(batch).double()
    tokens = torch.cat([batch.pooled[:, None], batch.patches], dim=1)
    for image, row in enumerate(tokens.double()):
        cosines = F.cosine_similarity(row[:, None], state["csra.vectors"].double()[None], dim=-1)
        logits = torch.stack([100 * (column * (20 * column).softmax(0)).sum() for column in cosines.T])
        logits = (logits - logits.mean()) / (1 + logits.std(correction=0))
        second = state["csra.calibration.scale"] * logits + state["csra.calibration.bias"]
        expected = ((transport[image].logit() + second.clamp(-13.8, 13.8)) / 2).sigmoid()
        torch.testing.assert_close(method(batch)[image].double(), expected, atol=1e-4, rtol=0)


def test_each_reading_learns_from_its_own_loss(backbone: Backbone) -> None:
    batch, first = few(backbone), build(replace(PLAIN, text="vectors"), backbone)
    both = build(replace(PLAIN, text="vectors", csra=True), backbone)
    first.loss(batch).backward()
    both.loss(batch).backward()
    for name, parameter in first.named_parameters():
        torch.testing.assert_close(dict(both.named_parameters())[name].grad, parameter.grad, msg=name)
    assert both.csra.vectors.grad is not None
    assert both.csra.vectors.grad.abs().sum() > 0


def test_calibration_scales_and_shifts_the_log_odds(backbone: Backbone) -> None:
    batch = few(backbone)
    plain = randomised(PLAIN, backbone)
    method = build(replace(PLAIN, calibration=True), backbone)
    scale, bias = torch.linspace(0.5, 2, len(CLASS_NAMES)), torch.linspace(-1, 1, len(CLASS_NAMES))
    set_state(method, {**get_state(plain), "scale": scale, "bias": bias})
    odds = plain(batch) / (1 - plain(batch))
    expected = 1 / (1 + torch.exp(-(scale * odds.log() + bias)))
    torch.testing.assert_close(method(batch), expected, atol=1e-5, rtol=0)


def test_calibration_learns_without_touching_what_else_is_learned(backbone: Backbone) -> None:
    plain, method, batch = build(PLAIN, backbone), build(replace(PLAIN, calibration=True), backbone), few(backbone)
    loss = method.loss(batch)
    loss.backward()
    plain_loss = plain.loss(batch)
    plain_loss.backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(dict(method.named_parameters())[name].grad, parameter.grad, msg=name)
    assert loss > plain_loss
    for parameter in (method.scale, method.bias):
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


def test_gate_weighs_conditions_by_the_image(backbone: Backbone) -> None:
    batch, untrained = few(backbone), build(PLAIN, backbone)
    patches = F.normalize(batch.patches, dim=-1)
    torch.testing.assert_close(untrained.gate_weights(patches), torch.full((4, 3), 1 / 3))
    trained = randomised(PLAIN, backbone)
    weights = trained.gate_weights(patches)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert (weights[0] - weights[1]).abs().max() > 1e-3
    off = randomised(replace(PLAIN, gate=False), backbone)
    assert not {name for name in off.state_dict() if name.startswith("gate")}
    torch.testing.assert_close(off.gate_weights(patches), torch.full((4, 3), 1 / 3))


def test_adapters_alone_still_have_conditions(backbone: Backbone) -> None:
    method = randomised(replace(PLAIN, condition_prompts=False), backbone)
    assert method.encode_text().shape == (1, len(CLASS_NAMES), 40)
    assert method.config.num_conditions == 3
    similarity = method.similarities(F.normalize(few(backbone).patches, dim=-1), method.encode_text())
    assert (similarity[:, 0] - similarity[:, 1]).abs().max() > 1e-2
    assert replace(PLAIN, condition_prompts=False, adapters=False).num_conditions == 1


def test_size_at_vit_b16_is_that_of_the_formula(backbone: Backbone) -> None:
    sizes = {"hidden_size": 512, "projection_dim": 512, "num_attention_heads": 8, "intermediate_size": 8}
    small = backbone.text_model.config
    ids = {name: getattr(small, name) for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    text_model = CLIPTextModelWithProjection(CLIPTextConfig(**sizes, **ids, num_hidden_layers=1))
    wide = copy.copy(backbone)
    wide.text_model = text_model
    config = replace(FedMPTConfig.paper(), num_condition_context=4, num_class_context=4, rank=32)
    config = replace(config, condition_prompts=True, adapters=True, gate=True, calibration=False)
    contexts = 5 * 4 * 512 + 4 * 512
    adapters = 5 * (512 * 32 + 32 * 512)
    gate = 512 * 32 + 32 * 5
    assert num_parameters(get_state(build(config, wide))) == contexts + adapters + gate == 192_672
    calibrated = get_state(build(replace(config, calibration=True), wide))
    assert num_parameters(calibrated) == 192_672 + 2 * len(CLASS_NAMES)
