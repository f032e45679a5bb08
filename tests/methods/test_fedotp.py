"""FedOTP: its plans by its equations in plain loops, what is personal, and its global model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import CLASS_NAMES, build, images
from torch import Tensor

from fedmpt.evaluation.scoring import set_global
from fedmpt.federated.aggregate import aggregate
from fedmpt.methods.fedotp import FedOTP, FedOTPConfig
from fedmpt.state import Update, get_state
from fedmpt.types import Backbone, Batch, InputError

CONFIG = FedOTPConfig(num_context=2)


@pytest.fixture
def method(backbone: Backbone) -> FedOTP:
    """With contexts far enough from each other that a class's prompts see different things."""
    method = build(CONFIG, backbone)
    method.context.data.mul_(20)
    method.personal_context.data.mul_(20)
    return method


def few(method: FedOTP, backbone: Backbone) -> Batch:
    return images(method, backbone).batch(torch.arange(3))


def plain_plan(cosines: Tensor, prompt_mass: float = 0.4) -> np.ndarray:
    """``u = min(1 / ((K / a) v), 1)`` and ``v = 1 / ((K^T / b) u)`` with K = exp(-(1 - S) / 0.1), to the end."""
    kernel = np.exp(-(1 - cosines.double().numpy()) / 0.1)
    num_patches, num_prompts = kernel.shape
    a, b = 1 / num_patches, prompt_mass
    u, v = np.ones(num_patches), np.ones(num_prompts)
    for _ in range(1000):
        u = np.minimum(1 / ((kernel / a) @ v), 1)
        v = 1 / ((kernel.T / b) @ u)
    return u[:, None] * kernel * v


@torch.no_grad()
def test_logits_are_what_the_papers_iteration_transports(method: FedOTP, backbone: Backbone) -> None:
    batch, text = few(method, backbone), method.encode_text()
    logits = method.logits(batch, text)
    for image in range(len(batch)):
        patches = F.normalize(batch.patches[image], dim=-1)
        for c in range(len(CLASS_NAMES)):
            cosines = torch.stack([torch.stack([patch @ prompt for prompt in text[:, c]]) for patch in patches])
            plan = plain_plan(cosines)
            expected = 100 * (plan * cosines.double().numpy()).sum()
            assert logits[image, c].item() == pytest.approx(expected, abs=0.05)
            assert plan.sum() == pytest.approx(0.8)


@torch.no_grad()
def test_plans_move_the_mass_that_is_asked_for_and_are_not_uniform(method: FedOTP, backbone: Backbone) -> None:
    batch = few(method, backbone)
    cosines = torch.einsum("bmd,ncd->bcmn", F.normalize(batch.patches, dim=-1), method.encode_text())
    plans = method.plan(cosines)
    torch.testing.assert_close(plans.sum(-2), torch.full((3, len(CLASS_NAMES), 2), 0.4), atol=1e-5, rtol=0)
    assert ((plans - plans.mean((-2, -1), keepdim=True)).abs().amax((-2, -1)) > 0.02).all()
    method.mass = 1.0
    torch.testing.assert_close(method.plan(cosines).sum((-2, -1)), torch.ones(3, len(CLASS_NAMES)))


def test_text_is_that_of_the_shared_and_of_the_personal_context(method: FedOTP) -> None:
    both = method.encode_text()
    method.personal_context.data.copy_(method.context.data)
    shared, copied = method.encode_text()
    assert torch.equal(shared, both[0])
    torch.testing.assert_close(copied, shared, atol=1e-6, rtol=0)
    assert (both[1] - shared).abs().max() > 0.01


def test_the_global_model_has_the_shared_context_twice(method: FedOTP, backbone: Backbone) -> None:
    shared, personal = method.split(get_state(method))
    assert personal.keys() == {"personal_context"}
    moved = {**shared, "context": shared["context"] + 1}
    set_global(method, moved, initial=personal, source="server")
    assert torch.equal(method.context, moved["context"])
    assert torch.equal(method.personal_context, moved["context"])
    # Equal prompts share the mass evenly, so together they score as one to which all of it may go.
    both, batch = method.encode_text().detach(), few(method, backbone)
    torch.testing.assert_close(both[0], both[1], atol=1e-6, rtol=0)
    logits = method.logits(batch, both).detach()
    for image in range(len(batch)):
        cosines = F.normalize(batch.patches[image], dim=-1) @ both[0].T
        columns = [column[:, None] for column in cosines.T]
        expected = [100 * (plain_plan(some, 0.8) * some.double().numpy()).sum() for some in columns]
        assert logits[image].tolist() == pytest.approx(expected, abs=0.05)
        # Which patches are left out matters.
        assert (logits[image] - 80 * cosines.mean(0)).abs().max() > 0.5


def test_clients_count_by_their_images(method: FedOTP) -> None:
    state, _ = method.split(get_state(method))
    updates = [
        Update(client=client, state={name: tensor + client for name, tensor in state.items()}, num_examples=n, loss=1)
        for client, n in ((0, 1), (1, 3))
    ]
    mean, _ = aggregate(method, state, updates)
    torch.testing.assert_close(mean["context"], state["context"] + 0.75)


def test_contexts_from_words_differ(backbone: Backbone) -> None:
    method = build(replace(CONFIG, context_init="of a"), backbone)
    assert 0 < (method.context - method.personal_context).abs().max() < 0.1


def test_parameters_at_b16() -> None:
    sizes = trained_at_b16(FedOTPConfig())
    assert sizes == {"context": 8192, "personal_context": 8192, "calibration.scale": 1, "calibration.bias": 1}


@pytest.mark.parametrize("mass", [0.0, 1.1, float("nan")])
def test_mass_must_be_a_share(backbone: Backbone, mass: float) -> None:
    with pytest.raises(InputError, match=rf"--mass must be in \(0, 1\], got {mass}"):
        build(replace(CONFIG, mass=mass), backbone)


def test_options_of_the_shared_part_are_checked(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="--entropy must be positive, got -1"):
        build(replace(CONFIG, entropy=-1.0), backbone)
