"""Soft ties against a loop over images and pairs of classes."""

from __future__ import annotations

import math

import pytest
import torch
from soft_ties_by_hand import by_hand, some_ties
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts
from fedmpt.conditions.labels.ties import Ties
from fedmpt.evaluation.soft_ties import soft_ties


def some_probabilities(num_classes: int = 6) -> Tensor:
    found = torch.rand(40, num_classes, generator=torch.Generator().manual_seed(2))
    found[0], found[1], found[2, 0], found[2, 1] = 0, 1, 0, 1
    return found


@pytest.mark.parametrize("strength", [0.3, 1.0, 5.0])
def test_the_equation(strength: float) -> None:
    ties, found = some_ties(), some_probabilities()
    expected = torch.tensor([by_hand(row, ties, strength) for row in found.tolist()])
    moved = soft_ties(found, ties, strength)
    assert moved.dtype == found.dtype
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-5)
    assert (moved - found).abs().max() > 0.01


def test_without_strength_nothing_changes_not_even_rounding() -> None:
    found = some_probabilities()
    assert soft_ties(found, some_ties(), 0.0) is found


def test_a_class_in_doubt_is_held_back_where_its_company_is_sure_and_a_sure_one_stays() -> None:
    """The words' example: 7 of 10 images with a bicycle show a person, and 4 of 10 of all."""
    pairs = torch.tensor([[0, 70], [70, 0]])
    ties = Ties.of(LabelCounts(1000, torch.tensor([100, 400]), pairs, torch.full((2, 2), 1000)))
    moved = soft_ties(torch.tensor([[0.99, 0.3], [0.01, 0.3], [0.99, 0.9999]]), ties, 1.0)
    weight = math.log(0.7 / 0.3) - math.log(0.4 / 0.6)
    log_odds = math.log(0.3 / 0.7) - 0.7 * weight * 0.99
    assert moved[0, 1].item() == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-6)
    assert moved[0, 1] < 0.2
    assert moved[1, 1] == pytest.approx(0.3, abs=0.01)
    assert moved[2, 1] == pytest.approx(0.9999, abs=1e-4)


def test_classes_that_avoid_each_other_or_are_not_tied_change_nothing() -> None:
    pairs = torch.tensor([[0, 10, 0], [10, 0, 0], [0, 0, 0]])
    ties = Ties.of(LabelCounts(100, torch.tensor([50, 50, 0]), pairs, torch.full((3, 3), 100)))
    found = torch.tensor([[0.9, 0.4, 0.5]])
    torch.testing.assert_close(soft_ties(found, ties, 3.0), found)


def test_ties_are_turned_into_log_odds_once() -> None:
    """Each batch of images is moved by the same table of classes by classes."""
    ties, found = some_ties(), some_probabilities()
    first = soft_ties(found, ties, 1.0)
    ties.conditional.fill_(0.5)
    assert torch.equal(soft_ties(found, ties, 1.0), first)
