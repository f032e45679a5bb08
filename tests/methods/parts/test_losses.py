"""Losses worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fedmpt.methods.parts.losses import asymmetric_loss, focal_margin_loss, multi_matching_loss


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


@pytest.mark.parametrize("loss", [asymmetric_loss, focal_margin_loss])
def test_an_image_of_weight_three_counts_as_three(loss: Callable[..., torch.Tensor]) -> None:
    probabilities = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(-1, 2, (4, 5), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    times = torch.tensor([3, 1, 2, 4])
    weights = (times / times.float().mean())[:, None].expand(4, 5)
    repeated = [table.repeat_interleave(times, 0) for table in (probabilities, labels)]
    torch.testing.assert_close(loss(probabilities, labels, weights), loss(*repeated))
    assert not torch.isclose(loss(probabilities, labels), loss(*repeated), rtol=1e-3)


@pytest.mark.parametrize("loss", [asymmetric_loss, focal_margin_loss])
def test_each_label_counts_by_its_own_weight(loss: Callable[..., torch.Tensor]) -> None:
    probabilities, weights = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0], [-1, 1], [0, 0]], dtype=torch.int8)
    entries = [
        weights[image, label] * loss(probabilities[image, label].view(1, 1), labels[image, label].view(1, 1))
        for image in range(3)
        for label in range(2)
    ]
    torch.testing.assert_close(loss(probabilities, labels, weights), sum(entries) / 3)


def plain_matching(logits: torch.Tensor, labels: torch.Tensor) -> float:
    known = [(b, c) for b, row in enumerate(labels.tolist()) for c, label in enumerate(row) if label != -1]
    total = sum(math.exp(logits[pair].item()) for pair in known)
    present = [pair for pair in known if labels[pair] == 1]
    return -sum(math.log(math.exp(logits[pair].item()) / total) for pair in present) / len(present)


def test_matching_contrasts_every_pair_that_matches_with_all_known_pairs_of_the_batch() -> None:
    logits = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0, -1], [0, 0, 0], [1, 1, 0], [-1, -1, -1]], dtype=torch.int8)
    assert multi_matching_loss(logits, labels).item() == pytest.approx(plain_matching(logits, labels), rel=1e-5)


def test_matches_count_by_their_weights() -> None:
    logits, labels = torch.tensor([[2.0, 1.0], [0.0, -1.0]]), torch.tensor([[1, 0], [0, 1]], dtype=torch.int8)
    total = sum(math.exp(value) for value in (2, 1, 0, -1))
    expected = -(3 * math.log(math.exp(2) / total) + 0.5 * math.log(math.exp(-1) / total)) / 2
    found = multi_matching_loss(logits, labels, torch.tensor([[3.0, 100.0], [100.0, 0.5]]))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_matching_by_hand() -> None:
    labels = torch.tensor([[1, -1], [0, -1]], dtype=torch.int8)
    loss = multi_matching_loss(torch.tensor([[math.log(3.0), 50.0], [0.0, -50.0]]), labels)
    assert loss.item() == pytest.approx(-math.log(3 / 4), rel=1e-6)


def test_pairs_of_unknown_label_do_not_match_and_are_no_contrast() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.tensor([[1, 0, -1, 0], [-1] * 4, [0, 1, 0, -1]], dtype=torch.int8)
    multi_matching_loss(logits, labels).backward()
    assert logits.grad is not None
    assert (logits.grad[labels == -1] == 0).all()
    assert (logits.grad[labels != -1] != 0).all()


@pytest.mark.parametrize("label", [0, -1])
def test_matching_without_a_match_costs_nothing_and_can_be_differentiated(label: int) -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = multi_matching_loss(logits, torch.full((2, 3), label, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_matching_is_finite_for_logits_far_apart() -> None:
    logits = torch.tensor([[1e4, -1e4], [0.0, 3e4]], requires_grad=True)
    loss = multi_matching_loss(logits, torch.tensor([[1, 1], [0, 0]], dtype=torch.int8))
    loss.backward()
    assert loss.item() == pytest.approx(3e4, rel=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
