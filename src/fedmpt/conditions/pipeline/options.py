"""What decides the texts that a language model is asked for; the command line is derived from it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fedmpt.conditions.document import TEXT, is_text, shortened
from fedmpt.llm.model import Message, Request
from fedmpt.types import InputError

MAX_CONDITIONS = 16
"""Each has prompts of its own for every class."""
CANDIDATE_TOKENS = 110
"""What one proposed condition takes in a request to merge them, at most: they are cut to fit."""
OVERHEAD_TOKENS = 1024
"""Of a request beside sentences and answer: what is asked for, and what a repair adds."""
THINKING_TOKENS = 300
SENTENCE_TOKENS = 30
"""What a sentence is taken to need in plans: about 90 characters in English."""
ATTRIBUTE_TOKENS = 14


@dataclass(frozen=True)
class GenerateOptions:
    """How conditions are made. Published are the two stages and the chain of thought; the numbers are ours."""

    num: int = 5
    """Conditions to find, 1 to 16."""
    sentences: int = 4
    """Sentences for each combination of classes, 1 to 20."""
    per_request: int = 8
    """Combinations in one request, 1 to 50; small models do better with few, and with 1 are shown an example first.
    Fewer are taken where their sentences do not fit into --max-tokens."""
    pictures: str = ""
    """What kind of pictures it is about, such as "aerial images" or "chest X-rays"; photos of any kind unless given."""
    temperature: float = 0.7
    """How freely the model chooses its words, 0 to 2; 0 is the same each time."""
    seed: int = 0
    """Seed of the model's choices, where it takes one. Another seed asks everything anew."""
    max_tokens: int = 2048
    """Length of an answer at most, in tokens. Models that reason at length before they answer need several thousand."""
    context_tokens: int = 8192
    """What the model reads and writes at once, in tokens. Sentences that do not fit are summarised in parts."""

    def check(self) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        check_range("num", self.num, 1, MAX_CONDITIONS)
        check_range("sentences", self.sentences, 1, 20)
        check_range("per-request", self.per_request, 1, 50)
        _check_texts(self)
        check_range("context-tokens", self.context_tokens, 1, 100_000_000)
        least = self.max_tokens + OVERHEAD_TOKENS + 2 * self.num * CANDIDATE_TOKENS
        if self.context_tokens < least:
            raise InputError(
                f"--context-tokens {self.context_tokens} is too little for answers of --max-tokens {self.max_tokens}: "
                f"give at least {least} if the model can, else lower --max-tokens or --num"
            )

    @property
    def batch(self) -> int:
        """Combinations in one request: `per_request`, or as many as fit into an answer."""
        fits = (self.max_tokens - THINKING_TOKENS) // (self.sentences * SENTENCE_TOKENS)
        return max(1, min(self.per_request, fits))

    @property
    def room(self) -> int:
        """Tokens for sentences or proposals in one request."""
        return self.context_tokens - self.max_tokens - OVERHEAD_TOKENS


@dataclass(frozen=True)
class AttributeOptions:
    """How attributes of classes are made."""

    num: int = 4
    """Attributes of each class, 1 to 16."""
    per_request: int = 10
    """Classes in one request, 1 to 50; small models do better with few, and with 1 are shown an example first. Fewer
    are taken where their attributes do not fit into --max-tokens."""
    pictures: str = ""
    """What kind of pictures it is about, such as "aerial images" or "chest X-rays"; photos of any kind unless given."""
    temperature: float = 0.7
    """How freely the model chooses its words, 0 to 2; 0 is the same each time."""
    seed: int = 0
    """Seed of the model's choices, where it takes one. Another seed asks everything anew."""
    max_tokens: int = 2048
    """Length of an answer at most, in tokens. Models that reason at length before they answer need several thousand."""

    def check(self) -> None:
        """Raises InputError for values that cannot be, naming the flag."""
        check_range("num", self.num, 1, 16)
        check_range("per-request", self.per_request, 1, 50)
        _check_texts(self)

    @property
    def batch(self) -> int:
        """Classes in one request: `per_request`, or as many as fit into an answer."""
        fits = (self.max_tokens - THINKING_TOKENS) // (self.num * ATTRIBUTE_TOKENS)
        return max(1, min(self.per_request, fits))


Options = GenerateOptions | AttributeOptions


def check_range(flag: str, value: float, lowest: float, highest: float) -> None:
    """Raises InputError if a value is outside; NaN is."""
    if not lowest <= value <= highest:
        raise InputError(f"--{flag} must be {lowest} to {highest}, got {value}")


def request(system: str, user: str, options: Options, *, label: str) -> Request:
    """The start of a conversation."""
    kind = f"All photos here are of one kind, given as a JSON string: {json.dumps(options.pictures)}\n\n"
    return Request(
        (Message("system", system), Message("user", kind + user if options.pictures else user)),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        label=label,
    )


def tokens_of(text: str) -> int:
    """About how many tokens a text has, rather too many than too few: tokenizers differ."""
    plain = sum(letter.isascii() for letter in text)
    return -(-plain // 3) + len(text) - plain + 1


def _check_texts(options: Options) -> None:
    if options.pictures and not is_text(options.pictures):
        raise InputError(f"--pictures is {shortened(options.pictures)}; expected {TEXT}")
    _check_sampling(options)


def _check_sampling(options: Options) -> None:
    check_range("temperature", options.temperature, 0, 2)
    check_range("seed", options.seed, 0, 2**31 - 1)
    check_range("max-tokens", options.max_tokens, 64, 1_000_000)
