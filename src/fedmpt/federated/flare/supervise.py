"""A site's two processes: its worker, and NVFlare's client once the worker listens. What dies is started again."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fedmpt.federated.flare.certificates import check_certificates
from fedmpt.federated.flare.executor import WORKER_SOCKET
from fedmpt.federated.flare.news import News
from fedmpt.federated.flare.processes import SETTINGS, Child, how_it_ended, nvflare_command, remove_jobs
from fedmpt.federated.flare.sockets import is_listening, private_folder

INTERRUPTED = 130
WRONG_INPUT = 2
"""The exit code of a worker that has nothing to work with. To start it again would not help."""
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds before a process is started again, the first time and after; the last is for all later times."""
STEADY = 120.0
"""Seconds after which a process has lived long enough to begin with the short pauses again."""
TICK = 0.2
KEPT_JOBS = 5
"""Folders of NVFlare's jobs, with their logs, that stay."""
HEARTBEAT = 4
"""Seconds between NVFlare's signs of life to the server."""


def supervise(kit: Path, *, worker: Sequence[str], note: Callable[[str], None]) -> int:
    """Keep a site's worker and its client alive until Ctrl-C (`INTERRUPTED`) or SIGTERM (0), or until the worker ends
    with `WRONG_INPUT`; returns that exit code.

    The worker has our terminal. It finds its socket's path in $FEDMPT_WORKER_SOCKET, and may take hours to listen
    there. ``note`` gets one line for each thing that a site's engineer should know, from any thread. To be called in
    the main thread. No process outlives this one.

    Raises:
        InputError: if the time of the site's certificate is over, when the client is to start or is refused.
    """
    (kit / "logs").mkdir(exist_ok=True)
    with private_folder() as folder, _stopped_by_signals() as stopped:
        path = folder / "worker"
        env = {WORKER_SOCKET: str(path)}
        news = News(address_of(kit), note=note)
        watched = _Watched("its worker", lambda: Child(worker, env=env), note)
        command = nvflare_command("client", kit, f"uid={site_of(kit)}", f"heart_beat_interval={HEARTBEAT}")
        log = kit / "logs" / "client.log"
        client = _Watched(
            "NVFlare's client", lambda: Child(command, env=SETTINGS | env, log=log, on_line=news.read), note
        )
        try:
            while not stopped:
                if watched.look() == WRONG_INPUT:
                    return WRONG_INPUT
                if client.has_started or is_listening(path):
                    if client.is_due or news.is_refused:
                        check_certificates(kit)
                    if client.is_due:
                        remove_jobs(kit)
                        news.begin()
                    client.look()
                    news.look()
                    if news.must_restart:
                        client.end()
                    remove_jobs(kit, keep=KEPT_JOBS)
                time.sleep(TICK)
        finally:
            client.end()
            watched.end()
        return stopped[0]


class _Watched:
    """A process that is started again when it has died, after a pause."""

    def __init__(self, name: str, start: Callable[[], Child], note: Callable[[str], None]) -> None:
        self._name, self._start, self._note = name, start, note
        self._child: Child | None = None
        self._next, self._deaths, self._born = 0.0, 0, 0.0

    @property
    def has_started(self) -> bool:
        return self._born > 0

    @property
    def is_due(self) -> bool:
        return self._child is None and time.monotonic() >= self._next

    def look(self) -> int | None:
        """Start it where it is due. The exit code, once, where it has died."""
        now = time.monotonic()
        if self.is_due:
            self._child, self._born = self._start(), now
        if self._child is None or (code := self._child.poll()) is None:
            return None
        pause = self._rest()
        if code != WRONG_INPUT:
            self._note(f"{self._name} has stopped ({how_it_ended(code)}); it is started again in {pause:g} s")
        return code

    def end(self) -> None:
        """Let it be started again, after the pause."""
        if self._child is not None:
            self._rest()

    def _rest(self) -> float:
        """End it and all that it has started. The seconds until it is due again."""
        assert self._child is not None
        self._child.stop()
        now, self._child = time.monotonic(), None
        self._deaths = 0 if now - self._born > STEADY else self._deaths
        pause = PAUSES[min(self._deaths, len(PAUSES) - 1)]
        self._deaths, self._next = self._deaths + 1, now + pause
        return pause


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """A list that gets an exit code when a signal asks us to stop."""
    codes: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        codes.append(INTERRUPTED if number == signal.SIGINT else 0)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield codes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def address_of(kit: Path) -> str:
    return str(_settings(kit)["servers"][0]["service"]["target"])


def site_of(kit: Path) -> str:
    return str(_settings(kit)["client"]["fqsn"])


def _settings(kit: Path) -> dict[str, Any]:
    return json.loads((kit / "startup" / "fed_client.json").read_text())
