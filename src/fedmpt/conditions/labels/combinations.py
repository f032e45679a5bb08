"""Which combinations of classes a language model is asked to describe: few of the 2^C, and those that occur.

The paper has all described. Here they are taken from labels or, without data, drawn evenly [ours]. Half of the budget
(rounded up) goes to single classes, the rest to `SHARES`; what one kind cannot use goes on to the next, round once
more, and then to singles that did not fit. Equal ones are taken in the order of their class indices, so the order of
clients and of images changes nothing.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from jaxtyping import Int8, Int64
from torch import Tensor

from fedmpt.conditions.labels.counts import LabelCounts, Noise, association, count_labels, count_triples, noise_margin
from fedmpt.seeding import generator

SHARES = {"frequent pair": 3, "surprising pair": 3, "frequent triple": 2, "surprising triple": 2}
"""Tenths of what the singles leave; what rounding down leaves goes to the first."""
DRAWN_TRIPLES = 4
"""Tenths of the same where combinations are drawn; the rest are pairs."""
SURPRISING, ODDS = 10.83, 1000
"""What G^2 of independent classes exceeds once in so many times (chi-square, one degree of freedom)."""
MAX_TRIPLES = 20_000
"""That clients are asked to count, those first whose rarest pair is the most frequent."""
Ranking = list[tuple[int, ...]]
"""Combinations, the best first."""
_descending = partial(torch.argsort, descending=True, stable=True)


@dataclass(frozen=True)
class Combination:
    """Class indices in rising order, and ``why`` it was chosen: "single", "drawn pair" or a key of `SHARES`."""

    classes: tuple[int, ...]
    why: str


def combinations_from_clients(
    clients: Sequence[Int8[Tensor, "_ C"]], *, budget: int, min_images: int = 5, epsilon: float | None = None
) -> tuple[Combination, ...]:
    """Combinations that occur in the labels of ``clients``, singles first, then pairs, then triples.

    Clients answer two questions with counts (`labels.counts`, which says what the server sees). Pairs and triples in
    fewer than ``min_images`` images of all clients together are never chosen: they might point at single people. Where
    not all singles fit, the same holds for them. ``epsilon`` is of differential privacy for each image at each client;
    half of it goes to each question. Everything is then chosen by the noisy sums, and ``min_images`` must be exceeded
    by what noise alone would reach about once among all sums.
    """
    noise = None if epsilon is None else Noise(epsilon / 2)
    counts = reduce(operator.add, (count_labels(labels, noise=noise) for labels in clients))
    rates = [noise.labels_rate] * len(clients) if noise else []
    at_least, pairs, rankings = _rank_pairs(counts, rates, min_images, budget)
    if len(triples := _candidate_triples(pairs)):
        seen = torch.stack([count_triples(labels, triples, noise=noise) for labels in clients]).sum(0)
        rates = [noise.triples_rate] * len(clients) if noise else []
        often = seen >= min_images + noise_margin(rates, len(triples))
        triples, seen = triples[often], seen[often]
        surprise = _surprise_of_triples(counts, triples, seen - noise_margin(rates, ODDS))
        rankings |= _rankings("triple", triples, seen, surprise, budget)
    return _choose(counts.singles, rankings, at_least, budget)


def combinations_from_counts(
    parts: Iterable[LabelCounts], *, budget: int, min_images: int = 5, noises: Sequence[Noise] = ()
) -> tuple[Combination, ...]:
    """The same where clients sent their counts and cannot be asked again; ``noises`` are of those that added some."""
    counts = reduce(operator.add, parts)
    at_least, _, rankings = _rank_pairs(counts, [noise.labels_rate for noise in noises], min_images, budget)
    return _choose(counts.singles, rankings, at_least, budget)


def combinations_from_classes(num_classes: int, *, budget: int, seed: int = 0) -> tuple[Combination, ...]:
    """Combinations without data: singles, then pairs and triples in which all classes are about equally often."""
    random = generator(seed, "combinations")
    alone = torch.randperm(num_classes, generator=random).tolist()[: -(-budget // 2)]
    left, possible_triples = budget - len(alone), math.comb(num_classes, 3)
    num_pairs = min(math.comb(num_classes, 2), left - min(possible_triples, left * DRAWN_TRIPLES // 10))
    num_triples = min(possible_triples, left - num_pairs)
    found = {(index,): "single" for index in sorted(alone)}
    uses = torch.zeros(num_classes, dtype=torch.int64)
    for why, size, wanted in (("drawn pair", 2, num_pairs), ("drawn triple", 3, num_triples)):
        for _ in range(wanted):  # Of classes that were used the least so far.
            shuffled = torch.randperm(num_classes, generator=random)
            order = shuffled[torch.sort(uses[shuffled], stable=True).indices].tolist()
            tries = (tuple(sorted(classes)) for classes in itertools.combinations(order, size))
            classes = next(classes for classes in tries if classes not in found)
            found[classes] = why
            uses[list(classes)] += 1
    return tuple(Combination(classes, why) for classes, why in found.items())


def in_words(combinations: Sequence[Combination], num_classes: int) -> str:
    """What was chosen: "20 singles, 9 frequent pairs, 1 surprising pair, in which 20 of 20 classes are"."""
    kinds = Counter(combination.why for combination in combinations)
    numbers = ", ".join(f"{number} {why}{'' if number == 1 else 's'}" for why, number in kinds.items())
    covered = {index for combination in combinations for index in combination.classes}
    return f"{numbers or 'none'}, in which {len(covered)} of {num_classes} classes are"


def _rank_pairs(
    counts: LabelCounts, rates: Sequence[float], min_images: int, top: int
) -> tuple[int, Int64[Tensor, "n 2"], dict[str, Ranking]]:
    """The images that are enough, the pairs that have them, the most frequent first, and rankings of these."""
    at_least = min_images + noise_margin(rates, counts.pairs.numel() // 2)
    pairs = torch.triu(counts.pairs >= at_least, diagonal=1).nonzero()
    pairs = pairs[_descending(counts.pairs[tuple(pairs.T)])]
    seen, total = counts.pairs[tuple(pairs.T)], torch.full((len(pairs),), counts.num_images)
    first, second = counts.singles[pairs].unbind(1)
    # Noise alone would make pairs surprising, so they count as rarer by what it exceeds once in `ODDS` times.
    surprise = association(seen - noise_margin(rates, ODDS), first, second, total)
    return at_least, pairs, _rankings("pair", pairs, seen, surprise, top)


def _surprise_of_triples(counts: LabelCounts, triples: Int64[Tensor, "n 3"], surely: Int64[Tensor, "n"]) -> Tensor:
    """The weakest association of two classes within the images of the third: what no pair of them explains."""
    within = [
        association(surely, counts.pairs[one, third], counts.pairs[other, third], counts.singles[third])
        for one, other, third in (triples[:, places].unbind(1) for places in ([0, 1, 2], [0, 2, 1], [1, 2, 0]))
    ]
    return torch.stack(within).amin(0)


def _rankings(
    size: str, found: Int64[Tensor, "n k"], seen: Int64[Tensor, "n"], surprise: Tensor, top: int
) -> dict[str, Ranking]:
    frequent, surprising = _descending(seen)[:top], _descending(surprise)[:top]
    orders = {"frequent": frequent, "surprising": surprising[surprise[surprising] > SURPRISING]}
    return {f"{kind} {size}": [tuple(classes) for classes in found[order].tolist()] for kind, order in orders.items()}


def _candidate_triples(pairs: Int64[Tensor, "p 2"]) -> Int64[Tensor, "n 3"]:
    """Triples all of whose pairs are in ``pairs`` (Apriori): the first found, whose rarest pair is most frequent."""
    beside: dict[int, set[int]] = {}
    found: Ranking = []
    for first, second in pairs.tolist():
        thirds = sorted(beside.setdefault(first, set()) & beside.setdefault(second, set()))
        found += [tuple(sorted((first, second, third))) for third in thirds]
        beside[first].add(second)
        beside[second].add(first)
        if len(found) >= MAX_TRIPLES:
            break
    return torch.tensor(sorted(found[:MAX_TRIPLES]), dtype=torch.int64).reshape(-1, 3)


def _choose(
    singles: Int64[Tensor, "C"], rankings: Mapping[str, Ranking], at_least: int, budget: int
) -> tuple[Combination, ...]:
    half, by_number = -(-budget // 2), _descending(singles)
    enough = by_number[singles[by_number] >= at_least].tolist()
    fit = len(singles) <= half
    alone = by_number.tolist() if fit else enough[:half]
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
