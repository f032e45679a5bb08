"""Soft ties worked out one image and one pair of classes at a time, and ties to work them out with."""

from __future__ import annotations

import math

import torch

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.conditions.labels.ties import Ties

EPSILON = 1e-6


def log_odds(value: float) -> float:
    inside = min(max(value, EPSILON), 1 - EPSILON)
    return math.log(inside / (1 - inside))


def by_hand(row: list[float], ties: Ties, strength: float) -> list[float]:
    """The probabilities of one image, by the equation as it stands."""
    prior, conditional = ties.prior.tolist(), ties.conditional.tolist()
    moved = []
    for b, q in enumerate(row):
        company = sum(
            max(0.0, log_odds(conditional[a][b]) - log_odds(prior[b])) * row[a] for a in range(len(row)) if a != b
        )
        moved.append(1 / (1 + math.exp(-(log_odds(q) - strength * (1 - q) * company))))
    return moved


def some_ties(num_classes: int = 6) -> Ties:
    """Of 400 images in which classes of even numbers come together, and those of odd numbers too."""
    generator = torch.Generator().manual_seed(1)
    group = torch.randint(2, (400, 1), generator=generator)
    likely = torch.where(torch.arange(num_classes) % 2 == group, 0.6, 0.1)
    return Ties.of(count_labels((torch.rand(likely.shape, generator=generator) < likely).to(torch.int8)))
