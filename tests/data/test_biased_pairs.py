from __future__ import annotations

import json
from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmpt.conditions.labels.counts import count_labels
from fedmpt.data.pairs import MAX_CANDIDATES, BiasedPair, BiasedPairs, biased_pairs, candidate_pairs, measurable
from fedmpt.evaluation.context_shift import context_shift
from fedmpt.types import InputError


def random_labels(num_images: int, num_classes: int = 7, seed: int = 0) -> Tensor:
    """Classes of different frequencies, some of which come together, some labels unknown."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.rand(num_images, num_classes, generator=generator) < torch.linspace(0.1, 0.6, num_classes)
    shown[:, 1] |= shown[:, 0] & (torch.rand(num_images, generator=generator) < 0.7)
    shown[:, 4] |= shown[:, 2] & (torch.rand(num_images, generator=generator) < 0.8)
    unknown = torch.rand(num_images, num_classes, generator=generator) < 0.1
    return shown.to(torch.int8).masked_fill(unknown, -1)


def oracle(train: Tensor, test: Tensor, *, num_pairs: int, min_joint: int, min_test: int) -> list[tuple[Any, ...]]:
    """Pairs in plain Python, with exact fractions."""
    found = []
    for a, b in combinations(range(train.shape[1]), 2):
        known = [(x, y) for x, y in zip(train[:, a].tolist(), train[:, b].tolist(), strict=True) if -1 not in (x, y)]
        num_a, num_b, both = (sum(x for x, _ in known), sum(y for _, y in known), known.count((1, 1)))
        if both < min_joint:
            continue
        lift = Fraction(both * len(known), num_a * num_b)
        if lift <= 1:
            continue
        tested = list(zip(test[:, a].tolist(), test[:, b].tolist(), strict=True))
        kinds = (tested.count((0, 1)), tested.count((1, 1)), tested.count((1, 0)))
        if min(kinds) < min_test:
            continue
        row = (a, b, lift, num_a, num_b, both, *kinds)
        if num_a > num_b:
            row = (b, a, lift, num_b, num_a, both, *reversed(kinds))
        found.append(((-lift, -both, a, b), row))
    return [row for _, row in sorted(found)][:num_pairs]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_pairs", "min_joint", "min_test"), [(10, 15, 10), (3, 1, 1), (100, 40, 20)])
def test_pairs_are_those_of_plain_python(seed: int, num_pairs: int, min_joint: int, min_test: int) -> None:
    options = {"num_pairs": num_pairs, "min_joint": min_joint, "min_test": min_test}
    train, test = random_labels(400, seed=seed), random_labels(300, seed=seed + 100)
    found = biased_pairs(train, test, **options)
    expected = oracle(train, test, **options)
    assert expected
    assert [tuple(vars(pair).values()) for pair in found.per_pair] == [
        (context, target, float(lift), *counts) for context, target, lift, *counts in expected
    ]
    assert found.num_measurable == len(oracle(train, test, **options | {"num_pairs": 1000}))
    assert found.num_biased == len(oracle(train, test, **options | {"num_pairs": 1000, "min_test": 0}))


def test_counts_are_those_of_context_shift() -> None:
    train, test = random_labels(400), random_labels(300, seed=1)
    found = biased_pairs(train, test)
    scores = context_shift(torch.rand(test.shape, generator=torch.Generator().manual_seed(0)), test, found.pairs)
    for pair, measured in zip(found.per_pair, scores.per_pair, strict=True):
        assert pair.num_exclusive == measured.num_exclusive
        assert pair.num_cooccurring == measured.num_cooccurring
        assert pair.num_context_only == measured.num_context_only
    assert None not in [measured.exclusive for measured in scores.per_pair]


def rows(*counted: tuple[list[int], int]) -> Tensor:
    return torch.tensor([row for row, count in counted for _ in range(count)], dtype=torch.int8)


def test_the_rarer_class_is_the_context() -> None:
    # 20 images with class 1, all but 2 with class 0 too; 60 with class 0.
    labels = rows(([1, 1], 18), ([0, 1], 2), ([1, 0], 42), ([0, 0], 38))
    (pair,) = biased_pairs(labels, labels, min_test=1).per_pair
    assert (pair.context, pair.target) == (1, 0)
    assert pair.lift == pytest.approx((18 / 100) / (0.2 * 0.6))
    assert (pair.num_train_context, pair.num_train_target, pair.num_train_joint) == (20, 60, 18)
    assert (pair.num_exclusive, pair.num_cooccurring, pair.num_context_only) == (42, 18, 2)


def test_equal_lifts_go_by_joint_images_and_then_by_class() -> None:
    # Classes 0 and 1, 2 and 3 are together as often, 4 and 5 with the same lift in twice as many images.
    block = [([1, 1], 20), ([1, 0], 10), ([0, 1], 10)]
    labels = rows(
        *[([*pair, 0, 0, 0, 0], count) for pair, count in block],
        *[([0, 0, *pair, 0, 0], count) for pair, count in block],
        *[([0, 0, 0, 0, *pair], count) for pair, count in [([1, 1], 80), ([1, 0], 10), ([0, 1], 0)]],
        ([0, 0, 0, 0, 0, 1], 10),
    )
    lift = Fraction(20 * len(labels), 30 * 30)
    assert Fraction(80 * len(labels), 90 * 90) < lift
    assert biased_pairs(labels, labels).pairs == ((0, 1), (2, 3), (4, 5))
    same = rows(
        *[([*pair, 0, 0], count) for pair, count in [([1, 1], 20), ([1, 0], 10), ([0, 1], 10)]],
        *[([0, 0, *pair], count) for pair, count in [([1, 1], 45), ([1, 0], 0), ([0, 1], 0)]],
        *[([0, 0, 1, 0], 0), ([0, 0, 0, 0], 5)],
    )
    # 20 / 30² and 45 / 45² are the same.
    assert biased_pairs(same, labels[:, 2:], min_joint=15, min_test=1).pairs == ((2, 3), (0, 1))


def test_pairs_that_cannot_be_measured_are_counted() -> None:
    train = rows(([1, 1], 30), ([1, 0], 10), ([0, 1], 10), ([0, 0], 50))
    test = rows(([1, 1], 30), ([1, 0], 4), ([0, 1], 30))
    found = biased_pairs(train, test, min_test=5)
    assert (found.per_pair, found.num_biased, found.num_measurable) == ((), 1, 0)
    assert biased_pairs(train, test, min_test=4).pairs == ((0, 1),)
    assert biased_pairs(train, test, min_test=4, min_joint=31).num_biased == 0


def test_classes_that_avoid_each_other_or_never_occur_are_no_pair() -> None:
    labels = rows(([1, 1, 0], 20), ([1, 0, 0], 40), ([0, 1, 0], 40), ([0, 0, 0], 5))
    assert biased_pairs(labels, labels).num_biased == 0


def candidates_of(*sites: Tensor) -> BiasedPairs:
    first, *others = map(count_labels, sites)
    counts = sum(others, first)
    return candidate_pairs(counts.singles, counts.pairs, counts.known)


def kinds_of(test: Tensor, found: BiasedPairs) -> Tensor:
    """Images with the target alone, with both, with the context alone."""
    rows = [[(test[:, a] == x) & (test[:, b] == y) for x, y in ((0, 1), (1, 1), (1, 0))] for a, b in found.pairs]
    return torch.tensor([[int(one.sum()) for one in row] for row in rows]).reshape(-1, 3)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_by_counts_are_those_by_labels_where_all_are_known(seed: int) -> None:
    train, test = (random_labels(400, 9, seed=number).clamp(min=0) for number in (seed, seed + 100))
    test[4:, 4] = 0  # Class 4 comes with class 2, and nobody can measure that.
    expected, candidates = biased_pairs(train, test), candidates_of(train[:150], train[150:])
    found, places = measurable(candidates, kinds_of(test, candidates))
    assert found == expected
    assert 0 < found.num_measurable < found.num_biased
    assert [candidates.pairs[place] for place in places] == list(found.pairs)


def test_no_more_pairs_are_candidates_than_sites_count_and_no_more_measured_than_usual() -> None:
    shown = torch.rand(2000, 12, generator=torch.Generator().manual_seed(0)) < 0.3
    labels = (shown & (torch.arange(2000) % 3 > 0)[:, None]).to(torch.int8)
    candidates, expected = candidates_of(labels), biased_pairs(labels, labels)
    assert candidates.num_biased == expected.num_biased > MAX_CANDIDATES == len(candidates.per_pair)
    found, places = measurable(candidates, kinds_of(labels, candidates))
    assert found.per_pair == expected.per_pair
    assert places == list(range(10))
    assert found.num_measurable == MAX_CANDIDATES


def test_classes_that_only_some_sites_label_are_no_pair_for_that() -> None:
    """Each site has independent classes of its own, unknown at the other. Over all images their lift would be 2."""
    own = rows(([1, 1], 20), ([1, 0], 20), ([0, 1], 20), ([0, 0], 20))
    unknown = torch.full_like(own, -1)
    candidates = candidates_of(torch.cat([own, unknown], 1), torch.cat([unknown, own], 1))
    assert candidates == BiasedPairs((), num_biased=0, num_measurable=0)
    tied = rows(([1, 1], 30), ([1, 0], 10), ([0, 1], 20), ([0, 0], 20))
    (pair,) = candidates_of(torch.cat([tied, unknown], 1), torch.cat([unknown, own], 1)).per_pair
    assert pair == BiasedPair(0, 1, 30 * 80 / 40 / 50, 40, 50, 30, 0, 0, 0)


def test_json_names_the_pairs() -> None:
    labels = rows(([1, 1], 18), ([0, 1], 2), ([1, 0], 42), ([0, 0], 38))
    record = json.loads(json.dumps(biased_pairs(labels, labels, min_test=1).to_json(["person", "cup"])))
    assert record["per_pair"]["cup -> person"]["num_train_joint"] == 18
    assert (record["num_biased"], record["num_measurable"]) == (1, 1)


@pytest.mark.parametrize("option", ["num_pairs", "min_joint", "min_test"])
def test_options_below_one_are_named(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(InputError, match=f"{option} is 0; it must be at least 1"):
        biased_pairs(random_labels(20), random_labels(20), **options)


def test_other_classes_in_the_test_set() -> None:
    with pytest.raises(InputError, match="training labels have 7 classes and test labels 6"):
        biased_pairs(random_labels(20), random_labels(20, 6))
