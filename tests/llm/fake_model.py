"""Language models without a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmpt.llm.asking import Asker, BadAnswerError, Unusable, Usage
from fedmpt.llm.model import Answer, LanguageModel, Message, Request
from fedmpt.llm.options import LLMOptions

Reaction = Answer | Path | BaseException
"""What a model does when it is asked."""


@dataclass
class FakeModel(LanguageModel):
    """Answers by ``reactions``: for the first words of a conversation, one reaction after the other, the last for ever.

    Others are answered with those words in capitals, after as many seconds as ``waits`` says.
    """

    reactions: Mapping[str, Sequence[Reaction]] = field(default_factory=dict)
    max_concurrency: int = 8
    keeps_answers: bool = False
    ignored: tuple[str, ...] = ()
    identity: Mapping[str, str] = field(default_factory=lambda: {"provider": "fake", "model": "one"})
    waits: Callable[[str], float] = lambda text: 0.0
    asked: list[Request] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def ask(self, request: Request) -> Answer | Path:
        text = request.messages[0].content
        with self.lock:
            earlier = sum(before.messages[0].content == text for before in self.asked)
            self.asked.append(request)
        time.sleep(self.waits(text))
        reactions = self.reactions.get(text, [Answer(text.upper(), prompt_tokens=2, answer_tokens=3)])
        reaction = reactions[min(earlier, len(reactions) - 1)]
        if isinstance(reaction, BaseException):
            raise reaction
        return reaction

    @property
    def asked_texts(self) -> list[str]:
        return [request.messages[0].content for request in self.asked]


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.are_kept: list[bool] = []
        self.reasons: list[str] = []

    def __call__(self, request: Request, is_kept: bool, reason: str) -> None:
        if reason:
            self.reasons.append(reason)
        else:
            self.are_kept.append(is_kept)


def request(text: str) -> Request:
    return Request((Message("user", text),), max_tokens=10, temperature=0.0, seed=0, label=f"question {text}")


def read_capitals(answer: Answer) -> str:
    if not answer.text.isupper():
        raise BadAnswerError(f"{answer.text!r} is not in capitals.")
    return answer.text


def asker_of(model: Any, cache: Path, *, max_requests: int = 1000, notes: Notes | None = None, **options: Any) -> Asker:
    of_model = LLMOptions(llm="m", **options)
    return Asker(model, of_model, cache=cache, max_requests=max_requests, tell=notes or Notes())


def ask_of(asker: Asker, *texts: str, reserve: int = 0) -> list[str | Unusable]:
    """Questions that take what is in capitals."""
    return asker.ask_all([request(text) for text in texts], [read_capitals] * len(texts), reserve=reserve)


def ask(model: Any, cache: Path, *texts: str, **options: Any) -> tuple[list[str | Unusable], Usage]:
    """What came of the questions, and what they took."""
    asker = asker_of(model, cache, **options)
    return ask_of(asker, *texts), asker.usage
