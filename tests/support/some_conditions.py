"""FedMPT with three conditions, and parts of predictions as it has them, without a method or images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from synthetic import separable
from torch import Tensor

from fedmpt.backbone import load_backbone
from fedmpt.conditions.scores import ConditionParts
from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.methods.fedmpt import FedMPT, FedMPTConfig
from fedmpt.methods.parts.heads import scaled_log_odds

CLASSES = ("cat", "dog", "the sofa", "cow")
CONDITIONS = ("pose", "light", "place")


def trained_like(folder: Path, **options: object) -> FedMPT:
    """A method whose every tensor has moved away from its start."""
    config = FedMPTConfig(**{"conditions": CONDITIONS, **options})
    method = config.build(load_backbone(str(folder)), CLASSES, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    return method


def images(method: FedMPT, num: int = 60) -> FeatureSet:
    return separable(num, num_classes=len(CLASSES), width=method.tower.joint_width)


def random_parts(
    *,
    num_images: int = 50,
    num: int = 4,
    num_classes: int = 3,
    unknown: float = 0.2,
    calibrated: bool = False,
    least: float = 0.1,
    most: float = 0.5,
) -> ConditionParts:
    """Conditions that know the labels less and less, from ``most`` to ``least``; gate weights are drawn."""
    draw = torch.Generator().manual_seed(3)
    labels = (torch.rand(num_images, num_classes, generator=draw) < 0.4).to(torch.int8)
    noise = torch.rand(num_images, num, num_classes, generator=draw)
    knowledge = torch.linspace(most, least, num)[:, None]
    # On a grid, so that there are ties.
    predictions = ((knowledge * labels[:, None] + (1 - knowledge) * noise) * 32).round() / 32
    labels[torch.rand(num_images, num_classes, generator=draw) < unknown] = -1
    gate = torch.randn(num_images, num, generator=draw).softmax(1)
    names = tuple(f"condition {number}" for number in range(num))
    parts = ConditionParts(names, predictions, gate, labels, torch.eye(num))
    scale, bias = torch.linspace(0.5, 2, num_classes), torch.linspace(-1, 1, num_classes)
    return replace(parts, calibrated=lambda table: scaled_log_odds(table, scale, bias)) if calibrated else parts


def metric(probabilities: Tensor, labels: Tensor) -> dict[str, Any]:
    """As `score_conditions` takes it."""
    return multilabel_scores(probabilities, labels).to_json([str(number) for number in range(labels.shape[1])])
