"""A line between a site and the coordinator that we can slow down, delay, cut, and count the bytes of."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

CHUNK = 4096


class Line:
    """Takes connections at ``port`` of this machine on to ``to_port``.

    ``rate`` is bytes a second, each way, of all connections together (None: no limit), ``delay`` seconds one way.
    """

    def __init__(self, to_port: int, *, rate: float | None = None, delay: float = 0.0) -> None:
        self.rate, self.delay, self.is_cut = rate, delay, False
        self.bytes_up = self.bytes_down = 0
        self._to_port = to_port
        self._free_at = {"up": 0.0, "down": 0.0}
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, is_cut: bool) -> None:
        """Silence, as of a cable that is pulled out: connections stay open, nothing arrives."""
        self.is_cut = is_cut

    def drop(self) -> None:
        """End the connections that there are. New ones are taken."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for connection in (self._listener, *self._open):
            with suppress(OSError):
                connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to_port))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                for source, target, way in ((near, far, "up"), (far, near, "down")):
                    threading.Thread(target=self._carry, args=(source, target, way), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, way: str) -> None:
        """One way of a connection: read, wait until the line has carried it, and hand it over ``delay`` later."""
        late: list[tuple[float, bytes]] = []
        more = threading.Condition()

        def deliver() -> None:
            with suppress(OSError):
                while True:
                    with more:
                        while not late:
                            more.wait()
                        due, chunk = late.pop(0)
                    time.sleep(max(0.0, due - time.monotonic()))
                    while self.is_cut:
                        time.sleep(0.05)
                    if not chunk:
                        target.shutdown(socket.SHUT_WR)
                        return
                    target.sendall(chunk)

        threading.Thread(target=deliver, daemon=True).start()
        chunk = b"-"
        while chunk:
            try:
                chunk = source.recv(CHUNK)
            except OSError:
                chunk = b""
            arrival = self._through(len(chunk), way) + self.delay
            with more:
                late.append((arrival, chunk))
                more.notify()
            if self.rate is not None:  # Do not read more than the line carries: the sender has to feel it.
                time.sleep(max(0.0, arrival - self.delay - time.monotonic()))

    def _through(self, size: int, way: str) -> float:
        """When the last byte has left this end."""
        with self._lock:
            if way == "up":
                self.bytes_up += size
            else:
                self.bytes_down += size
            now = time.monotonic()
            self._free_at[way] = max(now, self._free_at[way]) + (size / self.rate if self.rate else 0.0)
            return self._free_at[way]
