"""An OpenAI-compatible server on loopback with faults: each request is answered by the next behaviour, then well."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
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
    """``asked`` are the requests that came, ``most_at_once`` how many were under way together."""

    def __init__(self, *script: Behaviour) -> None:
        super().__init__(Handler)
        self.script = list(script)
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.left = threading.Event()
        """Set when a client leaves before a behaviour without an end is done."""
        self.lock = threading.Lock()
        self.at_once = 0

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, faulty: FaultyLLM, *args: Any) -> None:
        self.faulty = faulty
        super().__init__(*args)

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Mapping[str, Any]) -> None:
        faulty = self.faulty
        self.close_connection = True
        with faulty.lock:
            faulty.asked.append(Asked(self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            behaviour = faulty.script.pop(0) if faulty.script else good("fine")
            faulty.at_once += 1
            faulty.most_at_once = max(faulty.most_at_once, faulty.at_once)
        with suppress(OSError):
            behaviour(self)
        with faulty.lock:
            faulty.at_once -= 1

    def begin(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, part: bytes) -> None:
        """One chunk of a body of unknown length."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def event(text: str | None = None, *, finish: str | None = None, **delta: Any) -> bytes:
    """One server-sent event with a piece of the answer."""
    content = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": {**content, **delta}, "finish_reason": finish}
    return data({"object": "chat.completion.chunk", "choices": [choice]})


def data(value: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps(value).encode()


USAGE = data({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
DONE = b"data: [DONE]\n\n"


def stream(*parts: bytes, kind: str = "text/event-stream") -> Behaviour:
    """These bytes, each as a chunk, under the status 200."""

    def behave(handler: Handler) -> None:
        handler.begin(200, Content_Type=kind, Transfer_Encoding="chunked")
        for part in parts:
            handler.send(part)
        handler.wfile.write(b"0\r\n\r\n")

    return behave


def good(*texts: str, finish: str = "stop") -> Behaviour:
    """An answer in pieces."""
    return stream(event(role="assistant"), *map(event, texts), event(finish=finish), USAGE, DONE)


def cut(*parts: bytes, how: str) -> Behaviour:
    """The connection ends within the answer: "closed" as if it were whole, "chunk" within a chunk, "reset" hard."""

    def behave(handler: Handler) -> None:
        if how == "closed":
            handler.begin(200, Content_Type="text/event-stream")
            handler.wfile.write(b"".join(parts))
            return
        handler.begin(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        for part in parts:
            handler.send(part)
        if how == "chunk":
            handler.wfile.write(b"ffff\r\ndata: ")
            return
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return behave


def whole(code: int, body: bytes, **headers: object) -> Behaviour:
    """A body of known length."""

    def behave(handler: Handler) -> None:
        handler.begin(code, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return behave


def json_body(code: int, value: Any, **headers: object) -> Behaviour:
    return whole(code, json.dumps(value).encode(), Content_Type="application/json", **headers)


def error(
    status: int, message: str, *, headers: Mapping[str, object] | None = None, code: str | None = None, **more: Any
) -> Behaviour:
    """An error as OpenAI's service writes it."""
    described = {"message": message, "type": "some_error", "param": None, "code": code, **more}
    return json_body(status, {"error": described}, **(headers or {}))


def short_body(code: int) -> Behaviour:
    """Promises more of an error than comes."""

    def behave(handler: Handler) -> None:
        handler.begin(code, Content_Length=1000, Content_Type="application/json")
        handler.wfile.write(b'{"error"')

    return behave


def endless(part: bytes, *, code: int = 200) -> Behaviour:
    """The same part again and again, until the client leaves."""

    def behave(handler: Handler) -> None:
        handler.begin(code, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        try:
            while not handler.faulty.stopping.is_set():
                handler.send(part)
        except OSError:
            handler.faulty.left.set()

    return behave


def drip(parts: Iterable[bytes], *, every_s: float) -> Behaviour:
    """Something now and then, so that no timeout between two pieces strikes."""

    def behave(handler: Handler) -> None:
        handler.begin(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        for part in parts:
            if handler.faulty.stopping.wait(every_s):
                return
            handler.send(part)

    return behave


def late(seconds: float) -> Behaviour:
    """Nothing at all for a while, then a good answer."""

    def behave(handler: Handler) -> None:
        if not handler.faulty.stopping.wait(seconds):
            good("late")(handler)

    return behave


def nonsense(handler: Handler) -> None:
    """No HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def meeting(number: int) -> Behaviour:
    """A good answer once so many requests are under way together."""
    barrier = threading.Barrier(number)

    def behave(handler: Handler) -> None:
        barrier.wait(30)
        good("fine")(handler)

    return behave
