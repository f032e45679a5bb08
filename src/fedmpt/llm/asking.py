"""Questions to a language model: within a budget, with repairs of bad answers, and with a memory."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Generic, TypeVar

from fedmpt.files import write_atomically
from fedmpt.llm.model import Answer, AnswerPendingError, LanguageModel, Message, Request, RequestTooLongError
from fedmpt.llm.options import LLMOptions
from fedmpt.types import InputError

T = TypeVar("T")

MAX_REPEATED = 8000
"""Characters of a bad answer that a repair says again; of one that has no end the start is enough."""


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
    """Answers asked of the model and taken from the cache, questions without a result, tokens of the answers asked."""

    asked: int = 0
    cached: int = 0
    unusable: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


class Watcher:
    """Who is told how it goes; this one does nothing with it."""

    def answered(self, request: Request, *, cached: bool) -> None: ...

    def unusable(self, request: Request, reason: str) -> None: ...


class Asker:
    """Asks questions of one model.

    It goes in rounds, first answers, then repairs, so what the budget allows never depends on which answer came first.
    Every answer is kept at once in ``cache``, as ``<2 digits>/<SHA-256 of model and request>.json``: a second run has
    the same conversations without asking. ``max_requests`` counts answers asked, repairs included.
    """

    def __init__(
        self,
        model: LanguageModel,
        options: LLMOptions,
        *,
        cache: Path,
        max_requests: int,
        watcher: Watcher | None = None,
    ) -> None:
        self.model, self.options, self.cache, self.max_requests = model, options, cache, max_requests
        self.usage = Usage()
        self._watcher = watcher or Watcher()
        self._asked: set[Request] = set()
        self._turn, self._next_turn = threading.Lock(), 0.0

    def ask_all(self, questions: Sequence[Question[T]], *, reserve: int = 0) -> list[T | Unusable]:
        """What ``read`` made of the answers, in the order of the questions. Same requests share an answer.

        A bad answer is sent back with what was wrong, up to ``options.attempts`` answers. ``reserve`` of the budget is
        left for later.

        Raises:
            InputError: if there is no answer, or somebody has to write it first. What was answered is kept; the same
                call goes on from there.
        """
        outcomes: list[T | Unusable] = []
        while rest := questions[len(outcomes) :]:
            # So many that the budget holds their repairs too, or the last ones would use up those of the first.
            num = max(1, self._left(reserve) // self.options.attempts)
            found = self._ask_together(rest[:num], reserve)
            outcomes += found
        return outcomes

    def _left(self, reserve: int) -> int:
        return max(0, self.max_requests - reserve - self.usage.asked)

    def _ask_together(self, questions: Sequence[Question[T]], reserve: int) -> list[T | Unusable]:
        requests = [question.request for question in questions]
        outcomes: list[Any] = [None] * len(questions)
        complaints = [""] * len(questions)
        for attempt in range(1, self.options.attempts + 1):
            are_open = [number for number, outcome in enumerate(outcomes) if outcome is None]
            replies = self._replies([requests[number] for number in are_open], reserve, is_repair=attempt > 1)
            for number in are_open:
                reply = replies[requests[number]]
                if not isinstance(reply, Answer):
                    outcomes[number] = reply
                    continue
                try:
                    outcomes[number] = questions[number].read(reply)
                except BadAnswerError as error:
                    complaints[number] = f"; the last answer: {error}"
                    label = f"{questions[number].request.label}, repair {attempt}"
                    requests[number] = _mended(requests[number], reply, str(error), label)
        if awaited := sorted({outcome for outcome in outcomes if isinstance(outcome, Path)}):
            names = ", ".join(path.name for path in awaited[:3])
            more = f" and {len(awaited) - 3} more" if len(awaited) > 3 else ""
            raise InputError(
                f"answers are awaited in {awaited[0].parent}: {names}{more}; the prompt of each is beside it, in "
                ".prompt.txt; write them there, then run the same command again"
            )
        for number, outcome in enumerate(outcomes):
            if outcome is None or isinstance(outcome, Unusable):
                reason = outcome.reason if outcome else f"no usable answer in {self.options.attempts} attempts"
                outcomes[number] = Unusable(reason + complaints[number])
                self.usage.unusable += 1
                self._watcher.unusable(questions[number].request, outcomes[number].reason)
        return outcomes

    def _replies(self, requests: Sequence[Request], reserve: int, *, is_repair: bool) -> dict[Request, Reply]:
        """Every request answered, once each: from what is kept or, as far as the budget goes, by the model."""
        replies: dict[Request, Reply] = {}
        missing: list[Request] = []
        for request in dict.fromkeys(requests):
            if kept := self._kept(request):
                replies[request] = kept
                self.usage.cached += 1
                self._watcher.answered(request, cached=True)
            elif len(missing) < self._left(reserve):
                missing.append(request)
            else:
                replies[request] = Unusable(f"the budget of {self.max_requests} requests is used up")

        def ask(request: Request) -> tuple[Request, Reply]:
            try:
                return request, self._answer(request)
            except AnswerPendingError as error:
                return request, error.path
            except RequestTooLongError:
                if not is_repair:
                    raise
                return request, Unusable("the request to mend the answer is too long for the model")

        at_once = max(1, min(self.options.concurrency, self.model.max_concurrency, len(missing)))
        with ThreadPool(at_once) as pool:  # Of daemons: on Ctrl-C nobody waits for answers under way.
            for request, reply in map(ask, missing) if at_once == 1 else pool.imap_unordered(ask, missing):
                replies[request] = reply
                if isinstance(reply, Answer):
                    self._asked.add(request)
                    self.usage.asked += 1
                    self.usage.prompt_tokens += reply.prompt_tokens or 0
                    self.usage.answer_tokens += reply.answer_tokens or 0
                    self._watcher.answered(request, cached=False)
        return replies

    def _answer(self, request: Request) -> Answer:
        """An answer of the model, kept."""
        path = self._path(request)
        if not self.model.keeps_answers:
            try:  # First, so that nothing is paid for that cannot be kept.
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"answers cannot be kept in {self.cache}: {error.strerror}; give another --cache"
                ) from error
        with self._turn:
            time.sleep(max(0.0, self._next_turn - time.monotonic()))
            self._next_turn = time.monotonic() + 60.0 / (self.options.requests_per_minute or float("inf"))
        answer = self.model.ask(request)
        if not self.model.keeps_answers:
            content = {"format": 1, **self._key(request), "answer": asdict(answer)}
            # Half a surrogate pair, which no encoding has, becomes \ud83d: just what JSON writes for it.
            text = json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
            write_atomically(path, text + b"\n")
        return answer

    def _kept(self, request: Request) -> Answer | None:
        """The answer of an earlier run; None if there is none, its file is damaged, or all is to be asked anew."""
        if self.model.keeps_answers or (self.options.fresh and request not in self._asked):
            return None
        try:
            return Answer(**json.loads(self._path(request).read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _path(self, request: Request) -> Path:
        canonical = json.dumps(self._key(request), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"

    def _key(self, request: Request) -> dict[str, Any]:
        parameters = {"max_tokens": request.max_tokens, "temperature": float(request.temperature), "seed": request.seed}
        return {"identity": dict(self.model.identity), "messages": request.chat(), "parameters": parameters}


def _mended(asked: Request, answer: Answer, complaint: str, label: str) -> Request:
    """The conversation goes on: the bad answer, and what was wrong with it."""
    said = answer.text if len(answer.text) <= MAX_REPEATED else f"{answer.text[:MAX_REPEATED]} ..."
    told = f"This answer cannot be used: {complaint}\nAnswer the whole request again, and mend this."
    # Many chat templates refuse an empty turn, and two turns of the user in a row.
    turns = Message("assistant", said.strip() or "(empty)"), Message("user", told)
    return replace(asked, messages=(*asked.messages, *turns), label=label)
