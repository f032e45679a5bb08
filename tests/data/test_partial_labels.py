from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedmpt.data.partial_labels import annotated_classes, mask_labels
from fedmpt.types import InputError

KINDS = ["masked-negative", "masked-unknown"]


def random_labels(num_images: int = 4000, num_classes: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-1, 2, (num_images, num_classes), generator=generator, dtype=torch.int8)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_masked_negative_drops_that_share_of_the_positives_and_touches_nothing_else(fraction: float) -> None:
    labels = random_labels()
    masked = mask_labels(labels, kind="masked-negative", fraction=fraction, seed=1)
    positive = labels == 1
    assert torch.equal(masked[~positive], labels[~positive])
    assert set(masked[positive].tolist()) == {0, 1}
    assert float((masked[positive] == 0).double().mean()) == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_masked_unknown_hides_that_share_of_positives_and_of_negatives(fraction: float) -> None:
    labels = random_labels()
    masked = mask_labels(labels, kind="masked-unknown", fraction=fraction, seed=1)
    assert (masked[labels == -1] == -1).all()
    for value in (0, 1):
        now = masked[labels == value]
        assert set(now.tolist()) == {-1, value}
        assert float((now == -1).double().mean()) == pytest.approx(fraction, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_fraction_hides_a_larger_one_hides_too(kind: Any) -> None:
    labels = random_labels()
    before = torch.zeros_like(labels, dtype=torch.bool)
    for fraction in (0.1, 0.3, 0.30001, 0.5, 0.9):
        hidden = mask_labels(labels, kind=kind, fraction=fraction, seed=3) != labels
        assert not (before & ~hidden).any()
        assert hidden.sum() >= before.sum()
        before = hidden


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_the_labels_given_stay(kind: Any) -> None:
    labels = random_labels()
    given = labels.clone()
    first, again, other = (mask_labels(labels, kind=kind, fraction=0.5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(labels, given)
    assert first.dtype == torch.int8


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_hidden_does_not_depend_on_the_labels(kind: Any) -> None:
    all_present = torch.ones(50, 8, dtype=torch.int8)
    mixed = torch.where(torch.arange(8) < 4, all_present, 0)
    masked, other = (mask_labels(labels, kind=kind, fraction=0.5, seed=1) for labels in (all_present, mixed))
    assert torch.equal(masked[:, :4], other[:, :4])


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan"), float("inf")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(InputError, match=r"hide is .*; it must be in \[0, 1\)"):
        mask_labels(random_labels(3), kind="masked-unknown", fraction=fraction, seed=1)


@pytest.mark.parametrize("each", [1, 3, 5, 8])
def test_every_class_is_annotated_where_there_are_clients_enough(each: int) -> None:
    num_classes = 8
    for num_clients in (1, 2, 3, 8, 20):
        annotated = annotated_classes(num_clients, num_classes, each=each, seed=2)
        assert (annotated.sum(1) == each).all()
        assert annotated.any(0).sum() == min(num_classes, num_clients * each), "the first clients share none"


def test_a_clients_classes_depend_on_its_number_and_the_seed_alone() -> None:
    torch.manual_seed(4)
    few, many = (annotated_classes(clients, 10, each=3, seed=1) for clients in (6, 30))
    torch.manual_seed(5)
    assert torch.equal(annotated_classes(30, 10, each=3, seed=1), many)
    assert torch.equal(few, many[:6])
    assert not torch.equal(annotated_classes(30, 10, each=3, seed=2), many)
    assert many[4:].unique(dim=0).shape[0] > 15, "clients draw for themselves"
    share = many[4:].double().mean(0)
    assert 0.1 < share.min() < share.max() < 0.55, "no class is preferred"


@pytest.mark.parametrize("each", [0, 9])
def test_more_classes_than_there_are(each: int) -> None:
    with pytest.raises(InputError, match=f"--classes-per-client {each} of 8 classes; give 1 to 8"):
        annotated_classes(3, 8, each=each, seed=0)
