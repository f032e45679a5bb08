"""Questions to a language model: within a budget, with repairs of bad answers, and with a memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from fedmpt.files import write_json
from fedmpt.llm.model import Answer, LanguageModel, Message, Request, RequestTooLongError
from fedmpt.llm.options import LLMOptions
from fedmpt.types import InputError

T = TypeVar("T")

MAX_REPEATED = 8000
"""Characters of a bad answer that a repair says again; of one that has no end the start is enough."""
_THOUGHTS = re.compile(r"\A(?:\s*<think>.*?(?:</think>|\Z)|(?:(?!<think>).)*?</think>)\s*", re.DOTALL)
"""What reasoning models may put before an answer; some chat templates begin it for them."""


class BadAnswerError(Exception):
    """An answer that cannot be used. The text is for the model: what was wrong with its answer."""


@dataclass(frozen=True)
class Unusable:
    """What comes of a question whose answers could not be read; ``reason`` is for people."""

    reason: str


@dataclass
class Usage:
    """Answers asked of the model and taken from the cache, questions without a result, tokens of the answers asked."""

    asked: int = 0
    cached: int = 0
    unusable: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


Tell = Callable[[Request, bool, str], None]
"""Is told of every answer, and whether it was kept, and with a reason of questions without a usable one."""


class Asker:
    """Asks questions of one model.

    Every answer is kept at once in ``cache``, as ``<2 digits>/<SHA-256 of model and request>.json``: a second run has
    the same conversations without asking. ``max_requests`` counts answers asked, repairs included.
    """

    def __init__(
        self, model: LanguageModel, options: LLMOptions, *, cache: Path, max_requests: int, tell: Tell
    ) -> None:
        self.model, self.options, self.cache, self.max_requests = model, options, cache, max_requests
        self.usage = Usage()
        self._tell = tell
        self._asked: set[Request] = set()
        self._counting, self._turn, self._next_turn = threading.Lock(), threading.Lock(), 0.0

    def ask_all(
        self, requests: Sequence[Request], reads: Sequence[Callable[[Answer], T]], *, reserve: int = 0
    ) -> list[T | Unusable]:
        """What each of ``reads`` made of the answer to its request; it raises `BadAnswerError` where it cannot.

        A bad answer is sent back with what was wrong, up to ``options.attempts`` answers. ``reserve`` of the budget is
        left for later. As many are asked together as the budget holds with all their repairs, so what comes of them
        never depends on which answer came first.

        Raises:
            InputError: if there is no answer, or somebody has to write it first; the same call goes on from there.
        """
        outcomes: list[Any] = []
        while rest := range(len(outcomes), len(requests)):
            together = rest[: max(1, self._left(reserve) // self.options.attempts)]
            at_once = max(1, min(self.options.concurrency, self.model.max_concurrency, len(together)))

            def ask(number: int) -> tuple[int, T | Unusable | Path]:
                return number, self._ask(requests[number], reads[number], reserve)

            with ThreadPool(at_once) as pool:  # Of daemons: on Ctrl-C nobody waits for answers under way.
                found = dict(map(ask, together) if at_once == 1 else pool.imap_unordered(ask, together))
            outcomes += [found[number] for number in together]
        if awaited := sorted(outcome for outcome in outcomes if isinstance(outcome, Path)):
            names = ", ".join(path.name for path in awaited[:3]) + (", ..." if len(awaited) > 3 else "")
            raise InputError(
                f"answers awaited in {awaited[0].parent}: {len(awaited)} ({names}); the prompt of each is beside it, "
                "in .prompt.txt; write them there, then run the same command again"
            )
        return outcomes

    def _left(self, reserve: int) -> int:
        return max(0, self.max_requests - reserve - self.usage.asked)

    def _ask(self, first: Request, read: Callable[[Answer], T], reserve: int) -> T | Unusable | Path:
        """What comes of one request in the end, or the file in which an answer is awaited."""
        request, complaint = first, ""
        for attempt in range(1, self.options.attempts + 1):
            try:
                reply = self._kept(request) or self._answer(request, reserve)
            except RequestTooLongError:
                if attempt == 1:
                    raise
                reason = "the request to mend the answer is too long for the model"
                break
            if reply is None:
                reason = f"the budget of {self.max_requests} requests is used up"
                break
            if isinstance(reply, Path):
                return reply
            answer = replace(reply, text=_THOUGHTS.sub("", reply.text))
            try:
                return read(answer)
            except BadAnswerError as error:
                complaint, said = f"; the last answer: {error}", answer.text
                shown = said.strip() if len(said) <= MAX_REPEATED else f"{said[:MAX_REPEATED]} ..."
                told = f"This answer cannot be used: {error}\nAnswer the whole request again, and mend this."
                # Many chat templates refuse an empty turn, and two turns of the user in a row.
                turns = Message("assistant", shown or "(empty)"), Message("user", told)
                label = f"{first.label}, repair {attempt}"
                request = replace(request, messages=(*request.messages, *turns), label=label)
        else:
            reason = f"no usable answer in {self.options.attempts} attempts"
        with self._counting:
            self.usage.unusable += 1
            self._tell(first, False, reason + complaint)
        return Unusable(reason + complaint)

    def _answer(self, request: Request, reserve: int) -> Answer | Path | None:
        """An answer of the model, kept; None where the budget allows none."""
        if not self._left(reserve):
            return None
        path = self._path(request)
        try:  # First, so that nothing is paid for that cannot be kept.
            if not self.model.keeps_answers:
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"no answer can be kept in {self.cache}: {error.strerror}; give another --cache"
            ) from error
        with self._turn:
            time.sleep(max(0.0, self._next_turn - time.monotonic()))
            self._next_turn = time.monotonic() + 60.0 / (self.options.requests_per_minute or float("inf"))
        answer = self.model.ask(request)
        if isinstance(answer, Path):
            return answer
        if not self.model.keeps_answers:
            write_json(path, {"format": 1, **self._key(request), "answer": asdict(answer)})
        with self._counting:
            self._asked.add(request)
            self.usage.asked += 1
            self.usage.prompt_tokens += answer.prompt_tokens or 0
            self.usage.answer_tokens += answer.answer_tokens or 0
            self._tell(request, False, "")
        return answer

    def _kept(self, request: Request) -> Answer | None:
        """The answer of an earlier run; None if there is none, its file is damaged, or all is to be asked anew."""
        if self.model.keeps_answers or (self.options.fresh and request not in self._asked):
            return None
        try:
            kept = Answer(**json.loads(self._path(request).read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with self._counting:
            self.usage.cached += 1
            self._tell(request, True, "")
        return kept

    def _path(self, request: Request) -> Path:
        canonical = json.dumps(self._key(request), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"

    def _key(self, request: Request) -> dict[str, Any]:
        parameters = {"max_tokens": request.max_tokens, "temperature": float(request.temperature), "seed": request.seed}
        return {"identity": dict(self.model.identity), "messages": request.chat(), "parameters": parameters}
