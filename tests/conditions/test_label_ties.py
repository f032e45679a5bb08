"""Ties of classes: those of a count by hand, found again where labels are hidden, none where evidence is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts, count_labels
from fedmpt.conditions.labels.ties import MIN_JOINT, Ties


def tied_labels(num_images: int, seed: int = 0) -> Tensor:
    """Five classes: the second comes with the first, the third rather without it, the fourth is on its own, the fifth
    is nowhere."""
    random = np.random.default_rng(seed)
    first = random.random(num_images) < 0.4
    second = random.random(num_images) < np.where(first, 0.7, 0.1)
    third = random.random(num_images) < np.where(first, 0.1, 0.5)
    columns = [first, second, third, random.random(num_images) < 0.2, np.zeros(num_images, dtype=bool)]
    return torch.from_numpy(np.stack(columns, 1).astype(np.int8))


def by_hand(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prior, conditional and lift, image by image; all labels are known."""
    rows = labels.tolist()
    num, classes = len(rows), range(labels.shape[1])
    prior = [sum(row[b] for row in rows) / num for b in classes]
    conditional, lift = torch.ones(len(classes), len(classes)), torch.zeros(len(classes), len(classes))
    for a in classes:
        for b in set(classes) - {a}:
            having = [row[b] for row in rows if row[a]]
            is_tied = sum(having) >= MIN_JOINT
            conditional[a, b] = sum(having) / len(having) if is_tied else prior[b]
            lift[a, b] = conditional[a, b] / prior[b] if is_tied else 0
    return torch.tensor(prior), conditional, lift


def counts_of(num_images: int, singles: list[int], together: int, known: list[int] | None = None) -> LabelCounts:
    """Of two classes; where ``known`` is given, they are never known together."""
    pairs = torch.tensor([[0, together], [together, 0]])
    both = torch.full((2, 2), num_images) if known is None else torch.tensor(known).diag()
    return LabelCounts(num_images, torch.tensor(singles), pairs, both)


@pytest.mark.parametrize("num_images", [4, 40, 400])
def test_ties_are_those_of_a_count_by_hand(num_images: int) -> None:
    labels = tied_labels(num_images)
    ties = Ties.of(count_labels(labels))
    for found, expected in zip((ties.prior, ties.conditional, ties.lift), by_hand(labels), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_the_example_of_the_words_is_right() -> None:
    ties = Ties.of(counts_of(1000, [400, 500], 300))
    assert ties.prior[1] == 0.5
    assert ties.conditional[0, 1] == pytest.approx(0.75)
    assert ties.lift.tolist() == [[0, pytest.approx(1.5)], [pytest.approx(1.5), 0]]


def test_hidden_labels_leave_the_ties_within_sampling_error() -> None:
    labels = tied_labels(40_000)
    everything = Ties.of(count_labels(labels))
    is_hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) < torch.tensor(
        [0.5, 0.7, 0.3, 0, 0.5]
    )
    found = Ties.of(count_labels(labels.masked_fill(is_hidden, -1)))
    torch.testing.assert_close(found.prior, everything.prior, rtol=0, atol=0.015)
    torch.testing.assert_close(found.conditional, everything.conditional, rtol=0, atol=0.03)
    torch.testing.assert_close(found.lift, everything.lift, rtol=0.1, atol=0)
    # Hidden labels that count as absent give other numbers, so the agreement above is no accident.
    absent = Ties.of(count_labels(labels.masked_fill(is_hidden, 0)))
    assert (absent.conditional - everything.conditional).abs().max() > 0.3


def test_classes_that_go_untied_are_so_where_the_same_clients_annotate_both() -> None:
    """A client in four annotates the first two classes, one the third, two nothing of these."""
    labels = tied_labels(40_000)[:, [0, 3, 1]]
    everything = Ties.of(count_labels(labels))
    client = torch.arange(40_000) % 4
    labels[:, :2].masked_fill_((client != 0)[:, None], -1)
    labels[:, 2].masked_fill_(client != 1, -1)
    found = Ties.of(count_labels(labels))
    torch.testing.assert_close(found.prior, everything.prior, rtol=0, atol=0.02)
    assert found.lift[0, 1].item() == pytest.approx(1, abs=0.05)
    assert everything.lift[0, 2] > 1.5
    assert not found.lift[2].any(), "never annotated together"


def test_what_is_seen_together_in_few_images_is_no_tie() -> None:
    ties = Ties.of(counts_of(100, [10, 8], MIN_JOINT - 1))
    assert not ties.lift.any()
    assert ties.conditional[0, 1] == ties.prior[1]
    assert Ties.of(counts_of(100, [10, 8], MIN_JOINT)).lift[0, 1] == pytest.approx(MIN_JOINT * 100 / 80)


@pytest.mark.parametrize(
    ("counts", "prior", "conditional", "lift"),
    [
        pytest.param(counts_of(100, [50, 40], 60), [0.5, 0.4], 0.8, 2.0, id="more than either class"),
        pytest.param(counts_of(100, [90, 80], 10), [0.9, 0.8], 0.7 / 0.9, 0.7 / 0.72, id="less than two classes leave"),
        pytest.param(counts_of(100, [120, 40], 40), [1.0, 0.4], 0.4, 1.0, id="in more images than there are"),
        pytest.param(counts_of(100, [-3, 40], 40), [0.0, 0.4], 0.4, 0.0, id="in a negative number of images"),
        pytest.param(counts_of(100, [20, 40], -7), [0.2, 0.4], 0.4, 0.0, id="a negative number together"),
        pytest.param(counts_of(-2, [-3, 4], 6), [0.0, 1.0], 1.0, 0.0, id="no images but for noise"),
        pytest.param(counts_of(0, [0, 0], 0), [0.0, 0.0], 0.0, 0.0, id="no images"),
        pytest.param(counts_of(100, [0, 40], 0, [0, 90]), [0.0, 40 / 90], 40 / 90, 0.0, id="labels never known"),
    ],
)
def test_numbers_that_cannot_be_become_probabilities(
    counts: LabelCounts, prior: list[float], conditional: float, lift: float
) -> None:
    ties = Ties.of(counts)
    assert ties.prior.tolist() == pytest.approx(prior)
    assert ties.conditional[0, 1].item() == pytest.approx(conditional)
    assert ties.lift[0, 1].item() == pytest.approx(lift)


def test_ties_leave_the_counts_as_they_are() -> None:
    counts = count_labels(tied_labels(50))
    before = counts.pairs.clone()
    Ties.of(counts)
    assert torch.equal(counts.pairs, before)
