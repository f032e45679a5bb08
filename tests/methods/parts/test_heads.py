"""CSRA against a plain loop, and the standardisation that makes probabilities of its logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedmpt.methods.parts.heads import SigmoidCalibration, csra_logits, scaled_log_odds, standardised


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_csra(patches: Tensor, text: Tensor) -> float:
    """One image, one class: 5 times the mean of 20 cosines, weighed by their own softmax over the patches."""
    similarity = [20 * float(patch @ text) / float(patch.norm() * text.norm()) for patch in patches]
    total = sum(math.exp(value) for value in similarity)
    return 5 * sum(math.exp(value) / total * value for value in similarity)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_csra_logits_equal_a_plain_loop(scale: float) -> None:
    patches, text = features(3, 7, 6) * scale, features(4, 6, seed=1) / scale
    expected = [[plain_csra(image, name) for name in text] for image in patches]
    torch.testing.assert_close(csra_logits(patches, text), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_csra_reads_the_patch_that_looks_most_like_the_class() -> None:
    text = torch.eye(2)
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    logits = csra_logits(patches, text)[0]
    # Of cosine 1 once and twice: both close to 100, where a mean over patches would say 33 and 67.
    assert (logits > 99.9).all()


@pytest.mark.parametrize("num_classes", [2, 3, 80])
def test_standardised_logits_by_hand(num_classes: int) -> None:
    logits = 20 + 3 * features(5, num_classes)
    for row, found in zip(logits.tolist(), standardised(logits).tolist(), strict=True):
        mean = sum(row) / num_classes
        spread = math.sqrt(sum((value - mean) ** 2 for value in row) / num_classes)
        assert found == pytest.approx([(value - mean) / (1 + spread) for value in row], abs=1e-4)


def test_standardising_two_classes_keeps_the_order_of_images() -> None:
    """A plain z-score would be +1 and -1 for every image."""
    gaps = torch.tensor([-6.0, -2.0, -0.1, 0.0, 0.1, 1.0, 5.0])
    found = standardised(20 + torch.stack([gaps, torch.zeros_like(gaps)], dim=1))
    assert (found[:, 0].diff() > 0.01).all()


def test_standardising_does_not_see_a_shift() -> None:
    logits = features(4, 6)
    torch.testing.assert_close(standardised(logits + 18), standardised(logits), atol=1e-5, rtol=1e-4)


def test_equal_logits_have_a_finite_gradient() -> None:
    logits = torch.full((2, 3), 18.0, requires_grad=True)
    standardised(logits).pow(2).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_probabilities_start_in_the_middle_and_have_gradient_where_bare_logits_are_stuck() -> None:
    head, logits = SigmoidCalibration(), (20 + features(16, 5)).requires_grad_()
    assert (logits.sigmoid() == 1).any()
    probabilities = head(logits)
    assert 0.3 < probabilities.mean() < 0.7
    probabilities[:, 0].sum().backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0].abs() > 1e-3).all()


def test_scale_and_bias_are_trained() -> None:
    head, logits = SigmoidCalibration(), features(3, 4)
    assert {name: tensor.item() for name, tensor in head.state_dict().items()} == {"scale": 1.0, "bias": 0.0}
    head.load_state_dict({"scale": torch.tensor(2.0), "bias": torch.tensor(-1.0)})
    torch.testing.assert_close(head(logits), 1 / (1 + torch.exp(1 - 2 * standardised(logits))))


def test_log_odds_that_are_log_odds_already_are_not_standardised() -> None:
    head, log_odds = SigmoidCalibration(), features(3, 4)
    head.load_state_dict({"scale": torch.tensor(2.0), "bias": torch.tensor(-1.0)})
    torch.testing.assert_close(head.scaled(log_odds), 1 / (1 + torch.exp(1 - 2 * log_odds)))


def test_log_odds_are_scaled_and_shifted_class_by_class() -> None:
    """Odds of 0.8 are 4 to 1: squared and halved, 8 to 1. Odds of 0.25 are 1 to 3: tripled, even."""
    scale, bias = torch.tensor([2.0, 1.0]), torch.tensor([-math.log(2), math.log(3)])
    found = scaled_log_odds(torch.tensor([[0.8, 0.25]]), scale, bias)
    torch.testing.assert_close(found, torch.tensor([[8 / 9, 0.5]]))


def test_log_odds_of_the_ends_are_finite() -> None:
    probabilities = torch.tensor([[0.0, 1.0]], requires_grad=True)
    found = scaled_log_odds(probabilities, torch.ones(2), torch.zeros(2))
    torch.testing.assert_close(found, torch.tensor([[1e-6, 1 - 1e-6]]))
    found.sum().backward()
    assert probabilities.grad is not None
    assert probabilities.grad.isfinite().all()
