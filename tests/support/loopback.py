"""An HTTP server on loopback for tests, which runs in a thread as long as its context."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class LoopbackServer:
    """``handler`` is made with this server as its first argument. ``stopping`` is set when the context ends."""

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.stopping = threading.Event()
        handler_here: Any = partial(handler, self)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler_here)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # Clients that leave are no news.
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
