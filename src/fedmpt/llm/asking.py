"""The asking loop: questions to a language model, with a budget, repairs of bad answers, retries, and a memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from fedmpt.llm.conversation import (
    BadAnswerError,
    Question,
    Reply,
    RequestTooLongError,
    Talk,
    Unusable,
    words_on_awaited,
)
from fedmpt.llm.model import Answer, AnswerPendingError, LanguageModel, Request, TransientError
from fedmpt.llm.pace import Pace, Sleep
from fedmpt.llm.store import AnswerStore
from fedmpt.llm.tasks import refuse_event_loop, run_all, stop
from fedmpt.types import InputError

__all__ = ["Asker", "BadAnswerError", "Limits", "Question", "RequestTooLongError", "Unusable", "Usage", "Watcher"]

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """How much is asked, and how fast.

    Args:
        max_requests: answers asked of the model in an Asker's life, repairs included, 0 or more. What is in the cache
            costs nothing, and neither do failed attempts to get through.
        attempts: answers to one question, the first and its repairs, 1 or more.
        retries: further attempts to get one answer through, 0 or more.
        requests_per_minute: evenly spaced, above 0.
        concurrency: requests under way at once, 1 or more; the model may allow fewer.
        fresh: do not take answers that earlier Askers left in the cache, overwrite them.
    """

    max_requests: int | None = None
    attempts: int = 3
    retries: int = 6
    requests_per_minute: float | None = None
    concurrency: int = 4
    fresh: bool = False


@dataclass
class Usage:
    """What asking took: answers asked of the model, and taken from the cache; failures of transport that were tried
    again; questions without a result; tokens of the answers asked, 0 where unknown.
    """

    asked: int = 0
    cached: int = 0
    retried: int = 0
    unusable: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


@runtime_checkable
class Watcher(Protocol):
    """Who is told how it goes."""

    def answered(self, request: Request, *, cached: bool) -> None: ...

    def waiting(self, request: Request, reason: str, seconds: float) -> None: ...

    def unusable(self, request: Request, reason: str) -> None: ...


class _Silent:
    def answered(self, request: Request, *, cached: bool) -> None: ...

    def waiting(self, request: Request, reason: str, seconds: float) -> None: ...

    def unusable(self, request: Request, reason: str) -> None: ...


class Asker:
    """Asks questions of one model. Close it, or use it as a context manager.

    It goes in rounds: all first answers, then all repairs, and so on. So which requests the budget allows depends on
    the order of the questions and on what was answered, never on which answer came first. Every answer is kept in
    ``cache`` at once, one cut off or refused too: a second run has the same conversations without asking. A model that
    keeps its answers itself is asked each time.

    ``sleep`` and ``clock`` are for tests.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        cache: Path,
        limits: Limits,
        watcher: Watcher | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.limits = limits
        self.usage = Usage()
        self._watcher: Watcher = watcher or _Silent()
        self._store = None if model.keeps_answers else AnswerStore(cache, model.identity)
        self._pace = Pace(limits.requests_per_minute, sleep=sleep, clock=clock)
        self._concurrency = max(1, min(limits.concurrency, model.max_concurrency))
        self._asked: set[str] = set()
        self._runner: asyncio.Runner | None = None
        self._is_closed = False

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask_all(self, questions: Sequence[Question[T]]) -> list[T | Unusable]:
        """What ``read`` made of the answers, in the order of the questions. Not for use inside an event loop.

        A bad answer is sent back with what was wrong, up to ``limits.attempts`` answers. Two questions with the same
        request share the answer.

        Raises:
            InputError: if the model refuses for good, cannot be reached, or somebody has to answer first. What was
                answered is kept; the same call goes on from there.
            OSError: if an answer cannot be kept.
            KeyboardInterrupt: on Ctrl-C, with connections closed and all answers so far kept.
        """
        assert not self._is_closed
        refuse_event_loop()
        try:
            return self._run(self._rounds([Talk(question) for question in questions]))
        except KeyboardInterrupt:
            self.close()
            raise

    def remaining(self) -> int | None:
        """Requests that the budget still allows; None if there is none."""
        return None if self.limits.max_requests is None else max(0, self.limits.max_requests - self.usage.asked)

    def close(self) -> None:
        """Give up what is under way and close the model's connections. Doing it again does nothing."""
        if self._is_closed:
            return
        refuse_event_loop()
        self._is_closed = True
        try:
            self._run(self._let_go())
        finally:
            assert self._runner is not None
            self._runner.close()
            self._runner = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        # One loop for the whole life: connections that are kept open belong to the loop they were opened in.
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    async def _let_go(self) -> None:
        await stop([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
        await self.model.close()

    async def _rounds(self, talks: list[Talk[T]]) -> list[T | Unusable]:
        for round_index in range(self.limits.attempts):
            planned = self._affordable([talk for talk in talks if talk.is_open])
            if self._store is not None and None in planned.values():
                self._store.prepare()
            replies = await self._replies(planned, is_repair=round_index > 0)
            for talk in talks:
                if talk.is_open:
                    talk.hear(replies[talk.request])
        if pending := {talk.pending for talk in talks if talk.pending}:
            raise InputError(words_on_awaited(sorted(pending)))
        for talk in talks:
            self._conclude(talk)
        return [talk.conclusion for talk in talks]

    def _affordable(self, talks: Sequence[Talk[Any]]) -> dict[Request, Answer | None]:
        """The requests of a round, each once, with the answers that are kept; talks beyond the budget end here."""
        planned: dict[Request, Answer | None] = {}
        left = self.remaining()
        for talk in talks:
            if talk.request in planned:
                continue
            stored = self._stored(talk.request)
            if stored is None and left is not None:
                if left == 0:
                    talk.give_up(f"the budget of {self.limits.max_requests} requests is used up")
                    continue
                left -= 1
            planned[talk.request] = stored
        return planned

    def _stored(self, request: Request) -> Answer | None:
        if self._store is None or (self.limits.fresh and self._store.key(request) not in self._asked):
            return None
        return self._store.load(request)

    async def _replies(self, planned: Mapping[Request, Answer | None], *, is_repair: bool) -> dict[Request, Reply]:
        """Every request answered, so many at once as are allowed, and started in their order."""
        waiting = iter(planned.items())
        replies: dict[Request, Reply] = {}

        async def work() -> None:
            for request, stored in waiting:
                replies[request] = await self._reply(request, stored, is_repair=is_repair)

        await run_all([work() for _ in range(self._concurrency)])
        return replies

    async def _reply(self, request: Request, stored: Answer | None, *, is_repair: bool) -> Reply:
        """Kept, or asked of the model; errors that are no reason to stop the others are returned."""
        if stored is not None:
            self.usage.cached += 1
            self._watcher.answered(request, cached=True)
            return stored
        try:
            answer = await self._get_through(request)
        except AnswerPendingError as error:
            return error
        except RequestTooLongError as error:
            if is_repair:
                return error
            raise
        if self._store is not None:
            self._store.save(request, answer)
            self._asked.add(self._store.key(request))
        self.usage.asked += 1
        self.usage.prompt_tokens += answer.prompt_tokens or 0
        self.usage.answer_tokens += answer.answer_tokens or 0
        self._watcher.answered(request, cached=False)
        return answer

    async def _get_through(self, request: Request) -> Answer:
        for failures in range(1, self.limits.retries + 2):
            await self._pace.turn()
            try:
                return await self.model.ask(request)
            except TransientError as error:
                last = error
            if failures <= self.limits.retries:
                seconds = self._pace.wait_s(failures, last.retry_after)
                self.usage.retried += 1
                self._watcher.waiting(request, str(last), seconds)
                await self._pace.rest(seconds, everybody=last.retry_after is not None)
        raise InputError(
            f"{_name(self.model)} gave no answer in {failures} attempts, the last error is: {last}; what was answered "
            "is kept, and the same command goes on from there"
        )

    def _conclude(self, talk: Talk[Any]) -> None:
        if talk.is_open:
            talk.give_up(f"no usable answer in {talk.attempts} attempts")
        if isinstance(talk.conclusion, Unusable):
            self.usage.unusable += 1
            self._watcher.unusable(talk.question.request, talk.conclusion.reason)


def _name(model: LanguageModel) -> str:
    return next(
        (model.identity[key] for key in ("endpoint", "model", "provider") if key in model.identity), "the model"
    )
