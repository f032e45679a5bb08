"""What decides the texts that a language model is asked for, and how many requests that takes."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from fedmpt.conditions.document import check_text
from fedmpt.types import InputError, check_options

CANDIDATE_TOKENS = 110
"""What one proposed condition takes in a request to merge them, at most: they are cut to fit."""
OVERHEAD_TOKENS = 1024
"""Of a request beside sentences and answer: what is asked for, and what a repair adds."""
THINKING_TOKENS = 300
SENTENCE_TOKENS, LABEL_TOKENS, ATTRIBUTE_TOKENS = 30, 24, 14
"""What each sentence, the labels of a combination and each attribute are taken to need in plans."""


@dataclass(frozen=True)
class Options:
    """What both kinds of texts have in common."""

    pictures: str = ""
    """What kind of pictures it is about, such as "aerial images" or "chest X-rays"; photos of any kind unless given."""
    temperature: float = 0.7
    """How freely the model chooses its words, 0 to 2; 0 is the same each time."""
    seed: int = 0
    """Seed of the model's choices, where it takes one. Another seed asks everything anew."""
    max_tokens: int = 2048
    """Length of an answer at most, in tokens. Models that reason at length before they answer need several thousand."""
    per_request: int = 8
    """Combinations in one request, 1 to 50; small models do better with few, and with 1 are shown an example first.
    Fewer are taken where their sentences do not fit into --max-tokens."""

    def check(self) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        check_options(self, "[1, 16]", "num")
        check_options(self, "[1, 50]", "per_request")
        check_options(self, "[0, 2]", "temperature")
        check_options(self, "[0, 2147483647]", "seed")
        check_options(self, "[64, 1000000]", "max_tokens")
        if self.pictures:
            check_text("--pictures", self.pictures)

    def _fitting(self, tokens: int) -> int:
        """`per_request`, or as many as fit into an answer where each takes so many tokens; at least 1."""
        return max(1, min(self.per_request, (self.max_tokens - THINKING_TOKENS) // tokens))


@dataclass(frozen=True)
class GenerateOptions(Options):
    """How conditions are made. Published are the two stages and the chain of thought; the numbers are ours."""

    num: int = 5
    """Conditions to find, 1 to 16."""
    sentences: int = 4
    """Sentences for each combination of classes, 1 to 20."""
    context_tokens: int = 8192
    """What the model reads and writes at once, in tokens. Sentences that do not fit are summarised in parts."""

    def check(self) -> None:
        super().check()
        check_options(self, "[1, 20]", "sentences")
        least = self.max_tokens + OVERHEAD_TOKENS + 2 * self.num * CANDIDATE_TOKENS
        if self.context_tokens < least:
            raise InputError(
                f"--context-tokens {self.context_tokens} is too little for answers of --max-tokens {self.max_tokens}: "
                f"give at least {least} if the model can, else lower --max-tokens or --num"
            )

    @property
    def batch(self) -> int:
        """Combinations in one request."""
        return self._fitting(self.sentences * SENTENCE_TOKENS)

    @property
    def room(self) -> int:
        """Tokens for sentences or proposals in one request."""
        return self.context_tokens - self.max_tokens - OVERHEAD_TOKENS


@dataclass(frozen=True)
class AttributeOptions(Options):
    """How attributes of classes are made."""

    per_request: int = 10
    """Classes in one request, 1 to 50; small models do better with few, and with 1 are shown an example first. Fewer
    are taken where their attributes do not fit into --max-tokens."""
    num: int = 4
    """Attributes of each class, 1 to 16."""

    @property
    def batch(self) -> int:
        """Classes in one request."""
        return self._fitting(self.num * ATTRIBUTE_TOKENS)


class Plan(NamedTuple):
    """Combinations to describe, and requests for the first answers of both stages.

    ``parts`` is how many the sentences may take; where it is more than one, another merges what they propose.
    """

    num_combinations: int
    describe: int
    parts: int

    @property
    def summarise(self) -> int:
        return self.parts + (self.parts > 1)


def plan(num_combinations: int, options: GenerateOptions, max_requests: int) -> Plan:
    """The requests for so many combinations, or for as many as ``max_requests`` allow.

    A quarter of the requests (rounded down) is kept for repairs; the rest holds the first answers of both stages.
    Where sentences turn out longer than planned, some are left out of the summary, so the numbers hold.

    Raises:
        InputError: if an option cannot be, there are no combinations, or the budget allows none.
    """
    options.check()
    first = max_requests - max_requests // 4
    if first < 2:
        raise InputError(f"--max-requests must be at least 2, to describe and to summarise, got {max_requests}")
    if num_combinations < 1:
        raise InputError("there are no combinations of classes to describe; give a larger --budget or other labels")

    def needed(number: int) -> Plan:
        tokens = number * (options.sentences * SENTENCE_TOKENS + LABEL_TOKENS)
        return Plan(number, -(-number // options.batch), min(number, -(-tokens // options.room)))

    numbers = range(1, min(num_combinations, first * options.batch) + 1)
    return needed(bisect_right(numbers, first, key=lambda number: needed(number).describe + needed(number).summarise))
