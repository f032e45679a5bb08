"""How many requests the two stages take, before any is made.

Of a budget, a quarter (rounded down) is kept for repairs; the rest holds the first answers of both stages. Describing
may not use up what summarising needs: its first answers and half of the quarter. Combinations that do not fit are left
out, the last ones first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedmpt.conditions.pipeline.options import CANDIDATE_TOKENS, SENTENCE_TOKENS, GenerateOptions, tokens_of
from fedmpt.conditions.pipeline.summarise import sentence_line
from fedmpt.conditions.record import Described
from fedmpt.types import InputError

LABEL_TOKENS = 24
"""Of one line of sentences, beside them."""
GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly wherever one stops."""


@dataclass(frozen=True)
class Plan:
    """First answers of the stages, and what of the budget is for repairs (None where there is no budget).

    ``parts`` is how many requests the sentences themselves may take; `summarise_requests` has merging too.
    """

    num_combinations: int
    describe_requests: int
    parts: int
    summarise_requests: int
    spare: int | None

    @property
    def total(self) -> int:
        return self.describe_requests + self.summarise_requests

    @property
    def words(self) -> str:
        """``"64 combinations in 8 requests, 1 request to summarise; up to 3 for repairs"``."""
        repairs = "repairs as needed" if self.spare is None else f"up to {self.spare} for repairs"
        return (
            f"{_count(self.num_combinations, 'combination')} in {_count(self.describe_requests, 'request')}, "
            f"{_count(self.summarise_requests, 'request')} to summarise; {repairs}"
        )


def plan(num_combinations: int, options: GenerateOptions, max_requests: int | None) -> Plan:
    """The requests for so many combinations, or for as many as ``max_requests`` allow.

    Where sentences turn out longer than planned, more are left out of the summary, so the numbers hold.

    Raises:
        InputError: if an option cannot be, there are no combinations, or the budget allows none.
    """
    options.check()
    if num_combinations < 1:
        raise InputError("there are no combinations of classes to describe; give a larger --budget or other labels")
    if max_requests is None:
        return _planned(num_combinations, options, None)
    num = min(num_combinations, fitting_combinations(max_requests, options))
    return _planned(num, options, max_requests)


def fitting_combinations(max_requests: int, options: GenerateOptions) -> int:
    """How many combinations a budget allows, 1 or more.

    Raises:
        InputError: if it allows none.
    """
    options.check()
    first = max_requests - max_requests // 4
    if first < 2:
        raise InputError(f"--max-requests must be at least 2, to describe and to summarise, got {max_requests}")
    lowest, highest = 1, first * options.batch
    while lowest < highest:
        middle = (lowest + highest + 1) // 2
        if _planned(middle, options, None).total <= first:
            lowest = middle
        else:
            highest = middle - 1
    return lowest


def into_parts(described: Sequence[Described], options: GenerateOptions, most: int) -> list[list[Described]]:
    """Combinations with sentences, divided among as few requests as they fit in, at most ``most``.

    Each request gets combinations from all over the list. What does not fit is left out evenly over combinations: the
    last sentences of all first, then, where not even one of each fits, whole combinations.
    """
    telling = [each for each in described if each.sentences]
    tokens = [tokens_of(sentence_line(each)) for each in telling]
    most = max(1, min(most, len(telling)))
    fewest = min(most, max(1, -(-sum(tokens) // options.room)))
    for num in range(fewest, most + 1):
        if all(sum(tokens[start::num]) <= options.room for start in range(num)):
            return [telling[start::num] for start in range(num)]
    return [part for start in range(most) if (part := trimmed(telling[start::most], options.room))]


def trimmed(described: Sequence[Described], room: int) -> list[Described]:
    """As many sentences as fit into ``room`` tokens, evenly over the combinations, which stay in order."""
    kept: dict[int, list[str]] = {}
    order = sorted(range(len(described)), key=lambda index: index * GOLDEN % 1)
    for number in range(max(len(each.sentences) for each in described)):
        for index in order:
            each = described[index]
            if number >= len(each.sentences) or (number and index not in kept):
                continue
            before = tokens_of(sentence_line(Described(each.classes, tuple(kept[index])))) if index in kept else 0
            after = [*kept.get(index, []), each.sentences[number]]
            more = tokens_of(sentence_line(Described(each.classes, tuple(after)))) - before
            if more <= room:
                room -= more
                kept[index] = after
    return [Described(described[index].classes, tuple(kept[index])) for index in sorted(kept)]


def candidates_per_merge(options: GenerateOptions) -> int:
    """Proposals in one request to merge them: at least those of two readers."""
    return options.room // CANDIDATE_TOKENS


def _planned(num: int, options: GenerateOptions, max_requests: int | None) -> Plan:
    describe = -(-num // options.batch)
    tokens = num * (options.sentences * SENTENCE_TOKENS + LABEL_TOKENS)
    parts = min(num, -(-tokens // options.room))
    spare = None if max_requests is None else max_requests // 4
    return Plan(num, describe, parts, parts + _merges(parts, options), spare)


def _merges(parts: int, options: GenerateOptions) -> int:
    """Requests that merge what all parts propose, in levels where it is too much for one."""
    if parts == 1:
        return 0
    total, candidates, at_once = 1, parts * options.num, candidates_per_merge(options)
    while candidates > at_once:
        groups = -(-candidates // at_once)
        total, candidates = total + groups, groups * options.num
    return total


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
