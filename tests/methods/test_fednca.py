"""FedNCA-ML: the simplex, scores and losses by plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from b16 import trained_at_b16
from contract import build, images
from plain_attention import attend_plainly
from torch import Tensor

from fedmpt.methods.fednca import FedNCA, FedNCAConfig, rejection, simplex
from fedmpt.state import get_state, set_state
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, Backbone, Batch, InputError

CONFIG = FedNCAConfig(rejection_weight=0.7, contrast_weight=0.4)


def moved(backbone: Backbone) -> FedNCA:
    """A method none of whose tensors is as it starts."""
    method, draw = build(CONFIG, backbone), torch.Generator().manual_seed(1)
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in get_state(method).items()
    }
    set_state(method, state)
    return method


def batch_of(method: FedNCA, backbone: Backbone) -> Batch:
    """Four images, every fourth label unknown."""
    batch = images(method, backbone).batch(torch.arange(4))
    labels = batch.labels.flatten().clone()
    labels[::4] = UNKNOWN
    return replace(batch, labels=labels.view_as(batch.labels))


def plain_features(method: FedNCA, batch: Batch) -> Tensor:
    return torch.stack([attend_plainly(method.attention, method.corners, x, x) for x in batch.patches])


@pytest.mark.parametrize("num_classes", [2, 5, 8])
def test_corners_are_as_far_apart_as_can_be(num_classes: int) -> None:
    corners = simplex(num_classes, 8)
    expected = torch.full((num_classes,) * 2, -1 / (num_classes - 1)).fill_diagonal_(1)
    torch.testing.assert_close(corners @ corners.T, expected)
    assert corners.shape == (num_classes, 8)
    assert not corners[:, num_classes:].any()


def test_a_class_scores_its_own_feature_against_its_own_corner(backbone: Backbone) -> None:
    method = moved(backbone)
    batch = batch_of(method, backbone)
    features = plain_features(method, batch)
    expected = torch.empty(batch.labels.shape)
    for image, c in torch.cartesian_prod(torch.arange(4), torch.arange(5)).tolist():
        expected[image, c] = method.scale * method.corners[c] @ features[image, c] + method.bias[c]
    torch.testing.assert_close(method(batch), expected.sigmoid(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weighed", [False, True])
def test_loss_by_hand(backbone: Backbone, weighed: bool) -> None:
    method = moved(backbone)
    batch = batch_of(method, backbone)
    weights = torch.ones(batch.labels.shape)
    if weighed:
        weights = 0.5 + torch.rand(batch.labels.shape, generator=torch.Generator().manual_seed(0))
    features = plain_features(method, batch).detach().double()
    corners, scale, bias = (tensor.detach().double() for tensor in (method.corners, method.scale, method.bias))
    entropy = contrast = 0.0
    rejected = []
    for image, c in torch.cartesian_prod(torch.arange(4), torch.arange(5)).tolist():
        label, weight, feature = batch.labels[image, c], weights[image, c].item(), features[image, c]
        logits = [(scale * corner @ feature + b).item() for corner, b in zip(corners, bias, strict=True)]
        found = 1 / (1 + math.exp(-logits[c]))
        if label == PRESENT:
            cosines = [(corner @ feature / feature.norm()).item() / 0.07 for corner in corners]
            entropy -= weight * math.log(found)
            contrast -= weight * (cosines[c] - math.log(sum(map(math.exp, cosines))))
        elif label == ABSENT:
            entropy -= weight * math.log(1 - found)
            rejected.append((max(logits), weight))
    num_present = int((batch.labels == PRESENT).sum())
    assert 0 < num_present < len(rejected)
    highest = sorted(rejected, reverse=True)[:num_present]
    rejection = sum(weight * max(0, 1 / (1 + math.exp(-logit)) - 0.3) for logit, weight in highest)
    assert rejection > 0.1
    expected = (entropy + 0.7 * rejection + 0.4 * contrast) / 4
    found = method.loss(replace(batch, weights=weights if weighed else None)).item()
    assert found == pytest.approx(expected, rel=1e-4)


def odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # Highest probabilities of the three features are 0.9, 0.8 and 0.2.
        ([ABSENT, ABSENT, PRESENT], 0.6),
        ([PRESENT, ABSENT, ABSENT], 0.5),
        ([PRESENT, PRESENT, ABSENT], 0.0),
        ([UNKNOWN, PRESENT, ABSENT], 0.0),
        ([ABSENT, PRESENT, PRESENT], 0.6),
        ([ABSENT, ABSENT, ABSENT], 0.0),
        ([PRESENT, PRESENT, PRESENT], 0.0),
    ],
)
def test_as_many_features_of_absent_classes_count_as_labels_are_present(labels: list[int], expected: float) -> None:
    logits = torch.tensor([[[odds(0.1), odds(0.9), -5.0], [odds(0.8), -5.0, -5.0], [-5.0, -5.0, odds(0.2)]]])
    found = rejection(logits, torch.tensor([labels], dtype=torch.int8), torch.ones(1, 3))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_the_simplex_needs_a_dimension_for_each_class(backbone: Backbone) -> None:
    width = backbone.text_model.config.projection_dim
    names = [f"thing {index}" for index in range(width + 1)]
    with pytest.raises(
        InputError, match=rf"for each of {width + 1} classes, and the model's features have {width}; take"
    ):
        CONFIG.build(backbone, names, generator=torch.Generator())
    CONFIG.build(backbone, names[1:], generator=torch.Generator())


def test_trained_parameters_at_vit_b_16() -> None:
    found = trained_at_b16(FedNCAConfig())
    attention = {name: size for name, size in found.items() if name.startswith("attention.")}
    assert sum(attention.values()) == 4 * (512 * 512 + 512)
    assert found.items() - attention.items() == {("scale", 1), ("bias", 20)}


@pytest.mark.parametrize("option", ["rejection_weight", "contrast_weight"])
def test_wrong_options_are_named(backbone: Backbone, option: str) -> None:
    options: dict[str, Any] = {option: -1.0}
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} must not be negative, got -1.0"):
        build(replace(CONFIG, **options), backbone)
