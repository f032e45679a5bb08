"""The conversation about one question: an answer that cannot be read is sent back with what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from fedmpt.llm.model import Answer, AnswerPendingError, Message, Request
from fedmpt.types import InputError

T = TypeVar("T")

MAX_REPEATED = 8000
"""Characters of a bad answer that a repair says again; of one that has no end the start is enough."""


class BadAnswerError(Exception):
    """An answer that cannot be used. The text is for the model: what was wrong with its answer."""


class RequestTooLongError(InputError):
    """The conversation does not fit into the model's context."""


@dataclass(frozen=True)
class Question(Generic[T]):
    """A request, and what makes something of its answer: ``read`` raises `BadAnswerError` where it cannot."""

    request: Request
    read: Callable[[Answer], T]


@dataclass(frozen=True)
class Unusable:
    """What comes of a question whose answers could not be read; ``reason`` is for people."""

    reason: str


Reply = Answer | RequestTooLongError | AnswerPendingError
"""What came of a request; the errors are those that end one conversation only."""


class _Open:
    """In place of a result that is not there yet."""


class Talk(Generic[T]):
    """The conversation about one question: ``request`` is its next turn."""

    def __init__(self, question: Question[T]) -> None:
        self.question = question
        self.request = question.request
        self.attempts = 0
        self._result: T | Unusable | _Open = _Open()
        self.pending: Path | None = None
        self._complaint = ""

    @property
    def is_open(self) -> bool:
        return isinstance(self._result, _Open) and self.pending is None

    @property
    def conclusion(self) -> T | Unusable:
        assert not isinstance(self._result, _Open)
        return self._result

    def hear(self, answer: Reply) -> None:
        if isinstance(answer, AnswerPendingError):
            self.pending = answer.path
        elif isinstance(answer, RequestTooLongError):
            self.give_up("the request to mend the answer is too long for the model")
        else:
            self._read(answer)

    def give_up(self, reason: str) -> None:
        self._result = Unusable(f"{reason}; the last answer: {self._complaint}" if self._complaint else reason)

    def _read(self, answer: Answer) -> None:
        self.attempts += 1
        try:
            self._result = self.question.read(answer)
        except BadAnswerError as error:
            self._complaint = str(error)
            self.request = _repair(self.question.request, self.request, answer, error, self.attempts)


def _repair(first: Request, asked: Request, answer: Answer, error: BadAnswerError, number: int) -> Request:
    """The conversation goes on: the bad answer, and what was wrong with it."""
    said = answer.text if len(answer.text) <= MAX_REPEATED else f"{answer.text[:MAX_REPEATED]} ..."
    # Many chat templates refuse an empty turn, and two turns of the user in a row.
    turns = (
        Message("assistant", said.strip() or "(empty)"),
        Message("user", f"This answer cannot be used: {error}\nAnswer the whole request again, and mend this."),
    )
    label = f"{first.label}, repair {number}" if first.label else ""
    return replace(asked, messages=(*asked.messages, *turns), label=label)


def words_on_awaited(paths: Sequence[Path]) -> str:
    """What somebody who has to write answers into these files is told."""
    folders = ", ".join(sorted({str(path.parent) for path in paths}))
    names = ", ".join(path.name for path in paths[:3])
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    count = "1 answer is" if len(paths) == 1 else f"{len(paths)} answers are"
    it = "it" if len(paths) == 1 else "them"
    return (
        f"{count} awaited in {folders}: {names}{more}; the prompts are beside {it}, in .prompt.txt; write {it} there, "
        "then run the same command again"
    )
