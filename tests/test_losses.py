"""The asymmetric loss, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from fedmpt.losses import asymmetric_loss


def test_by_hand() -> None:
    probabilities = torch.tensor([[0.8, 0.3, 0.6]])
    labels = torch.tensor([[1, 0, -1]], dtype=torch.int8)
    positive = -(0.2**1) * math.log(0.8)
    negative = -(0.25**2) * math.log(0.75)
    assert asymmetric_loss(probabilities, labels).item() == pytest.approx(positive + negative, rel=1e-6)


def test_is_cross_entropy_without_focus_and_margin() -> None:
    probabilities = torch.rand(8, 5, generator=torch.Generator().manual_seed(0))
    labels = (probabilities > 0.4).to(torch.int8)
    ours = asymmetric_loss(probabilities, labels, gamma_positive=0, gamma_negative=0, margin=0)
    theirs = torch.nn.functional.binary_cross_entropy(probabilities, labels.float(), reduction="sum") / 8
    torch.testing.assert_close(ours, theirs)


def test_unknown_labels_get_no_gradient_and_easy_negatives_none() -> None:
    probabilities = torch.tensor([[0.5, 0.04, 0.5]], requires_grad=True)
    asymmetric_loss(probabilities, torch.tensor([[-1, 0, 0]], dtype=torch.int8)).backward()
    assert probabilities.grad is not None
    assert probabilities.grad[0, :2].tolist() == [0, 0]
    # The focal weight (0.45^2) is a constant: only the logarithm has a gradient.
    assert probabilities.grad[0, 2].item() == pytest.approx(0.45**2 / 0.55, rel=1e-6)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("label", [0, 1])
def test_is_finite_at_the_ends(probability: float, label: int) -> None:
    probabilities = torch.full((1, 1), probability, requires_grad=True)
    loss = asymmetric_loss(probabilities, torch.full((1, 1), label, dtype=torch.int8))
    loss.backward()
    assert loss.isfinite()
    assert probabilities.grad is not None
    assert probabilities.grad.isfinite().all()


def test_the_hardest_positives_keep_their_gradient() -> None:
    """Shares of a softmax at CLIP's scale are often below 1e-7."""
    logits = torch.tensor([[0.0, 40.0]], requires_grad=True)
    asymmetric_loss(logits.softmax(-1), torch.tensor([[1, -1]], dtype=torch.int8)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].item() == pytest.approx(-1, rel=1e-3)
