"""How many requests the two stages take, before any is made.

Of a budget, a quarter (rounded down) is kept for repairs; the rest holds the first answers of both stages. Describing
may not use up what summarising needs: its first answers and half of the quarter. Combinations that do not fit are left
out, the last ones first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from fedmpt.conditions.pipeline.options import SENTENCE_TOKENS, GenerateOptions
from fedmpt.conditions.pipeline.prompts import sentence_line, tokens_of
from fedmpt.conditions.record import Described
from fedmpt.types import InputError

LABEL_TOKENS = 24
"""Of one line of sentences, beside them."""


@dataclass(frozen=True)
class Plan:
    """First answers of the stages, and what of the budget is for repairs.

    ``parts`` is how many requests the sentences may take; where it is more than one, another merges what they propose.
    """

    num_combinations: int
    describe_requests: int
    parts: int
    spare: int

    @property
    def summarise_requests(self) -> int:
        return self.parts + (self.parts > 1)

    @property
    def total(self) -> int:
        return self.describe_requests + self.summarise_requests

    @property
    def reserve(self) -> int:
        """Requests that describing must leave."""
        return self.summarise_requests + self.spare // 2

    @property
    def words(self) -> str:
        """``"64 combinations in 8 requests, 1 request to summarise; up to 3 for repairs"``."""
        return (
            f"{counted(self.num_combinations, 'combination')} in {counted(self.describe_requests, 'request')}, "
            f"{counted(self.summarise_requests, 'request')} to summarise; up to {self.spare} for repairs"
        )


def plan(num_combinations: int, options: GenerateOptions, max_requests: int) -> Plan:
    """The requests for so many combinations, or for as many as ``max_requests`` allow.

    Where sentences turn out longer than planned, some are left out of the summary, so the numbers hold.

    Raises:
        InputError: if an option cannot be, there are no combinations, or the budget allows none.
    """
    if num_combinations < 1:
        raise InputError("there are no combinations of classes to describe; give a larger --budget or other labels")
    return _plan(min(num_combinations, fitting_combinations(max_requests, options)), options, max_requests // 4)


def fitting_combinations(max_requests: int, options: GenerateOptions) -> int:
    """How many combinations a budget allows, 1 or more.

    Raises:
        InputError: if it allows none, or an option cannot be.
    """
    options.check()
    first = max_requests - max_requests // 4
    if first < 2:
        raise InputError(f"--max-requests must be at least 2, to describe and to summarise, got {max_requests}")
    numbers = range(1, first * options.batch + 1)
    return bisect_right(numbers, first, key=lambda number: _plan(number, options, 0).total)


def _plan(num_combinations: int, options: GenerateOptions, spare: int) -> Plan:
    tokens = num_combinations * (options.sentences * SENTENCE_TOKENS + LABEL_TOKENS)
    parts = min(num_combinations, -(-tokens // options.room))
    return Plan(num_combinations, -(-num_combinations // options.batch), parts, spare)


def into_parts(described: Sequence[Described], options: GenerateOptions, most: int) -> list[list[Described]]:
    """Combinations with sentences, divided among as few requests as they fit in, at most ``most``.

    Each request gets combinations from all over the list. As long as they do not fit, the last sentence of each is left
    out or, where each has but one, every other combination.
    """
    telling = [each for each in described if each.sentences]
    while True:
        tokens = [tokens_of(sentence_line(each)) for each in telling]
        for num in range(1, min(most, len(telling)) + 1):
            if all(sum(tokens[start::num]) <= options.room for start in range(num)):
                return [telling[start::num] for start in range(num)]
        longest = max(len(each.sentences) for each in telling)
        if len(telling) == 1 == longest:
            return [telling]
        if longest > 1:
            telling = [Described(each.classes, each.sentences[: longest - 1]) for each in telling]
        else:
            telling = telling[::2]


def counted(number: int, what: str) -> str:
    """``"1 answer"``, ``"2,000 answers"``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
