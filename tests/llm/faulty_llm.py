"""An OpenAI-compatible server on loopback with faults: each request is answered by the next behaviour, then well."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import LoopbackServer

Behaviour = Callable[["Handler"], None]
"""Answers one request."""


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class FaultyLLM(LoopbackServer):
    """``asked`` are the requests that came."""

    def __init__(self, *script: Behaviour) -> None:
        super().__init__(Handler)
        self.script = list(script)
        self.asked: list[Asked] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, faulty: FaultyLLM, *args: Any) -> None:
        self.faulty = faulty
        super().__init__(*args)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        faulty = self.faulty
        with faulty.lock:
            faulty.asked.append(Asked(self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            behaviour = faulty.script.pop(0) if faulty.script else good("fine")
        with suppress(OSError):
            behaviour(self)

    def log_message(self, *_: object) -> None:
        pass


def whole(code: int, body: bytes, *, promised: int = 0, **headers: object) -> Behaviour:
    """A body, of which more may be promised than comes."""

    def behave(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content_Length": promised or len(body), **headers}.items():
            handler.send_header(name.replace("_", "-"), str(value))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def json_body(code: int, value: Any, **headers: object) -> Behaviour:
    return whole(code, json.dumps(value).encode(), Content_Type="application/json", **headers)


def good(text: Any, *, finish: str = "stop", **message: Any) -> Behaviour:
    """An answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return json_body(200, {"choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})


def error(status: int, message: str, *, code: str | None = None, **headers: object) -> Behaviour:
    """An error as OpenAI's service writes it."""
    described = {"message": message, "type": "some_error", "param": None, "code": code}
    return json_body(status, {"error": described}, **headers)


def nonsense(handler: Handler) -> None:
    """No HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def late(handler: Handler) -> None:
    """Nothing at all, until the test is over."""
    handler.faulty.stopping.wait(30)


def meeting(number: int) -> Behaviour:
    """A good answer once so many requests are under way together."""
    barrier = threading.Barrier(number)

    def behave(handler: Handler) -> None:
        barrier.wait(30)
        good("fine")(handler)

    return behave
