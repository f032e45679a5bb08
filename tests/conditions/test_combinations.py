"""Chosen combinations: those that occur, never rare ones, never more than the budget, the same for every order."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from fedmpt.conditions.labels import combinations as module
from fedmpt.conditions.labels import counts as counts_module
from fedmpt.conditions.labels.combinations import (
    SURPRISING,
    Combination,
    combinations_from_classes,
    combinations_from_clients,
    combinations_from_counts,
    in_words,
)
from fedmpt.conditions.labels.counts import Noise, count_labels

SIZES = {"single": 1, "frequent pair": 2, "surprising pair": 2, "frequent triple": 3, "surprising triple": 3}


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is the same each time."""
    random = np.random.default_rng(0)
    monkeypatch.setattr(counts_module, "uniform", lambda size: 1 - random.random(size))


def photos(num_images: int, num_classes: int, seed: int = 0) -> Tensor:
    """About three classes an image, the first the most frequent, some only where the one before is."""
    random = np.random.default_rng(seed)
    chance = 3 / np.arange(1, num_classes + 1) / math.log(num_classes + 2)
    labels = random.random((num_images, num_classes)) < chance.clip(max=0.7)
    labels[:, 3::7] &= labels[:, 2::7][:, : labels[:, 3::7].shape[1]]
    return torch.from_numpy(labels.astype(np.int8))


def images_with(clients: Sequence[Tensor], classes: Sequence[int]) -> int:
    return sum(int((labels[:, list(classes)] == 1).all(1).sum()) for labels in clients)


def of_kind(found: Sequence[Combination], why: str) -> list[tuple[int, ...]]:
    return [combination.classes for combination in found if combination.why == why]


def check(found: Sequence[Combination], num_classes: int, budget: int) -> None:
    """What holds however they were chosen."""
    assert len(found) <= budget
    assert len({combination.classes for combination in found}) == len(found)
    for combination in found:
        assert list(combination.classes) == sorted(set(combination.classes))
        assert set(combination.classes) <= set(range(num_classes))
        size = SIZES.get(combination.why) or {"drawn pair": 2, "drawn triple": 3}[combination.why]
        assert len(combination.classes) == size
    sizes = [len(combination.classes) for combination in found]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("num_classes", [1, 2, 5, 20, 500])
@pytest.mark.parametrize("budget", [1, 7, 100])
@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_the_budget_holds_for_any_number_of_classes(num_classes: int, budget: int, epsilon: float | None) -> None:
    clients = [photos(200, num_classes, seed) for seed in range(2)]
    found = combinations_from_clients(clients, budget=budget, epsilon=epsilon)
    check(found, num_classes, budget)
    if num_classes <= (budget + 1) // 2:
        assert of_kind(found, "single") == [(index,) for index in range(num_classes)]
    drawn = combinations_from_classes(num_classes, budget=budget)
    check(drawn, num_classes, budget)
    assert len(drawn) == min(budget, num_classes + math.comb(num_classes, 2) + math.comb(num_classes, 3))


def test_nothing_rare_is_chosen_but_single_classes() -> None:
    clients = [photos(150, 15, seed) for seed in range(3)]
    for min_images in (1, 5, 60):
        found = combinations_from_clients(clients, budget=2000, min_images=min_images)
        together = {combination.classes for combination in found if combination.why != "single"}
        often = {
            classes
            for size in (2, 3)
            for classes in itertools.combinations(range(15), size)
            if images_with(clients, classes) >= min_images
        }
        assert together == often  # All of them, as the budget is large.
        assert len(of_kind(found, "single")) == 15


def test_where_singles_do_not_fit_the_most_frequent_are_taken_if_they_are_not_rare() -> None:
    labels = torch.zeros(100, 30, dtype=torch.int8)
    for index, times in ((7, 50), (20, 80), (3, 50), (11, 4)):
        labels[:times, index] = 1
    found = combinations_from_clients([labels], budget=4)
    assert of_kind(found, "single") == [(3,), (20,)]
    alone = torch.diag(torch.ones(30)).to(torch.int8).repeat(6, 1)[:-5]  # The last five are in five images each.
    found = combinations_from_clients([alone], budget=50, min_images=6)
    assert [combination.classes for combination in found] == [(index,) for index in range(25)]


def test_order_of_clients_and_of_images_changes_nothing() -> None:
    labels = photos(400, 25)
    expected = combinations_from_clients([labels], budget=60)
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    parts = list(shuffled.split([100, 0, 250, 50]))
    assert combinations_from_clients(parts, budget=60) == expected
    assert combinations_from_clients(parts[::-1], budget=60) == expected


def test_equal_ones_are_taken_in_the_order_of_their_classes() -> None:
    labels = torch.ones(10, 8, dtype=torch.int8)
    found = combinations_from_clients([labels], budget=40)
    pairs, triples = of_kind(found, "frequent pair"), of_kind(found, "frequent triple")
    assert pairs == list(itertools.combinations(range(8), 2))[: len(pairs)]
    assert triples == list(itertools.combinations(range(8), 3))[: len(triples)]


def test_shares_are_those_that_are_promised_where_there_is_enough_of_everything() -> None:
    random = np.random.default_rng(0)
    # Twelve scenes of three classes, and each class elsewhere.
    together = (random.random((5000, 12)) < 0.1).repeat(3, 1)
    labels = together | (random.random((5000, 36)) < 0.1)
    found = combinations_from_clients([torch.from_numpy(labels.astype(np.int8))], budget=25 + 25)
    numbers = Counter(combination.why for combination in found)
    assert numbers["single"] == 25
    shares = {"frequent pair": 8, "surprising pair": 7, "frequent triple": 5, "surprising triple": 5}
    assert {why: number for why, number in numbers.items() if why != "single"} == shares


def test_frequent_ones_are_the_most_frequent_and_come_first() -> None:
    labels = photos(2000, 20)
    found = combinations_from_clients([labels], budget=60)
    for why in ("frequent pair", "frequent triple"):
        size, chosen = SIZES[why], of_kind(found, why)
        by_hand = sorted(
            itertools.combinations(range(20), size), key=lambda classes: (-images_with([labels], classes), classes)
        )
        assert len(chosen) > 3
        assert [classes for classes in by_hand if classes not in of_kind(found, f"surprising {why[9:]}")][
            : len(chosen)
        ] == chosen


def statistic(labels: Tensor, first: int, second: int) -> float:
    """Signed G^2 by scipy."""
    a, b = labels[:, first].numpy() == 1, labels[:, second].numpy() == 1
    table = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
    if not (table.sum(0).all() and table.sum(1).all()):
        return 0.0
    found = scipy.stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    return float(found.statistic if table[0, 0] > found.expected_freq[0, 0] else -found.statistic)


def weakest(labels: Tensor, classes: tuple[int, ...]) -> float:
    """Of the associations of two classes within the images of the third."""
    return min(statistic(labels[labels[:, c] == 1], *(k for k in classes if k != c)) for c in classes)


def test_surprising_pairs_are_the_ones_that_scipy_is_surest_of() -> None:
    labels = photos(1500, 14)
    found = combinations_from_clients([labels[:700], labels[700:]], budget=40)
    frequent, chosen = of_kind(found, "frequent pair"), of_kind(found, "surprising pair")
    pairs = [pair for pair in itertools.combinations(range(14), 2) if images_with([labels], pair) >= 5]
    best = sorted((pair for pair in pairs if pair not in frequent), key=lambda pair: -statistic(labels, *pair))
    # The second round may add pairs to the frequent ones that were not there when surprising ones were chosen.
    assert chosen == best[: len(chosen)]
    assert {(2, 3), (9, 10)} <= {*chosen, *frequent}
    assert all(statistic(labels, *pair) > SURPRISING for pair in chosen)


def test_a_triple_is_surprising_only_beyond_what_its_pairs_explain() -> None:
    random = np.random.default_rng(0)
    n = 4000
    scene = random.random(n) < 0.1  # Shows 0, 1 and 2 together; each of them is elsewhere too.
    labels = random.random((n, 7)) < 0.1
    labels[:, :3] |= scene[:, None]
    labels[:, 4] = labels[:, 3] & (random.random(n) < 0.8)  # 3 brings 4 and 3 brings 5: pairs, and nothing beyond.
    labels[:, 5] = labels[:, 3] & (random.random(n) < 0.8)
    tensor = torch.from_numpy(labels.astype(np.int8))
    assert weakest(tensor, (0, 1, 2)) > SURPRISING > weakest(tensor, (3, 4, 5))
    found = combinations_from_clients([tensor], budget=500)
    surprising = of_kind(combinations_from_clients([tensor], budget=19), "surprising triple")
    assert (3, 4, 5) in of_kind(found, "frequent triple")
    assert set(surprising) | set(of_kind(found, "surprising triple")) <= {(0, 1, 2)}
    few = [combination.classes for combination in combinations_from_clients([tensor], budget=14)]
    assert (0, 1, 2) in few


def test_surprise_of_triples_is_the_weakest_of_three_by_scipy() -> None:
    labels = photos(1500, 10)
    triples = torch.tensor(list(itertools.combinations(range(10), 3)))
    seen = torch.tensor([images_with([labels], classes) for classes in triples.tolist()])
    triples, seen = triples[seen >= 5], seen[seen >= 5]
    found = module._surprise_of_triples(count_labels(labels), triples, seen)
    assert found.tolist() == pytest.approx([weakest(labels, tuple(classes)) for classes in triples.tolist()])


def test_triples_are_asked_for_only_if_all_their_pairs_are_frequent_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = photos(300, 12)
    counts = count_labels(labels)
    _, pairs, _ = module._rank_pairs(counts, [], 20, 10)
    allowed = {tuple(pair) for pair in pairs.tolist()}
    expected = [
        classes
        for classes in itertools.combinations(range(12), 3)
        if set(itertools.combinations(classes, 2)) <= allowed
    ]
    assert len(expected) > 5
    assert [tuple(classes) for classes in module._candidate_triples(pairs).tolist()] == expected
    bound = {
        classes: min(int(counts.pairs[a, b]) for a, b in itertools.combinations(classes, 2)) for classes in expected
    }
    monkeypatch.setattr(module, "MAX_TRIPLES", 4)
    kept = [tuple(classes) for classes in module._candidate_triples(pairs).tolist()]
    assert len(kept) == 4
    assert min(bound[classes] for classes in kept) >= max(bound[classes] for classes in expected if classes not in kept)


def test_noise_alone_makes_hardly_any_pair() -> None:
    empty = [torch.zeros(100, 40, dtype=torch.int8) for _ in range(3)]
    found = [combinations_from_clients(empty, budget=400, epsilon=1.0) for _ in range(20)]
    assert all(len(of_kind(each, "single")) == 40 for each in found)
    assert np.mean([len(each) - 40 for each in found]) <= 1


@pytest.mark.parametrize(("num_clients", "epsilon"), [(10, 4.0), (10, 16.0), (1, 1.0)])
def test_noise_alone_makes_hardly_any_pair_or_triple_surprising(num_clients: int, epsilon: float) -> None:
    random = np.random.default_rng(0)
    labels = torch.from_numpy((random.random((20_000, 40)) < np.linspace(0.05, 0.2, 40)).astype(np.int8))
    found = combinations_from_clients(labels.chunk(num_clients), budget=200, epsilon=epsilon)
    assert len(of_kind(found, "frequent pair")) > 50
    # 780 pairs of independent classes, of which noise takes some for more.
    assert len(of_kind(found, "surprising pair")) + len(of_kind(found, "surprising triple")) <= 2


def test_what_is_surprising_enough_is_so_with_noise_too() -> None:
    values = np.random.default_rng(0).random((20_000, 4)) < 0.1
    values[:, 1] |= values[:, 0]
    counts = count_labels(torch.from_numpy(values.astype(np.int8)))
    for rates in ([], [Noise(1.0).labels_rate]):
        assert module._rank_pairs(counts, rates, 5, 5)[2]["surprising pair"] == [(0, 1)]


def test_with_little_noise_the_choice_is_almost_that_without() -> None:
    clients = [photos(20_000, 15, seed) for seed in range(2)]
    plain = {found.classes for found in combinations_from_clients(clients, budget=60)}
    noisy = combinations_from_clients(clients, budget=60, epsilon=500.0)
    assert len(plain & {found.classes for found in noisy}) >= 55


def test_epsilon_is_split_between_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def noted(count: Any) -> Any:
        return lambda *given, noise: asked.append(noise.epsilon) or count(*given, noise=noise)

    monkeypatch.setattr(module, "count_labels", noted(module.count_labels))
    monkeypatch.setattr(module, "count_triples", noted(module.count_triples))
    found = combinations_from_clients([photos(5000, 6, seed) for seed in range(2)], budget=20, epsilon=8.0)
    assert asked == [4.0] * 4
    assert of_kind(found, "frequent triple")


def test_counts_that_were_sent_give_the_singles_and_pairs() -> None:
    clients = [photos(300, 12, seed) for seed in range(3)]
    found = combinations_from_counts([count_labels(labels) for labels in clients], budget=30)
    check(found, 12, 30)
    assert {len(combination.classes) for combination in found} == {1, 2}
    assert set(of_kind(found, "frequent pair")) >= set(
        of_kind(combinations_from_clients(clients, budget=30), "frequent pair")
    )
    noises = [Noise(1.0)]
    careful = combinations_from_counts([count_labels(labels) for labels in clients], budget=2000, noises=noises)
    assert 12 < len(careful) < len(combinations_from_counts(map(count_labels, clients), budget=2000))


def test_drawn_combinations_have_every_class_about_equally_often() -> None:
    for num_classes, budget in ((20, 100), (80, 400), (7, 40)):
        found = combinations_from_classes(num_classes, budget=budget)
        drawn = [combination for combination in found if combination.why != "single"]
        uses = Counter(index for combination in drawn for index in combination.classes)
        assert len(found) == budget
        assert max(uses.values()) - min(uses[index] for index in range(num_classes)) <= 1
        share = len(of_kind(found, "drawn triple")) / len(drawn)
        assert share == pytest.approx(0.4, abs=0.05) or num_classes == 7  # Seven classes make 21 pairs only.


def test_the_seed_alone_decides_what_is_drawn() -> None:
    torch.manual_seed(0)
    first = combinations_from_classes(50, budget=120, seed=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert combinations_from_classes(50, budget=120, seed=3) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert combinations_from_classes(50, budget=120, seed=4) != first


def test_what_was_chosen_is_said_in_words() -> None:
    found = [Combination((0,), "single"), Combination((0, 4), "frequent pair"), Combination((1, 4), "frequent pair")]
    assert in_words(found, 6) == "1 single, 2 frequent pairs, in which 3 of 6 classes are"
    assert in_words([], 6) == "none, in which 0 of 6 classes are"
