"""The asking loop: questions to a language model, with a budget, repairs of bad answers, retries, and a memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from fedmpt.llm.kept import KeptAnswers
from fedmpt.llm.model import (
    Answer,
    AnswerPendingError,
    LanguageModel,
    Message,
    Request,
    RequestTooLongError,
    TransientError,
)
from fedmpt.llm.options import LLMOptions
from fedmpt.types import InputError

T = TypeVar("T")

MAX_REPEATED = 8000
"""Characters of a bad answer that a repair says again; of one that has no end the start is enough."""
BACKOFF = wait_exponential_jitter(initial=1, max=60)
LONGEST_ASKED_WAIT_S = 300.0
"""A server that asks for a longer wait is asked again after this one."""


class BadAnswerError(Exception):
    """An answer that cannot be used. The text is for the model: what was wrong with its answer."""


@dataclass(frozen=True)
class Question(Generic[T]):
    """A request, and what makes something of its answer, not None: `BadAnswerError` where it cannot."""

    request: Request
    read: Callable[[Answer], T]


@dataclass(frozen=True)
class Unusable:
    """What comes of a question whose answers could not be read; ``reason`` is for people."""

    reason: str


Reply = Answer | Unusable | Path
"""What came of a request: an answer, why there is none, or where somebody has to write it."""


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


class Watcher:
    """Who is told how it goes; this one does nothing with it. ``waiting`` may come from several threads."""

    def answered(self, request: Request, *, cached: bool) -> None: ...

    def waiting(self, request: Request, reason: str, seconds: float) -> None: ...

    def unusable(self, request: Request, reason: str) -> None: ...


class Asker:
    """Asks questions of one model.

    It goes in rounds: all first answers, then all repairs, and so on, of as many questions at once as the budget allows
    if each needs every repair. So which requests are made depends on the order of the questions and on what was
    answered, never on which answer came first. Every answer is kept in ``cache`` at once, one cut off or refused too: a
    second run has the same conversations without asking. A model that keeps its answers itself is asked each time.

    ``max_requests`` are answers asked of the model in an Asker's life, repairs included. What is in the cache costs
    nothing, and neither do failed attempts to get through.
    """

    def __init__(
        self,
        model: LanguageModel,
        options: LLMOptions,
        *,
        cache: Path,
        max_requests: int | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.max_requests = max_requests
        self.usage = Usage()
        self._watcher = watcher or Watcher()
        self._kept = None if model.keeps_answers else KeptAnswers(cache, model.identity)
        self._asked: set[Request] = set()
        self._turns = threading.Lock()
        self._next = 0.0
        """When the next request may go out, on the clock of time.monotonic."""

    def ask_all(self, questions: Sequence[Question[T]], *, reserve: int = 0) -> list[T | Unusable]:
        """What ``read`` made of the answers, in the order of the questions.

        A bad answer is sent back with what was wrong, up to ``options.attempts`` answers. Two questions with the same
        request share the answer. ``reserve`` of the budget is left for later.

        Raises:
            InputError: if the model refuses for good, cannot be reached, or somebody has to answer first. What was
                answered is kept; the same call goes on from there.
            OSError: if an answer cannot be kept.
        """
        outcomes: list[T | Unusable] = []
        while rest := questions[len(outcomes) :]:
            left = self._left(reserve)
            num = len(rest) if left is None else max(1, left // self.options.attempts)
            found = self._rounds(rest[:num], reserve)
            outcomes += found
        return outcomes

    def _left(self, reserve: int) -> int | None:
        return None if self.max_requests is None else max(0, self.max_requests - reserve - self.usage.asked)

    def _rounds(self, questions: Sequence[Question[T]], reserve: int) -> list[T | Unusable]:
        """`ask_all`, for questions that are asked together."""
        requests = [question.request for question in questions]
        outcomes: list[Any] = [None] * len(questions)
        complaints = [""] * len(questions)
        awaited = []
        for attempt in range(1, self.options.attempts + 1):
            are_open = [number for number, outcome in enumerate(outcomes) if outcome is None]
            replies = self._replies([requests[number] for number in are_open], reserve, is_repair=attempt > 1)
            for number in are_open:
                reply = replies[requests[number]]
                if isinstance(reply, Path):
                    awaited.append(reply)
                if not isinstance(reply, Answer):
                    outcomes[number] = reply
                    continue
                try:
                    outcomes[number] = questions[number].read(reply)
                except BadAnswerError as error:
                    complaints[number] = str(error)
                    label = f"{questions[number].request.label}, repair {attempt}"
                    requests[number] = _mended(requests[number], reply, error, label)
        if awaited:
            names = sorted({path.name for path in awaited})
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"answers are awaited in {awaited[0].parent}: {', '.join(names[:3])}{more}; the prompt of each is "
                "beside it, in .prompt.txt; write them there, then run the same command again"
            )
        for number, outcome in enumerate(outcomes):
            if outcome is None or isinstance(outcome, Unusable):
                reason = outcome.reason if outcome else f"no usable answer in {self.options.attempts} attempts"
                reason += f"; the last answer: {complaints[number]}" if complaints[number] else ""
                outcomes[number] = Unusable(reason)
                self.usage.unusable += 1
                self._watcher.unusable(questions[number].request, reason)
        return outcomes

    def _replies(self, requests: Sequence[Request], reserve: int, *, is_repair: bool) -> dict[Request, Reply]:
        """Every request answered, once each: from what is kept or, as far as the budget goes, by the model."""
        replies: dict[Request, Reply] = {}
        missing: list[Request] = []
        left = self._left(reserve)
        for request in dict.fromkeys(requests):
            is_stale = self.options.fresh and request not in self._asked
            if self._kept is not None and not is_stale and (answer := self._kept.load(request)):
                replies[request] = answer
                self.usage.cached += 1
                self._watcher.answered(request, cached=True)
            elif left is not None and len(missing) >= left:
                replies[request] = Unusable(f"the budget of {self.max_requests} requests is used up")
            else:
                missing.append(request)
        if self._kept is not None and missing:
            self._kept.prepare()

        def ask(request: Request) -> tuple[Request, Reply]:
            try:
                return request, self._answer(request)
            except AnswerPendingError as error:
                return request, error.path
            except RequestTooLongError:
                if not is_repair:
                    raise
                return request, Unusable("the request to mend the answer is too long for the model")

        num_threads = min(self.options.concurrency, self.model.max_concurrency, len(missing))
        for request, reply in _as_they_come(ask, missing, num_threads):
            replies[request] = reply
            if isinstance(reply, Answer):
                self._asked.add(request)
                self.usage.asked += 1
                self.usage.prompt_tokens += reply.prompt_tokens or 0
                self.usage.answer_tokens += reply.answer_tokens or 0
                self._watcher.answered(request, cached=False)
        return replies

    def _answer(self, request: Request) -> Answer:
        """An answer of the model, kept, after as many failures of transport as are allowed."""

        def tell(state: RetryCallState) -> None:
            assert state.outcome is not None
            self.usage.retried += 1
            self._watcher.waiting(request, str(state.outcome.exception()), state.upcoming_sleep)
            if _asked_wait_s(state):  # All requests share the limit of the server.
                self._next = max(self._next, time.monotonic() + state.upcoming_sleep)

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(self.options.retries + 1),
            wait=lambda state: max(BACKOFF(state), _asked_wait_s(state)),
            before=lambda state: self._take_turn(),
            before_sleep=tell,
            reraise=True,
        )
        try:
            answer = retrying(self.model.ask, request)
        except TransientError as error:
            identity = self.model.identity
            raise InputError(
                f"{identity.get('endpoint', identity['model'])} gave no answer in {self.options.retries + 1} attempts, "
                f"the last error is: {error}; what was answered is kept, and the same command goes on from there"
            ) from error
        if self._kept is not None:
            self._kept.save(request, answer)
        return answer

    def _take_turn(self) -> None:
        """Returns when the next request may go out."""
        with self._turns:
            while (wait := self._next - time.monotonic()) > 0:  # It may be put off in the meantime.
                time.sleep(wait)
            self._next = time.monotonic() + 60.0 / (self.options.requests_per_minute or math.inf)


def _as_they_come(
    ask: Callable[[Request], tuple[Request, Reply]], requests: Sequence[Request], num_threads: int
) -> Iterator[tuple[Request, Reply]]:
    """What ``ask`` returns, begun in the order of the requests; after the first error nothing more is begun.

    A single thread is this one. Others are daemons: on Ctrl-C nobody waits for answers under way, as Python waits for
    the threads of an executor.
    """
    if num_threads <= 1:
        yield from map(ask, requests)
        return
    waiting, stopped = iter(requests), threading.Event()
    results: SimpleQueue[tuple[Request, Reply] | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            for request in waiting:
                if not stopped.is_set():
                    results.put(ask(request))
        except BaseException as error:
            results.put(error)

    for _ in range(num_threads):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in requests:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stopped.set()


def _mended(asked: Request, answer: Answer, error: BadAnswerError, label: str) -> Request:
    """The conversation goes on: the bad answer, and what was wrong with it."""
    said = answer.text if len(answer.text) <= MAX_REPEATED else f"{answer.text[:MAX_REPEATED]} ..."
    complaint = f"This answer cannot be used: {error}\nAnswer the whole request again, and mend this."
    # Many chat templates refuse an empty turn, and two turns of the user in a row.
    turns = Message("assistant", said.strip() or "(empty)"), Message("user", complaint)
    return replace(asked, messages=(*asked.messages, *turns), label=label)


def _asked_wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return min(error.retry_after, LONGEST_ASKED_WAIT_S) if isinstance(error, TransientError) else 0.0
