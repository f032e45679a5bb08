"""Language models without a network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedmpt.llm.asking import Asker, BadAnswerError, Question, Unusable, Usage, Watcher
from fedmpt.llm.model import Answer, LanguageModel, Message, Request
from fedmpt.llm.options import LLMOptions

Reaction = Answer | BaseException
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

    def ask(self, request: Request) -> Answer:
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


class Notes(Watcher):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, bool]] = []
        self.reasons: list[str] = []

    def answered(self, request: Request, *, cached: bool) -> None:
        self.answers.append((request.messages[0].content, cached))

    def unusable(self, request: Request, reason: str) -> None:
        self.reasons.append(reason)


def request(text: str) -> Request:
    return Request((Message("user", text),), max_tokens=10, temperature=0.0, seed=0, label=f"question {text}")


def question(text: str) -> Question[str]:
    """Takes what is in capitals."""
    return Question(request(text), read_capitals)


def read_capitals(answer: Answer) -> str:
    if not answer.text.isupper():
        raise BadAnswerError(f"{answer.text!r} is not in capitals.")
    return answer.text


def asker_of(
    model: Any, cache: Path, *, max_requests: int = 1000, watcher: Watcher | None = None, **options: Any
) -> Asker:
    return Asker(model, LLMOptions(llm="m", **options), cache=cache, max_requests=max_requests, watcher=watcher)


def ask(model: Any, cache: Path, *texts: str, **options: Any) -> tuple[list[str | Unusable], Usage]:
    """What came of the questions, and what they took."""
    asker = asker_of(model, cache, **options)
    return asker.ask_all([question(text) for text in texts]), asker.usage
