"""At a site, in NVFlare's job process: takes what the coordinator asks to the site's worker, and its answer back.

No torch, and nothing of what the bytes mean.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fedmpt.federated.flare.sockets import MAX_BYTES, NoReplyError, call

TASK = "ask"
"""The one task of our jobs."""
ASK, CONTENT, ERROR, SECONDS, LIMIT = "ask", "content", "error", "seconds", "limit"
"""What is in a task: the ask's number, content, seconds, and the bytes that an answer may have. And in an answer: the
number, and content or error."""
WORKER_SOCKET = "FEDMPT_WORKER_SOCKET"
MAX_SECONDS = 7 * 86400.0


class BridgeExecutor(Executor):  # type: ignore[misc]  # nvflare has no types.
    """``max_bytes`` comes with the job, from the coordinator: it can only lower what this site sends and takes."""

    def __init__(self, max_bytes: Any = MAX_BYTES) -> None:
        super().__init__()
        self._max_bytes = min(_number(max_bytes, MAX_BYTES), MAX_BYTES)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        answer = Shareable()
        answer[ASK] = shareable.get(ASK)
        try:
            answer[CONTENT] = self._asked(shareable, abort_signal)
        except NoReplyError as error:
            answer[ERROR] = str(error)
        return answer

    def _asked(self, task: Shareable, abort_signal: Signal) -> bytes:
        content, number = task.get(CONTENT), task.get(ASK)
        if not isinstance(content, bytes) or not isinstance(number, str):
            raise NoReplyError("the coordinator sent something that is no message")
        if len(content) > self._max_bytes:
            raise NoReplyError(f"the coordinator sent {len(content)} bytes, and {self._max_bytes} are allowed")
        seconds = _number(task.get(SECONDS), MAX_SECONDS)
        path, key = Path(os.environ.get(WORKER_SOCKET, "unset")), key_of(number)
        try:
            reply = call(path, content, timeout=seconds, key=key, should_stop=lambda: bool(abort_signal.triggered))
        except NoReplyError as error:
            raise NoReplyError(f"its worker: {error}") from None
        limit = int(min(_number(task.get(LIMIT), self._max_bytes), self._max_bytes))
        if len(reply) > limit:
            raise NoReplyError(f"its answer has {len(reply)} bytes, and {limit} are allowed")
        return reply


def key_of(number: str) -> bytes:
    """An ask's number as the key of the call to the worker. Raises NoReplyError if it is none."""
    try:
        key = bytes.fromhex(number)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise NoReplyError("the coordinator sent an ask without its number")
    return key


def _number(value: Any, most: float) -> Any:
    """A positive number that came from outside, at most ``most``, which it also is where it is no number."""
    return min(value, most) if type(value) in (int, float) and value > 0 else most
