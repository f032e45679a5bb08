"""An HTTP server on loopback with faults: each request is answered by the next behaviour of a script, then well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from loopback import LoopbackServer

Behaviour = Callable[["Handler", bytes], None]
"""Answers one request for a file with this content."""


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Mapping[str, str]

    @property
    def start(self) -> int:
        """The first byte asked for."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


class FaultyServer(LoopbackServer):
    """Serves ``files`` by path. ``asked`` and ``sent_bytes`` (of bodies of archives) tell what happened."""

    def __init__(self, files: Mapping[str, bytes], *script: Behaviour) -> None:
        super().__init__(Handler)
        self.files = dict(files)
        self.script = list(script)
        self.asked: list[Asked] = []
        self.sent_bytes = 0


class Handler(BaseHTTPRequestHandler):
    def __init__(self, faulty: FaultyServer, *args: Any) -> None:
        self.faulty = faulty
        super().__init__(*args)

    def do_GET(self) -> None:
        self.faulty.asked.append(Asked(self.path, dict(self.headers)))
        content = self.faulty.files.get(self.path)
        if content is None:
            status(404)(self, b"")
            return
        behaviour = self.faulty.script.pop(0) if self.faulty.script else good
        with suppress(OSError):
            behaviour(self, content)

    def begin(self, code: int, headers: Mapping[str, object]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def send(self, body: bytes) -> None:
        self.wfile.write(body)
        self.wfile.flush()
        self.faulty.sent_bytes += len(body)

    def log_message(self, *_: object) -> None:
        pass


def answer(handler: Handler, content: bytes, *, body_bytes: int | None = None, ranges: bool = True) -> None:
    """Send the head of a right answer, and the first ``body_bytes`` of its body."""
    start = handler.faulty.asked[-1].start if ranges else 0
    headers: dict[str, object] = {"Content-Type": "application/x-tar", "Content-Length": len(content) - start}
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.begin(206 if start else 200, headers)
    handler.send(content[start:][:body_bytes])


def good(handler: Handler, content: bytes) -> None:
    answer(handler, content)


def cut(after: int) -> Behaviour:
    """Ends the connection after some bytes of the body."""
    return lambda handler, content: answer(handler, content, body_bytes=after)


def hang(after: int) -> Behaviour:
    """Goes silent after some bytes of the body, as long as the server runs."""

    def behave(handler: Handler, content: bytes) -> None:
        answer(handler, content, body_bytes=after)
        handler.faulty.stopping.wait(30)

    return behave


def without_ranges(handler: Handler, content: bytes) -> None:
    answer(handler, content, ranges=False)


def other(content: bytes) -> Behaviour:
    """Another file in place of the right one."""
    return lambda handler, _: answer(handler, content)


def status(code: int) -> Behaviour:
    return lambda handler, _: handler.begin(code, {"Content-Length": 0})


def page(handler: Handler, _: bytes) -> None:
    """What hotels and firewalls answer."""
    body = b"<html>Please log in</html>"
    handler.begin(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": len(body)})
    handler.wfile.write(body)
