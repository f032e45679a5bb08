"""What decides the texts that a language model is asked for; the command line is derived from it."""

from __future__ import annotations

from dataclasses import dataclass

from fedmpt.conditions.document import TEXT, is_text, shortened
from fedmpt.types import InputError

CANDIDATE_TOKENS = 110
"""What one proposed condition takes in a request to merge them, at most: they are cut to fit."""
OVERHEAD_TOKENS = 1024
"""Of a request beside sentences and answer: what is asked for, and what a repair adds."""
THINKING_TOKENS = 300
SENTENCE_TOKENS, ATTRIBUTE_TOKENS = 30, 14
"""What each is taken to need in plans: a sentence has about 90 characters in English."""


@dataclass(frozen=True)
class _Options:
    """What both kinds of texts have in common."""

    pictures: str = ""
    """What kind of pictures it is about, such as "aerial images" or "chest X-rays"; photos of any kind unless given."""
    temperature: float = 0.7
    """How freely the model chooses its words, 0 to 2; 0 is the same each time."""
    seed: int = 0
    """Seed of the model's choices, where it takes one. Another seed asks everything anew."""
    max_tokens: int = 2048
    """Length of an answer at most, in tokens. Models that reason at length before they answer need several thousand."""

    def _check(self, **ranges: tuple[float, float]) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        ranges |= {"temperature": (0, 2), "seed": (0, 2**31 - 1), "max_tokens": (64, 1_000_000)}
        for name, (lowest, highest) in ranges.items():
            if not lowest <= (value := getattr(self, name)) <= highest:  # NaN is not.
                raise InputError(f"--{name.replace('_', '-')} must be {lowest} to {highest}, got {value}")
        if self.pictures and not is_text(self.pictures):
            raise InputError(f"--pictures is {shortened(self.pictures)}; expected {TEXT}")

    def _fitting(self, most: int, tokens: int) -> int:
        """How many of something fit into an answer, 1 to ``most``, where each takes so many tokens."""
        return max(1, min(most, (self.max_tokens - THINKING_TOKENS) // tokens))


@dataclass(frozen=True)
class GenerateOptions(_Options):
    """How conditions are made. Published are the two stages and the chain of thought; the numbers are ours."""

    num: int = 5
    """Conditions to find, 1 to 16."""
    sentences: int = 4
    """Sentences for each combination of classes, 1 to 20."""
    per_request: int = 8
    """Combinations in one request, 1 to 50; small models do better with few, and with 1 are shown an example first.
    Fewer are taken where their sentences do not fit into --max-tokens."""
    context_tokens: int = 8192
    """What the model reads and writes at once, in tokens. Sentences that do not fit are summarised in parts."""

    def check(self) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        self._check(num=(1, 16), sentences=(1, 20), per_request=(1, 50))
        least = self.max_tokens + OVERHEAD_TOKENS + 2 * self.num * CANDIDATE_TOKENS
        if self.context_tokens < least:
            raise InputError(
                f"--context-tokens {self.context_tokens} is too little for answers of --max-tokens {self.max_tokens}: "
                f"give at least {least} if the model can, else lower --max-tokens or --num"
            )

    @property
    def batch(self) -> int:
        """Combinations in one request: `per_request`, or as many as fit into an answer."""
        return self._fitting(self.per_request, self.sentences * SENTENCE_TOKENS)

    @property
    def room(self) -> int:
        """Tokens for sentences or proposals in one request."""
        return self.context_tokens - self.max_tokens - OVERHEAD_TOKENS


@dataclass(frozen=True)
class AttributeOptions(_Options):
    """How attributes of classes are made."""

    num: int = 4
    """Attributes of each class, 1 to 16."""
    per_request: int = 10
    """Classes in one request, 1 to 50; small models do better with few, and with 1 are shown an example first. Fewer
    are taken where their attributes do not fit into --max-tokens."""

    def check(self) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        self._check(num=(1, 16), per_request=(1, 50))

    @property
    def batch(self) -> int:
        """Classes in one request: `per_request`, or as many as fit into an answer."""
        return self._fitting(self.per_request, self.num * ATTRIBUTE_TOKENS)


Options = GenerateOptions | AttributeOptions
