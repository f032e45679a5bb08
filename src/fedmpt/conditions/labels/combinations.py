"""Which combinations of classes a language model is asked to describe: few of the 2^C, and those that occur.

The paper has every combination described; that cannot be done for more than a few classes, and most would be nonsense.
So they are taken from labels, or, without data, drawn evenly [ours]. At most ``budget`` are chosen:

1. singles: all classes if half of the budget (rounded up) holds them, else the most frequent;
2. of the rest, 30% the most frequent pairs, 30% the most surprising, 20% the most frequent triples and 20% the most
   surprising; what rounding down leaves goes to the first. What one kind cannot use goes on to the next and, at the
   end, round once more; what then is left goes to singles that did not fit.

A pair is surprising as `labels.counts.association` has it. A triple is as surprising as the weakest of its
three associations of two classes within the images of the third: then none of its pairs, through a class that they
share, explains why all three occur together. From the chance of 1 in 1,000 on it counts as surprising at all. Counts
with noise are taken for lower by what noise alone exceeds as rarely, or it would make pairs surprising.

Equal ones are taken in the order of their class indices, so the order of clients and of images changes nothing.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int8, Int64
from torch import Tensor

from fedmpt.conditions.labels.counts import (
    LabelCounts,
    Noise,
    association,
    count_labels,
    count_triples,
    noise_margin,
    sum_counts,
)
from fedmpt.seeding import generator as seeded
from fedmpt.types import InputError

SHARES = {"frequent pair": 3, "surprising pair": 3, "frequent triple": 2, "surprising triple": 2}
"""Tenths of what the singles leave."""
DRAWN_TRIPLES = 4
"""Tenths of the same that are triples where combinations are drawn; the rest are pairs."""
SURPRISING = 10.83
"""What G^2 of independent classes exceeds once in `ODDS` times (chi-square, one degree of freedom)."""
ODDS = 1000
MAX_TRIPLES = 20_000
"""Triples that clients are asked to count, those first whose rarest pair is the most frequent."""
MAX_PAIRS = 200_000
"""The most frequent pairs, among which triples are looked for."""

Ranking = list[tuple[int, ...]]
"""Combinations, the best first."""
Noises = Sequence[tuple[Noise, int]]
"""What is in sums, as `noise_margin` takes it: the noise of each client that added some, and what one image changes."""


@dataclass(frozen=True)
class Combination:
    """Class indices in rising order, and why it was chosen.

    ``why`` is "single", "frequent pair", "surprising pair", "frequent triple", "surprising triple", "drawn pair" or
    "drawn triple".
    """

    classes: tuple[int, ...]
    why: str


def combinations_from_clients(
    clients: Sequence[Int8[Tensor, "_ C"]],
    *,
    budget: int,
    min_images: int = 5,
    epsilon: float | None = None,
    max_labels: int = 5,
    generator: np.random.Generator | None = None,
) -> tuple[Combination, ...]:
    """Combinations that occur in the labels of ``clients``, singles first, then pairs, then triples.

    Clients answer two questions with counts (`labels.counts`, which says what the server sees); their labels stay
    with them. Pairs and triples in fewer than ``min_images`` images of all clients together are never chosen: they
    might point at single people. Classes are: that a class is in the list says nothing of who has images of it. Where
    not all singles fit, those that are chosen have at least ``min_images`` too.

    With ``epsilon``, half of it goes to each question, or all to the first if ``max_labels`` is 2 and so leaves no
    triples. Everything is then chosen by the noisy sums, and ``min_images`` must be exceeded by what noise alone would
    reach about once among all sums. So about one pair and one triple that are rarer may be chosen: noise protects them.

    Args:
        clients: labels, one tensor a client.
        budget: combinations at most.
        min_images: images that a pair or triple is in at least.
        epsilon: of differential privacy for each image at each client, in total; None for exact counts.
        max_labels: with ``epsilon``, classes of an image that are counted at most.
        generator: noise for tests; else it is the operating system's.

    Raises:
        InputError: if there is no client or no class, classes differ in number, or a value cannot be used.
    """
    _check_positive(budget=budget, min_images=min_images)
    if not clients:
        raise InputError("no clients, so no labels to take combinations from; give some, or draw them from the classes")
    questions = 2 if epsilon is None or max_labels > 2 else 1
    noise = None if epsilon is None else Noise(epsilon / questions, max_labels, generator)
    counts = sum_counts(count_labels(labels, noise=noise) for labels in clients)
    noises = [(noise, noise.labels_change)] * len(clients) if noise else []
    at_least = _least(min_images, noises, counts.pairs.numel() // 2)
    pairs = _frequent_pairs(counts, at_least)
    rankings = _rank_pairs(counts, pairs, noises, top=budget)
    triples = _candidate_triples(pairs)
    if len(triples) and questions == 2:
        seen = torch.stack([count_triples(labels, triples, noise=noise) for labels in clients]).sum(0)
        noises = [(noise, noise.triples_change)] * len(clients) if noise else []
        often = seen >= _least(min_images, noises, len(triples))
        rankings |= _rank_triples(counts, triples[often], seen[often], noises, top=budget)
    return _choose(counts, rankings, at_least, budget)


def combinations_from_counts(
    parts: Iterable[LabelCounts], *, budget: int, min_images: int = 5, noises: Sequence[Noise] = ()
) -> tuple[Combination, ...]:
    """The same where clients have sent their counts and cannot be asked again: singles and pairs.

    Args:
        parts: one a client.
        budget: combinations at most.
        min_images: images that a pair is in at least.
        noises: of those clients that added noise.

    Raises:
        InputError: if there are no counts or no class, classes differ in number, or a value cannot be used.
    """
    _check_positive(budget=budget, min_images=min_images)
    counts = sum_counts(parts)
    changes = [(each, each.labels_change) for each in noises]
    at_least = _least(min_images, changes, counts.pairs.numel() // 2)
    rankings = _rank_pairs(counts, _frequent_pairs(counts, at_least), changes, top=budget)
    return _choose(counts, rankings, at_least, budget)


def combinations_from_classes(num_classes: int, *, budget: int, seed: int = 0) -> tuple[Combination, ...]:
    """Combinations without data: singles, then pairs and triples in which all classes are about equally often.

    Many will be of things that are never seen together; the language model is told to write nothing for those. Where
    half of the budget does not hold all singles, they are drawn too.

    Raises:
        InputError: if there is no class or no budget.
    """
    _check_positive(num_classes=num_classes, budget=budget)
    random = seeded(seed, "combinations")
    singles = torch.randperm(num_classes, generator=random).tolist()
    alone = singles if num_classes <= _half(budget) else singles[: _half(budget)]
    left, possible_pairs, possible_triples = budget - len(alone), math.comb(num_classes, 2), math.comb(num_classes, 3)
    num_pairs = min(possible_pairs, left - min(possible_triples, left * DRAWN_TRIPLES // 10))
    num_triples = min(possible_triples, left - num_pairs)
    uses = torch.zeros(num_classes, dtype=torch.int64)
    found = [Combination((index,), "single") for index in sorted(alone)]
    for why, size, wanted in (("drawn pair", 2, num_pairs), ("drawn triple", 3, num_triples)):
        found += [Combination(classes, why) for classes in _draw(size, wanted, uses, random)]
    return tuple(found)


def coverage(combinations: Iterable[Combination], num_classes: int) -> int:
    """How many of the classes are in some combination."""
    found = {index for combination in combinations for index in combination.classes}
    assert found <= set(range(num_classes))
    return len(found)


def in_words(combinations: Sequence[Combination], num_classes: int) -> str:
    """What was chosen: "20 singles, 9 frequent pairs, 1 surprising pair, in which 20 of 20 classes are"."""
    kinds = Counter(combination.why for combination in combinations)
    numbers = ", ".join(f"{number} {why}{'' if number == 1 else 's'}" for why, number in kinds.items())
    return f"{numbers or 'none'}, in which {coverage(combinations, num_classes)} of {num_classes} classes are"


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise InputError(f"{name} is {value}; give at least 1")


def _half(budget: int) -> int:
    return (budget + 1) // 2


def _least(min_images: int, noises: Noises, num_counts: int) -> int:
    """What a sum of counts has to reach."""
    return min_images + math.ceil(noise_margin(noises, num_counts))


def _surely(sums: Int64[Tensor, "n"], noises: Noises) -> Int64[Tensor, "n"]:
    """Sums without what may be noise: noise makes each too high once in `ODDS` times at most."""
    return sums - math.ceil(noise_margin(noises, ODDS))


def _frequent_pairs(counts: LabelCounts, at_least: int) -> Int64[Tensor, "n 2"]:
    """Pairs in that many images, the most frequent first."""
    pairs = torch.triu(counts.pairs >= at_least, diagonal=1).nonzero()
    return pairs[torch.sort(_of_pairs(counts, pairs), descending=True, stable=True).indices]


def _of_pairs(counts: LabelCounts, pairs: Int64[Tensor, "n 2"]) -> Int64[Tensor, "n"]:
    return counts.pairs[pairs[:, 0], pairs[:, 1]]


def _rank_pairs(counts: LabelCounts, pairs: Int64[Tensor, "n 2"], noises: Noises, *, top: int) -> dict[str, Ranking]:
    both, singles = _surely(_of_pairs(counts, pairs), noises), counts.singles
    total = torch.full_like(both, counts.num_images)
    surprise = association(both, singles[pairs[:, 0]], singles[pairs[:, 1]], total)
    return {"frequent pair": _ranking(pairs[:top]), "surprising pair": _surprising(pairs, surprise, top)}


def _rank_triples(
    counts: LabelCounts, triples: Int64[Tensor, "n 3"], seen: Int64[Tensor, "n"], noises: Noises, *, top: int
) -> dict[str, Ranking]:
    within, surely = [], _surely(seen, noises)
    for a, b, c in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):  # a and b, in the images of c
        first, second = _of_pairs(counts, triples[:, [a, c]]), _of_pairs(counts, triples[:, [b, c]])
        within.append(association(surely, first, second, counts.singles[triples[:, c]]))
    by_number = torch.sort(seen, descending=True, stable=True).indices[:top]
    surprise = torch.stack(within).amin(0)
    return {"frequent triple": _ranking(triples[by_number]), "surprising triple": _surprising(triples, surprise, top)}


def _surprising(found: Int64[Tensor, "n k"], surprise: Float64[Tensor, "n"], top: int) -> Ranking:
    order = torch.sort(surprise, descending=True, stable=True).indices[:top]
    return _ranking(found[order[surprise[order] > SURPRISING]])


def _ranking(found: Int64[Tensor, "n k"]) -> Ranking:
    return [tuple(classes) for classes in found.tolist()]


def _candidate_triples(pairs: Int64[Tensor, "p 2"]) -> Int64[Tensor, "n 3"]:
    """Triples all of whose pairs are in ``pairs``, in lexicographic order: no other can be as frequent (Apriori).

    Pairs come the most frequent first, so triples are found in the order of their rarest pair, which bounds their own
    number, and the first are enough where there are too many.
    """
    found = sorted(itertools.islice(_triples_in_order(pairs[:MAX_PAIRS].tolist()), MAX_TRIPLES))
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3)


def _triples_in_order(pairs: Iterable[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    beside: dict[int, set[int]] = {}
    for first, second in pairs:
        for third in sorted(beside.setdefault(first, set()) & beside.setdefault(second, set())):
            yield tuple(sorted((first, second, third)))
        beside[first].add(second)
        beside[second].add(first)


def _choose(
    counts: LabelCounts, rankings: Mapping[str, Ranking], at_least: int, budget: int
) -> tuple[Combination, ...]:
    """Fill the budget."""
    by_number = torch.sort(counts.singles, descending=True, stable=True).indices
    enough = by_number[counts.singles[by_number] >= at_least].tolist()
    fit = len(by_number) <= _half(budget)
    alone = sorted(by_number.tolist()) if fit else enough[: _half(budget)]
    left = budget - len(alone)
    quotas = {why: left * share // 10 for why, share in SHARES.items()}
    carried = left - sum(quotas.values())
    chosen: dict[tuple[int, ...], str] = {}
    for why, quota in (*quotas.items(), *dict.fromkeys(SHARES, 0).items()):
        new = [classes for classes in rankings.get(why, []) if classes not in chosen][: quota + carried]
        chosen |= dict.fromkeys(new, why)
        carried += quota - len(new)
    if not fit:
        alone = enough[: budget - len(chosen)]
    found = [Combination((index,), "single") for index in sorted(alone)]
    return (*found, *(Combination(classes, kind) for why in SHARES for classes, kind in chosen.items() if kind == why))


def _draw(size: int, wanted: int, uses: Int64[Tensor, "C"], random: torch.Generator) -> Ranking:
    """Different combinations of classes that were used the least so far; counts them in ``uses``."""
    found: dict[tuple[int, ...], None] = {}
    for _ in range(wanted):
        shuffled = torch.randperm(len(uses), generator=random)
        order = shuffled[torch.sort(uses[shuffled], stable=True).indices].tolist()
        tries = (tuple(sorted(classes)) for classes in itertools.combinations(order, size))
        classes = next(classes for classes in tries if classes not in found)
        found[classes] = None
        uses[list(classes)] += 1
    return list(found)
