"""FedPGP: the two contexts, the contrastive loss, and what stays at home."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from b16 import trained_at_b16
from contract import CLASS_NAMES, build, images, same, whole
from torch import Tensor

from fedmpt.evaluation.scoring import set_global
from fedmpt.federated.aggregate import aggregate
from fedmpt.federated.client import LocalResult, LocalTraining, local_update
from fedmpt.methods.fedpgp import FedPGP, FedPGPConfig, contrastive_loss
from fedmpt.methods.parts.losses import asymmetric_loss
from fedmpt.methods.promptfl import PromptFLConfig
from fedmpt.state import get_state, set_state
from fedmpt.types import Backbone, InputError, State

CONFIG = FedPGPConfig(num_context=3, rank=2)


def personalised(backbone: Backbone, config: FedPGPConfig = CONFIG) -> FedPGP:
    """As after some training: the client's own context is not the shared one."""
    method = build(config, backbone)
    assert isinstance(method, FedPGP)
    with torch.no_grad():
        drawn = torch.randn(method.personal_u.shape, generator=torch.Generator().manual_seed(3))
        method.personal_u.copy_(0.3 * drawn)
    return method


def features_of(context: Tensor, backbone: Backbone) -> Tensor:
    """PromptFL's with that context, which its own tests hold against transformers."""
    other = build(PromptFLConfig(num_context=len(context)), backbone)
    set_state(other, {**get_state(other), "context": context})
    return other.encode_text()


@torch.no_grad()
def test_own_context_is_the_shared_one_and_a_sum_of_outer_products(backbone: Backbone) -> None:
    method = personalised(backbone)
    own = method.context.clone()
    for k in range(2):
        for token in range(3):
            own[token] += method.personal_u[token, k] * method.personal_v[k]
    text = method.encode_text()
    torch.testing.assert_close(text[0], features_of(own, backbone), atol=1e-5, rtol=0)
    torch.testing.assert_close(text[1], features_of(method.context, backbone), atol=1e-5, rtol=0)
    assert (text[0] - text[1]).abs().max() > 0.01


@torch.no_grad()
def test_neutral_prompt_has_as_many_x_as_there_are_tokens(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    written = backbone.tokenizer([f"X X X {name}." for name in CLASS_NAMES], padding=True, return_tensors="pt")
    expected = F.normalize(backbone.text_model(**written).text_embeds, dim=-1)
    torch.testing.assert_close(method.neutral, expected, atol=1e-5, rtol=0)


def test_contrastive_loss_by_hand() -> None:
    """Class one: shared is neutral, own stands across it. Class two: shared is opposite to neutral, own is shared."""
    shared = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    neutral = torch.tensor([[3.0, 0.0], [0.0, -1.0]])
    own = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    first = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0 / 0.5)))
    second = -math.log(math.exp(-1 / 0.5) / (math.exp(-1 / 0.5) + math.exp(1 / 0.5)))
    found = contrastive_loss(own, shared, neutral, temperature=0.5)
    torch.testing.assert_close(found, torch.tensor((first + second) / 2))


def test_loss_adds_the_contrast_to_that_of_the_own_prediction(backbone: Backbone) -> None:
    method = personalised(backbone, replace(CONFIG, contrast_weight=2.0))
    batch = whole(images(method, backbone))
    own, shared = method.encode_text()
    logits = torch.stack([(method.neutral * shared).sum(-1), (shared * own).sum(-1)], dim=-1) / 0.5
    contrast = F.cross_entropy(logits, torch.zeros(len(CLASS_NAMES), dtype=torch.int64))
    classifier = build(PromptFLConfig(num_context=3), backbone)
    prediction = classifier(batch, own)
    torch.testing.assert_close(method(batch), prediction)
    torch.testing.assert_close(method.loss(batch), asymmetric_loss(prediction, batch.labels) + 2.0 * contrast)


def test_contrast_trains_the_shared_and_the_personal_part(backbone: Backbone) -> None:
    method = personalised(backbone)
    own, shared = method.encode_text()
    loss = contrastive_loss(own, shared, method.neutral, temperature=0.5)
    for gradient in torch.autograd.grad(loss, [method.context, method.personal_u, method.personal_v]):
        assert gradient.abs().max() > 0


def train(method: FedPGP, backbone: Backbone, client: int, shared: State, personal: State) -> LocalResult:
    features = images(method, backbone)
    return local_update(
        method,
        shared,
        features.subset(torch.arange(8 * client, 8 * (2 * client + 1))),
        personal=personal,
        client=client,
        round_index=1,
        seed=0,
        learning_rate=0.1,
        training=LocalTraining(batch_size=8),
    )


def test_global_model_has_no_personal_part(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    shared, initial = method.split(get_state(method))
    result = train(method, backbone, 1, shared, initial)
    assert not same(result.personal, initial)
    set_global(method, result.update.state, initial=initial, source="server")
    own, common = method.encode_text()
    torch.testing.assert_close(own, common, atol=1e-6, rtol=0)
    torch.testing.assert_close(common, features_of(result.update.state["context"], backbone), atol=1e-6, rtol=0)


def test_clients_count_by_their_images_and_keep_their_own(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    shared, initial = method.split(get_state(method))
    small, large = (train(method, backbone, client, shared, initial) for client in (0, 1))
    assert [result.update.num_examples for result in (small, large)] == [8, 16]
    assert not same(small.personal, large.personal)
    state, _ = aggregate(method, shared, [small.update, large.update])
    assert state.keys() == {"context", "calibration.scale", "calibration.bias"}
    expected = (small.update.state["context"] + 2 * large.update.state["context"]) / 3
    torch.testing.assert_close(state["context"], expected)


def test_size_at_b16() -> None:
    sizes = trained_at_b16(FedPGPConfig())
    assert sum(size for name, size in sizes.items() if not name.startswith("calibration.")) == 10_304
    sent = {name: size for name, size in sizes.items() if name not in FedPGP.personal}
    assert sent == {"context": 8_192, "calibration.scale": 1, "calibration.bias": 1}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rank": 0}, "--rank must be positive, got 0"),
        ({"contrast_weight": -0.5}, "--contrast-weight must not be negative, got -0.5"),
        ({"temperature": 0.0}, "--temperature must be positive, got 0.0"),
        ({"temperature": float("nan")}, "--temperature must be positive, got nan"),
        ({"num_context": 0}, "--num-context must be positive, got 0"),
    ],
)
def test_options_are_checked(backbone: Backbone, option: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(CONFIG, **option), backbone)
