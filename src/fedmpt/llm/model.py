"""What a language model is to everything else: it takes a request and gives an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from fedmpt.types import InputError

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

    def canonical(self) -> list[Any]:
        """All that makes the request, as JSON holds it: hashes are of this."""
        messages = [[message.role, message.content] for message in self.messages]
        return [messages, self.max_tokens, self.temperature, self.seed]

    def chat(self, *, system: bool = True) -> list[dict[str, str]]:
        """The messages as chat APIs and templates take them; without ``system``, that stands in the first request."""
        messages = [{"role": message.role, "content": message.content} for message in self.messages]
        if system or len(messages) < 2 or messages[0]["role"] != "system":
            return messages
        first, second, *rest = messages
        return [{"role": "user", "content": f"{first['content']}\n\n{second['content']}"}, *rest]


@dataclass(frozen=True)
class Answer:
    """What came back. ``finish`` is "length" where the limit of tokens cut it off. Tokens are None where unknown."""

    text: str
    finish: Literal["stop", "length", "refusal"] = "stop"
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class TransientError(Exception):
    """No answer this time, but there may be one later; ``retry_after`` are the seconds that the other side asks for."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestTooLongError(InputError):
    """The conversation does not fit into the model's context."""


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

    def ask(self, request: Request) -> Answer:
        """The model's next turn. Up to ``max_concurrency`` threads may ask at once.

        Raises:
            TransientError: if it is worth trying again.
            AnswerPendingError: if a person has to answer first.
            InputError: if it is not: a wrong key, an unknown model, no such file.
        """
        ...

    def close(self) -> None:
        """Let go of connections and memory."""
        ...


def without_thoughts(text: str) -> str:
    """An answer without the ``<think>...</think>`` that reasoning models put before it, if their server leaves it in.

    Some chat templates open the block in the prompt, so that only its end is in the answer. A block without an end was
    cut off: nothing is left.
    """
    if text.lstrip().startswith("<think>"):
        return text.partition("</think>")[2].lstrip()
    before, end, after = text.partition("</think>")
    return after.lstrip() if end and "<think>" not in before else text
