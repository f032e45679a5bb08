"""Language models without a network, and time that passes only when somebody sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fedmpt.llm.asking import BadAnswerError, Question
from fedmpt.llm.model import Answer, Message, Request

Reaction = Answer | BaseException
"""What a model does when it is asked."""


@dataclass
class FakeModel:
    """Answers by ``reactions``: for the first words of a conversation, one reaction after the other, the last for ever.

    Others are answered with those words in capitals. ``order`` says in which order requests under way together are
    answered: each waits so many turns of the loop.
    """

    reactions: Mapping[str, Sequence[Reaction]] = field(default_factory=dict)
    max_concurrency: int = 8
    keeps_answers: bool = False
    ignored: tuple[str, ...] = ()
    identity: Mapping[str, str] = field(default_factory=lambda: {"provider": "fake", "model": "one"})
    turns: Callable[[str], int] = lambda text: 0
    asked: list[Request] = field(default_factory=list)
    times_closed: int = 0
    at_once: int = 0
    most_at_once: int = 0
    cancelled: int = 0
    was_closed_while_asked: bool = False

    async def ask(self, request: Request) -> Answer:
        text = request.messages[0].content
        earlier = sum(before.messages[0].content == text for before in self.asked)
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for _ in range(self.turns(text)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_once -= 1
        reactions = self.reactions.get(text, [Answer(text.upper(), prompt_tokens=2, answer_tokens=3)])
        reaction = reactions[min(earlier, len(reactions) - 1)]
        if isinstance(reaction, BaseException):
            raise reaction
        return reaction

    async def close(self) -> None:
        self.times_closed += 1
        self.was_closed_while_asked = self.at_once > 0

    @property
    def asked_texts(self) -> list[str]:
        return [request.messages[0].content for request in self.asked]


@dataclass
class FakeTime:
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    wakings: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Returns when everybody else has had their turns, and no other sleeper is to wake before."""
        self.slept.append(seconds)
        until = self.now + seconds
        self.wakings.append(until)
        while True:
            for _ in range(50):
                await asyncio.sleep(0)
            if until <= min(self.wakings):
                break
        self.wakings.remove(until)
        self.now = until


@dataclass
class Notes:
    """A watcher that writes down what it is told."""

    answered_: list[tuple[str, bool]] = field(default_factory=list)
    waits: list[tuple[str, float]] = field(default_factory=list)
    unusable_: list[str] = field(default_factory=list)

    def answered(self, request: Request, *, cached: bool) -> None:
        self.answered_.append((request.messages[0].content, cached))

    def waiting(self, request: Request, reason: str, seconds: float) -> None:
        self.waits.append((reason, seconds))

    def unusable(self, request: Request, reason: str) -> None:
        self.unusable_.append(reason)


def request(text: str) -> Request:
    return Request((Message("user", text),), max_tokens=10, temperature=0.0, seed=0, label=f"question {text}")


def question(text: str) -> Question[str]:
    """Takes what is in capitals."""
    return Question(request(text), read_capitals)


def read_capitals(answer: Answer) -> str:
    if not answer.text.isupper():
        raise BadAnswerError(f"{answer.text!r} is not in capitals.")
    return answer.text
