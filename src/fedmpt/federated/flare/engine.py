"""NVFlare at the coordinator: its server as a child, and the operator's session with it. What dies is made anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from fedmpt.federated.flare.server import Server
from fedmpt.federated.flare.session import ENDED, Session, SessionError

RETURN = 40.0
"""Seconds that sites have to come back to a server that was started again; they take up to 15."""
T = TypeVar("T")


class Engine:
    """``env`` is the server's and its jobs'. Use it in a thread that lives on: the server is a child of the thread."""

    def __init__(self, coordinator: Path, *, env: Mapping[str, str], note: Callable[[str], None]) -> None:
        self._operator, self._note = coordinator / "operator", note
        self._server = Server(coordinator / "server", env=env, log=coordinator / "logs" / "server.log")
        self._session: Session | None = None
        self._since: dict[str, float] = {}
        self._returning: set[str] = set()
        self._back_by = 0.0

    def start(self) -> None:
        """Raises InputError if the server does not start."""
        self._server.start()

    def stop(self) -> None:
        self._drop_session()
        self._server.stop()

    def connected(self) -> Mapping[str, float]:
        """The sites that are there now, and since when (Unix time), as far as this process has seen them."""
        try:
            sites = self._command(lambda session: session.connected())
        except SessionError as error:
            self._note(f"NVFlare's server does not say who is connected: {error}")
            sites = []
        now = time.time()
        self._since = {site: self._since.get(site, now) for site in sites}
        return dict(self._since)

    def connected_of(self, sites: set[str]) -> set[str]:
        """All that are connected. After a new start of the server ``sites`` need a moment to come back."""
        found = set(self.connected())
        while self._returning & sites - found and time.monotonic() < self._back_by:
            time.sleep(0.5)
            found = set(self.connected())
        return found

    def submit(self, folder: Path) -> str:
        """The number of the new job. Raises SessionError if the server does not take it."""
        return self._command(lambda session: session.submit(folder))

    def has_ended(self, job: str) -> bool:
        """Whether a job has ended, or will at once: it takes NVFlare 10 s to end one that has lost a process."""
        if self.is_lost(job):
            return True
        with suppress(SessionError):
            return self._command(lambda session: session.status(job)).startswith(ENDED)
        return False

    def is_lost(self, job: str) -> bool:
        """As `has_ended`, by what the server has said, without asking it."""
        return not self._server.is_running() or bool(self._server.blamed(job))

    def blamed(self, job: str, *, patience: float) -> str:
        """The site whose process ended a job, or none. The server's word may come a moment later than the end."""
        site, until = "", time.monotonic() + patience
        while self._server.is_running() and not (site := self._server.blamed(job)) and time.monotonic() < until:
            time.sleep(0.05)
        return site

    def joined_at(self, site: str) -> float:
        """When a site came the last time (monotonic)."""
        return self._server.joined_at(site)

    def refusals(self, job: str) -> Mapping[str, str]:
        """Sites that did not take a job, and why not."""
        with suppress(SessionError):
            return self._command(lambda session: session.refusals(job))
        return {}

    def delete(self, job: str) -> bool:
        """Remove an ended job from the server's disk; False if it has not ended."""
        with suppress(SessionError):
            if self._session is not None:
                self._session.delete(job)
                return True
        return False

    def give_up(self) -> None:
        """Stop a server that no longer does its work. The next command starts it again."""
        self._server.stop()

    def _command(self, do: Callable[[Session], T]) -> T:
        """With a session to a server that runs: both are made where they are missing. Raises SessionError."""
        for is_last in (False, True):
            if not self._server.is_running():
                self._restart()
            try:
                if self._session is None:
                    self._session = Session(self._operator)
                return do(self._session)
            except SessionError:
                if is_last:
                    raise
                self._drop_session()
        raise AssertionError

    def _restart(self) -> None:
        self._note("NVFlare's server has stopped; it is started again")
        self._drop_session()
        self._server.start()
        self._returning, self._back_by = set(self._since), time.monotonic() + RETURN

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
