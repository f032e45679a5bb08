"""An endpoint on loopback that answers questions about conditions by rules, after faults that a test wants."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

TESTS = Path(__file__).resolve().parents[1]
# Where those stand that their own tests import by name.
sys.path += [path for part in ("llm", "conditions") if (path := str(TESTS / part)) not in sys.path]

from faulty_llm import Asked, Behaviour, FaultyLLM, Handler, error  # noqa: E402
from faulty_llm import good as answer_of  # noqa: E402
from scripted import asked_in, good, numbered_in, stage_of  # noqa: E402

from fedmpt.llm.model import Message, Request  # noqa: E402

__all__ = [
    "Handler",
    "Rule",
    "ScriptedEndpoint",
    "asked_in",
    "error",
    "good",
    "numbered_in",
    "request_of",
    "stage_of",
]

Rule = Callable[[Request], "str | Behaviour"]
"""What comes of a request: a text, or something else than a good answer."""


class ScriptedEndpoint(FaultyLLM):
    """Answers by ``rule``, after ``first``."""

    def __init__(self, rule: Rule = good, *, first: tuple[Behaviour, ...] = ()) -> None:
        super().__init__()
        self.script = _Endless(self, list(first))
        self.rule = rule

    @property
    def requests(self) -> list[Request]:
        return [request_of(asked) for asked in self.asked]

    def texts(self) -> list[str]:
        """Every message that was sent."""
        return [message.content for request in self.requests for message in request.messages]

    def words(self, *more: object) -> list[object]:
        """Options that name this endpoint; nothing is tried twice, which would take time."""
        return ["--llm", "some-model", "--endpoint", self.url, "--retries", 0, *more]


class _Endless(list[Behaviour]):
    """The server takes the next behaviour where it notes the request, so the last one noted is the one to answer."""

    def __init__(self, endpoint: ScriptedEndpoint, first: list[Behaviour]) -> None:
        super().__init__(first)
        self._endpoint = endpoint

    def __bool__(self) -> bool:
        return True

    def pop(self, index: SupportsIndex = -1) -> Behaviour:
        if len(self):
            return super().pop(index)
        return _by_rule(self._endpoint.rule, request_of(self._endpoint.asked[-1]))


def _by_rule(rule: Rule, request: Request) -> Behaviour:
    def behave(handler: Handler) -> None:
        said: Any = rule(request)
        (answer_of(said) if isinstance(said, str) else said)(handler)

    return behave


def request_of(asked: Asked) -> Request:
    body = asked.body
    messages = tuple(Message(message["role"], message["content"]) for message in body["messages"])
    return Request(messages, max_tokens=body["max_tokens"], temperature=body["temperature"], seed=body["seed"])
