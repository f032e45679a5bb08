"""Explanations are the parts of what the method itself computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedmpt.backbone import load_backbone
from fedmpt.inference.explain import explain
from fedmpt.methods.fedmpt import FedMPT, FedMPTConfig
from fedmpt.types import Batch

NAMES = ("cat", "dog", "the sofa")


def trained_like(folder: Path, **options: object) -> FedMPT:
    """A method whose every tensor has moved away from its start."""
    method = FedMPTConfig(**options).build(
        load_backbone(str(folder)), NAMES, generator=torch.Generator().manual_seed(0)
    )
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    return method


def some_images(method: FedMPT) -> Batch:
    noise = torch.Generator().manual_seed(2)
    width = method.tower.joint_width
    patches, pooled = torch.randn(4, 6, width, generator=noise), torch.randn(4, width, generator=noise)
    return Batch(patches, pooled, torch.zeros(4, len(NAMES), dtype=torch.int8))


@pytest.mark.parametrize("csra", [True, False])
@pytest.mark.parametrize("transport", ["sinkhorn", "rows", "mean"])
def test_parts_add_up_to_the_prediction(tiny_clip_folder: Path, transport: str, csra: bool) -> None:
    method = trained_like(tiny_clip_folder, transport=transport, calibration=False, csra=csra)
    batch = some_images(method)
    found = explain(method, batch)
    torch.testing.assert_close(found.looked.sum(2), torch.ones(4, 5, len(NAMES)))
    torch.testing.assert_close(found.evidence.sum(2), found.by_condition)
    torch.testing.assert_close(found.gate.sum(1), torch.ones(4))
    by_hand = (found.gate[..., None] * found.evidence.sum(2)).sum(1)
    if csra:
        by_hand = ((by_hand.logit() + method.csra(batch).detach().logit()) / 2).sigmoid()
    torch.testing.assert_close(by_hand, found.probabilities)
    torch.testing.assert_close(found.probabilities, method(batch).detach())


def test_even_looking_is_one_over_the_patches(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder, transport="mean")
    assert explain(method, some_images(method)).looked.unique().tolist() == pytest.approx([1 / 6])


def test_one_condition_is_trusted_wholly(tiny_clip_folder: Path) -> None:
    method = trained_like(tiny_clip_folder, condition_prompts=False, adapters=False)
    found = explain(method, some_images(method))
    assert found.gate.tolist() == [[1.0]] * 4
    assert found.looked.shape == (4, 1, 6, len(NAMES))
