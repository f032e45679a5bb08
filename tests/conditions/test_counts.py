"""Counts of classes, pairs and triples: right, the same however images are divided, and private as far as is said."""

from __future__ import annotations

import itertools
import math
import operator
from functools import reduce

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from fedmpt.conditions.labels import counts as module
from fedmpt.conditions.labels.counts import (
    MIN_EPSILON,
    LabelCounts,
    Noise,
    association,
    count_labels,
    count_triples,
    draw,
    noise_margin,
)
from fedmpt.types import InputError


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is the same each time."""
    random = np.random.default_rng(0)
    monkeypatch.setattr(module, "uniform", lambda size: 1 - random.random(size))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, seeded: None) -> None:
    """Classes of crowded images are drawn, but numbers have no noise."""
    monkeypatch.setattr(module, "draw", lambda size, rate: np.zeros(size, dtype=np.int64))


def random_labels(num_images: int, num_classes: int, *, share: float, seed: int = 0) -> Tensor:
    """Present with chance ``share``, unknown with 0.2 of the rest."""
    random = np.random.default_rng(seed)
    present, unknown = random.random((2, num_images, num_classes))
    labels = np.where(present < share, 1, np.where(unknown < 0.2, -1, 0))
    return torch.from_numpy(labels.astype(np.int8))


def by_hand(labels: Tensor, size: int) -> dict[tuple[int, ...], int]:
    """How many images have each combination of ``size`` classes."""
    images = [{index for index, value in enumerate(row) if value == 1} for row in labels.tolist()]
    return {
        classes: sum(set(classes) <= image for image in images)
        for classes in itertools.combinations(range(labels.shape[1]), size)
    }


def every_triple(num_classes: int) -> Tensor:
    return torch.tensor(list(itertools.combinations(range(num_classes), 3)), dtype=torch.int64).reshape(-1, 3)


@pytest.mark.parametrize(("num_images", "num_classes", "share"), [(40, 7, 0.4), (40, 7, 1.0), (3, 1, 0.5), (0, 4, 0.5)])
def test_counts_are_those_of_a_count_by_hand(num_images: int, num_classes: int, share: float) -> None:
    labels = random_labels(num_images, num_classes, share=share)
    found = count_labels(labels)
    assert found.num_images == num_images
    assert found.singles.tolist() == list(by_hand(labels, 1).values())
    both = [
        [sum(x != -1 != y for x, y in zip(a, b, strict=True)) for b in labels.T.tolist()] for a in labels.T.tolist()
    ]
    assert found.known.tolist() == both
    assert torch.equal(found.pairs, found.pairs.T)
    assert not found.pairs.diagonal().any()
    assert {(a, b): int(found.pairs[a, b]) for a, b in by_hand(labels, 2)} == by_hand(labels, 2)
    triples = every_triple(num_classes)
    assert count_triples(labels, triples).tolist() == list(by_hand(labels, 3).values())


def test_triples_are_answered_in_the_order_in_which_they_are_asked() -> None:
    labels = random_labels(60, 6, share=0.6)
    asked, expected = torch.tensor([[5, 0, 3], [1, 2, 4], [4, 5, 2]]), by_hand(labels, 3)
    assert count_triples(labels, asked).tolist() == [expected[0, 3, 5], expected[1, 2, 4], expected[2, 4, 5]]


def test_labels_stay_as_they_are() -> None:
    labels = random_labels(30, 8, share=0.9)
    before = labels.clone()
    count_labels(labels, noise=Noise(1, 2))
    count_triples(labels, every_triple(8), noise=Noise(1, 3))
    assert torch.equal(labels, before)


def equal(one: LabelCounts, other: LabelCounts) -> bool:
    same = torch.equal(one.singles, other.singles) and torch.equal(one.pairs, other.pairs)
    return same and one.num_images == other.num_images and torch.equal(one.known, other.known)


def test_the_sum_over_clients_is_the_count_of_all_images_in_any_order() -> None:
    labels = random_labels(50, 9, share=0.3)
    shuffled = labels[torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    parts = [count_labels(part) for part in shuffled.split([20, 0, 29, 1])]
    first = parts[0].pairs.clone()
    assert equal(reduce(operator.add, parts), count_labels(labels))
    assert equal(reduce(operator.add, reversed(parts)), count_labels(labels))
    assert torch.equal(parts[0].pairs, first)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_an_epsilon_that_protects_nothing_or_everything_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError, match=r"epsilon is .*; give a finite number of at least 1e-06, such as 1"):
        Noise(epsilon)


@pytest.mark.parametrize("max_labels", [1, -3])
def test_a_cap_that_leaves_no_pair_or_no_number_is_refused(max_labels: int) -> None:
    with pytest.raises(InputError, match=rf"max_labels is {max_labels}; give 2 or more"):
        Noise(1, max_labels)


def test_the_most_noise_that_can_be_asked_for_can_be_drawn_and_has_a_margin() -> None:
    rate = Noise(MIN_EPSILON, 1000).labels_rate
    drawn = draw(100, rate)
    assert len(set(drawn.tolist())) == 100
    assert (np.abs(drawn) < 2**50).all()
    assert 0 < noise_margin([rate] * 1000, 10**6) < 2**60


def change(one: LabelCounts, other: LabelCounts) -> int:
    """L1 distance of all that is sent; a pair is one number."""
    pairs = torch.triu(one.pairs - other.pairs).abs().sum()
    return int(abs(one.num_images - other.num_images) + (one.singles - other.singles).abs().sum() + pairs)


@pytest.mark.parametrize("max_labels", [2, 3, 5])
def test_one_image_changes_no_more_than_the_noise_is_made_for(silent: None, max_labels: int) -> None:
    noise, triples, changes, changes_3 = Noise(1, max_labels), every_triple(9), [], []
    for seed in range(40):
        labels = random_labels(6, 9, share=seed / 39, seed=seed)
        # What is drawn for the other images must be the same, so only the last, the one that goes, may be crowded.
        labels[:-1, max_labels:] = 0
        changes.append(change(count_labels(labels, noise=noise), count_labels(labels[:-1], noise=noise)))
        both = [count_triples(part, triples, noise=noise) for part in (labels, labels[:-1])]
        changes_3.append(int((both[0] - both[1]).abs().sum()))
    assert max(changes) == 1 / noise.labels_rate == 1 + max_labels + max_labels * (max_labels - 1) // 2
    assert max(changes_3) == math.comb(max_labels, 3)
    assert not changes_3[-1] or noise.triples_rate == 1 / max(changes_3)


def test_each_class_of_a_crowded_image_is_as_likely_to_count(silent: None) -> None:
    labels = torch.zeros(6000, 8, dtype=torch.int8)
    labels[:, 2:] = 1
    labels[::2, 2:5] = 0  # Three classes in every other image, the others have six.
    found = count_labels(labels, noise=Noise(1, 3))
    assert found.singles.sum() == 3 * 6000
    assert found.singles[:2].sum() == 0
    assert scipy.stats.chisquare(found.singles[2:5].numpy()).pvalue > 0.001
    # Drawn without repetition, each pair of six is kept with chance 1/5; of these, both are always in the others.
    assert scipy.stats.binomtest(int(found.pairs[2, 3]), 3000, 1 / 5).pvalue > 0.001
    assert scipy.stats.binomtest(int(found.pairs[5, 6]) - 3000, 3000, 1 / 5).pvalue > 0.001


@pytest.mark.parametrize("rate", [1.0, 0.125, 3.0, 1 / 1600])
def test_noise_is_two_sided_geometric(rate: float) -> None:
    drawn, law = draw(20_000, rate), scipy.stats.dlaplace(rate)
    edges = np.unique(law.ppf(np.linspace(0.02, 0.98, 25)))
    expected = np.diff([0.0, *law.cdf(edges), 1.0]) * len(drawn)
    observed = np.bincount(np.searchsorted(edges, drawn), minlength=len(expected))
    # It is different each time: one failure in ten millions.
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-7


def test_every_number_has_noise_of_its_own_and_a_pair_one(seeded: None) -> None:
    labels, noise = torch.zeros(1000, 40, dtype=torch.int8), Noise(0.5, 4)
    found = count_labels(labels, noise=noise)
    assert torch.equal(found.pairs, found.pairs.T)
    assert not found.pairs.diagonal().any()
    assert found.num_images != 1000
    pairs = found.pairs[tuple(torch.triu_indices(40, 40, 1))].double()
    law = scipy.stats.dlaplace(noise.labels_rate)
    assert pairs.std().item() == pytest.approx(law.std(), rel=0.1)
    assert abs(pairs.mean().item()) < 4 * law.std() / math.sqrt(len(pairs))
    assert found.singles.double().std().item() == pytest.approx(law.std(), rel=0.5)
    triples = count_triples(labels, every_triple(20), noise=noise).double()
    assert triples.std().item() == pytest.approx(scipy.stats.dlaplace(noise.triples_rate).std(), rel=0.1)


def test_with_noise_nothing_is_told_of_unknown_labels() -> None:
    labels = random_labels(30, 6, share=0.3)
    found = count_labels(labels, noise=Noise(1))
    assert (labels == -1).any()
    assert found.known.tolist() == [[found.num_images] * 6] * 6


def test_noise_is_never_the_same() -> None:
    labels = random_labels(20, 12, share=0.3)
    assert len({tuple(count_labels(labels, noise=Noise(0.1)).pairs.flatten().tolist()) for _ in range(2)}) == 2


def test_one_of_many_sums_reaches_the_margin_by_noise_alone(seeded: None) -> None:
    num_counts, num_clients, rate = 4000, 5, Noise(1.0, 5).labels_rate
    margin = noise_margin([rate] * num_clients, num_counts)
    sums = sum(draw(50 * num_counts, rate) for _ in range(num_clients))
    assert 0 < (sums > margin).sum() / 50 <= 1  # Expected among 4,000.
    assert (sums > margin / 2).sum() / 50 > 10


def test_the_margin_grows_with_clients_counts_and_noise_and_is_none_without_noise() -> None:
    usual = noise_margin([1 / 16] * 3, 100)
    assert noise_margin([1 / 16] * 6, 100) > usual > noise_margin([2 / 16] * 3, 100) > 0
    assert noise_margin([1 / 16] * 3, 1000) > usual
    assert noise_margin([1 / 16, 1 / 160], 100) > noise_margin([1 / 160], 100)
    assert noise_margin([], 100) == 0


def test_association_is_scipys_log_likelihood_ratio_with_a_sign() -> None:
    cells = np.random.default_rng(0).integers(1, 60, (50, 2, 2))
    sums = (cells[:, 0, 0], cells[:, 0].sum(1), cells[:, :, 0].sum(1), cells.sum((1, 2)))
    found = association(*map(torch.from_numpy, sums))
    for table, statistic in zip(cells, found.tolist(), strict=True):
        expected = scipy.stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
        assert abs(statistic) == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert (statistic > 0) == (table[0, 0] > expected.expected_freq[0, 0])


def test_association_of_empty_and_noisy_cells_is_finite() -> None:
    rows = [(0, 0, 0, 0), (0, 0, 5, 10), (10, 10, 10, 10), (5, 3, 2, 1), (-4, -2, 7, -3), (3, 3, 3, 100), (0, 5, 5, 10)]
    found = association(*torch.tensor(rows).T)
    assert found.isfinite().all()
    assert found[5] > 0 > found[6]
    assert found[0] == found[1] == found[2] == 0
