"""FedLGT: the transformer and the loss by plain loops, and which labels training masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from b16 import trained_at_b16
from contract import CLASS_NAMES, TRAINING, build, images, train_rounds, whole
from plain_attention import attend_plainly
from torch import Tensor, nn

from fedmpt.methods.fedlgt import FedLGT, FedLGTConfig
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.state import get_state, set_state
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, Backbone, Batch, InputError

CONFIG = FedLGTConfig(num_layers=2)


def moved(backbone: Backbone) -> FedLGT:
    """A method none of whose tensors is as it starts, in a round of the server's model as it is now."""
    method, draw = build(CONFIG, backbone), torch.Generator().manual_seed(1)
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in get_state(method).items()
    }
    set_state(method, state)
    method.start_round(1)
    return method.train()


def batch_of(method: FedLGT, backbone: Backbone, num_images: int = 4) -> Batch:
    """Every fourth label is unknown."""
    batch = images(method, backbone).batch(torch.arange(num_images))
    labels = batch.labels.flatten().clone()
    labels[::4] = UNKNOWN
    return replace(batch, labels=labels.view_as(batch.labels))


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def plain_logits(method: FedLGT, patches: Tensor, classes: Tensor) -> Tensor:
    """Of one image: post-norm layers of attention and a network as wide as the tokens."""
    transformer = method.transformer
    x = normed(torch.cat([patches, classes]), transformer.norm)
    for layer in transformer.layers:
        x = normed(x + attend_plainly(layer.self_attn, x, x, x), layer.norm1)
        hidden = (x @ layer.linear1.weight.T + layer.linear1.bias).clamp_min(0)
        x = normed(x + hidden @ layer.linear2.weight.T + layer.linear2.bias, layer.norm2)
    tokens, weight, bias = x[len(patches) :], transformer.output.weight, transformer.output.bias
    return torch.stack([token @ w + b for token, w, b in zip(tokens, weight, bias, strict=True)])


def test_a_class_reads_its_own_token_behind_layers_over_patches_and_classes(backbone: Backbone) -> None:
    method = moved(backbone)
    batch = batch_of(method, backbone, num_images=2)
    text = hand_written_features(method.tower, CLASS_NAMES, prefix="The photo contains")
    expected = torch.stack([plain_logits(method, patches, text).sigmoid() for patches in batch.patches])
    torch.testing.assert_close(method(batch), expected, atol=1e-5, rtol=1e-4)


def test_loss_is_the_cross_entropy_of_known_labels_that_are_masked(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = moved(backbone)
    batch = batch_of(method, backbone, num_images=3)
    visible = batch.labels.clone()
    visible[:, ::2] = UNKNOWN
    assert (visible == PRESENT).any()
    assert (visible == ABSENT).any()
    monkeypatch.setattr(method, "visible_labels", lambda *_: visible)
    weights = 0.5 + torch.rand(visible.shape, generator=torch.Generator().manual_seed(0))
    text, words = method.encode_text(), {UNKNOWN: torch.zeros(())}
    words[PRESENT], words[ABSENT] = hand_written_features(method.tower, ["positive", "negative"], prefix="")
    total = 0.0
    for patches, label, hints, weight in zip(batch.patches, batch.labels, visible, weights, strict=True):
        classes = torch.stack([t + words[int(hint)] for t, hint in zip(text, hints, strict=True)])
        found = plain_logits(method, patches, classes).sigmoid()
        for c in range(len(CLASS_NAMES)):
            if hints[c] == UNKNOWN and label[c] != UNKNOWN:
                total -= weight[c] * (found[c] if label[c] == PRESENT else 1 - found[c]).log()
    torch.testing.assert_close(method.loss(replace(batch, weights=weights)), total / 3, atol=1e-5, rtol=1e-4)


def test_outside_of_training_all_labels_are_masked(backbone: Backbone) -> None:
    method = moved(backbone).eval()
    batch = batch_of(method, backbone)
    found = method(batch).double()
    losses = -torch.where(batch.labels == PRESENT, found, 1 - found).log().masked_fill(batch.labels == UNKNOWN, 0)
    torch.testing.assert_close(method.loss(batch).double(), losses.sum(1).mean(), atol=1e-5, rtol=1e-4)


def decided(method: FedLGT, *log_odds: float) -> None:
    """From now on the model gives all images these log-odds."""
    with torch.no_grad():
        method.transformer.output.weight.zero_()
        method.transformer.output.bias.copy_(torch.tensor(log_odds))


def many(method: FedLGT, backbone: Backbone, num_images: int = 2000) -> Batch:
    batch = whole(images(method, backbone))
    rows = torch.arange(num_images) % len(batch)
    return Batch(batch.patches[rows], batch.pooled[rows], batch.labels[rows])


def visible_of(method: FedLGT, batch: Batch, seed: int = 0) -> Tensor:
    method.draws = torch.Generator().manual_seed(seed)
    return method.visible_labels(batch, method.encode_text())


def test_none_to_three_quarters_of_the_labels_are_visible_evenly(backbone: Backbone) -> None:
    method = moved(backbone)
    decided(method, 3.0, -3.0, 3.0, -3.0, 3.0)
    method.start_round(1)
    batch = many(method, backbone)
    visible = visible_of(method, batch)
    assert torch.equal(visible[visible != UNKNOWN], batch.labels[visible != UNKNOWN])
    # int(0.75 x 5) = 3: of 2,000 images a quarter each has 0, 1, 2, 3; 80 is four standard deviations.
    counts = (visible != UNKNOWN).sum(1).bincount(minlength=6)
    assert ((counts[:4] - 500).abs() < 80).all()
    assert counts[4:].sum() == 0
    # A class is visible in 1.5 of 5 images.
    assert (((visible != UNKNOWN).float().mean(0) - 0.3).abs() < 0.05).all()
    assert torch.equal(visible_of(method, batch), visible)
    assert not torch.equal(visible_of(method, batch, seed=1), visible)


def test_labels_of_which_the_servers_model_is_uncertain_are_masked(backbone: Backbone) -> None:
    method = moved(backbone)
    # Probabilities 0.5, 0.515, 0.525, 0.485 and 0.475.
    decided(method, 0.0, 0.06, 0.1, -0.06, -0.1)
    method.start_round(1)
    decided(method, 5.0, 5.0, 5.0, 5.0, 5.0)
    is_visible = (visible_of(method, many(method, backbone, 200)) != UNKNOWN).any(0)
    assert is_visible.tolist() == [False, False, True, False, True], "the server's model, not the one being trained"
    method.start_round(2)
    assert (visible_of(method, many(method, backbone, 200)) != UNKNOWN).any(0).all()


def test_unknown_labels_are_never_visible(backbone: Backbone) -> None:
    method = moved(backbone)
    batch = batch_of(method, backbone, 24)
    visible = torch.stack([visible_of(method, batch, seed) for seed in range(30)])
    assert (visible[:, batch.labels == UNKNOWN] == UNKNOWN).all()
    assert (visible[:, batch.labels != UNKNOWN] != UNKNOWN).any()


def test_steps_of_adam_are_as_large_as_the_rate(backbone: Backbone) -> None:
    method = build(CONFIG, backbone)
    start = get_state(method)
    training = replace(TRAINING, batch_size=24, weight_decay=0.0)
    train_rounds(method, images(method, backbone), rounds=1, learning_rate=1e-3, training=training)
    step = (get_state(method)["transformer.output.weight"] - start["transformer.output.weight"]).abs()
    assert step.median().item() == pytest.approx(1e-3, rel=1e-2)


def test_trained_parameters_at_vit_b_16() -> None:
    found = trained_at_b16(FedLGTConfig())
    layer = 3 * 512 * 512 + 3 * 512 + 3 * (512 * 512 + 512) + 4 * 512
    assert sum(found.values()) == 2 * 512 + 3 * layer + 20 * 513 == 4_745_236


def test_wrong_options_are_named(backbone: Backbone) -> None:
    with pytest.raises(InputError, match="--num-layers must be positive, got 0"):
        build(FedLGTConfig(num_layers=0), backbone)
