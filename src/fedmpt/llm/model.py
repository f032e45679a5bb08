"""What a language model is to everything else: it takes a request and gives an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Request:
    """A conversation that waits for the next turn of the model.

    ``label`` is for people only ("describe 3 of 20"): it changes neither the answer nor where that is kept.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    seed: int
    label: str = field(default="", compare=False)


@dataclass(frozen=True)
class Answer:
    """What came back. ``finish`` is "length" where the limit of tokens cut it off. Tokens are None where unknown."""

    text: str
    finish: Literal["stop", "length", "refusal"] = "stop"
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class TransientError(Exception):
    """No answer this time, but there may be one later; ``retry_after`` are the seconds that the other side asks for."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AnswerPendingError(Exception):
    """Somebody has to write the answer into ``path`` first."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@runtime_checkable
class LanguageModel(Protocol):
    """Something to ask.

    ``identity`` is what tells it from others, as records and keys of the cache have it: provider, model, and the
    endpoint's address or the hash of the weights. Never a key or a password. One that ``keeps_answers`` has them at
    hand itself, where a person may change them, so no copies of them are kept. ``ignored`` are parameters of requests
    that, as far as is known by now, have no effect on it.
    """

    identity: Mapping[str, str]
    max_concurrency: int
    keeps_answers: bool

    @property
    def ignored(self) -> tuple[str, ...]: ...

    async def ask(self, request: Request) -> Answer:
        """The model's next turn.

        Raises:
            TransientError: if it is worth trying again.
            AnswerPendingError: if a person has to answer first.
            InputError: if it is not: a wrong key, an unknown model, no such file.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and memory."""
        ...
