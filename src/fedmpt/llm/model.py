"""What a language model is to everything else: it takes a request and gives an answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedmpt.types import InputError


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """A conversation that waits for the model's next turn. ``label`` is for people: it changes no answer."""

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
    finish: Literal["stop", "length"] = "stop"
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class RequestTooLongError(InputError):
    """The conversation does not fit into the model's context."""


class LanguageModel:
    """Something to ask.

    ``identity`` tells it from others, in records and in the keys of kept answers; it never has a key in it. One that
    ``keeps_answers`` has them in files that people may change. ``ignored`` parameters have no effect on it.
    """

    identity: Mapping[str, str]
    max_concurrency = 1
    keeps_answers = False
    ignored: tuple[str, ...] = ()

    def ask(self, request: Request) -> Answer | Path:
        """The model's next turn, or the file that a person has to write it into; threads may ask at once.

        An InputError says why there will be no answer: a wrong key, an unknown model, no connection.
        """
        raise NotImplementedError
