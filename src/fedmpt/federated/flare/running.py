"""A job that runs, as the driver sees it: its controller at the other end of a socket."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from fedmpt.federated.flare import bridge


@dataclass(frozen=True)
class Answer:
    """Of one site to one ask. ``error`` is empty where there is content; else it says why, in words for a table."""

    site: str
    content: bytes | None
    error: str


class RunningJob:
    """``number`` is NVFlare's for the job, ``since`` when it was submitted (monotonic). The server has sent it to the
    sites ``reached``."""

    def __init__(self, number: str, connection: socket.socket, *, since: float, reached: Collection[str]) -> None:
        self.number, self.since, self.reached = number, since, frozenset(reached)
        self.present: frozenset[str] = frozenset()
        """Sites whose job process is heard."""
        self._connection = connection
        self._ended = threading.Event()
        self._answers: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def ask(self, contents: Mapping[str, bytes], *, number: str, timeout: float, limit: int) -> None:
        """Send contents to sites. One that several sites share goes to the controller once."""
        groups: dict[int, list[str]] = {}
        for site, content in contents.items():
            groups.setdefault(id(content), []).append(site)
        words = {"number": number, "timeout": timeout, "limit": limit, "sites": list(groups.values())}
        try:
            bridge.send(self._connection, bridge.ASK, words, *(contents[sites[0]] for sites in groups.values()))
        except OSError:
            self._ended.set()

    def answers(self, number: str, *, until: float, is_over: Callable[[], bool]) -> Iterator[Answer]:
        """Answers to the ask, as they come, until the time (monotonic), the job's end, or ``is_over``."""
        while True:
            try:
                asked, answer = self._answers.get(timeout=0.1)
            except queue.Empty:
                if is_over() or self.has_ended or time.monotonic() > until:
                    return
                continue
            if asked == number:
                yield answer

    def close(self) -> None:
        """End the job: its controller sees it at once."""
        self._ended.set()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _listen(self) -> None:
        while (heard := bridge.receive(self._connection)) is not None:
            words, bodies = heard
            if words["kind"] == bridge.PRESENT:
                self.present = frozenset(words["sites"])
            elif words["kind"] == bridge.ANSWER:
                content = None if words["error"] else bodies[0]
                self._answers.put((words["number"], Answer(words["site"], content, words["error"])))
        self._ended.set()
