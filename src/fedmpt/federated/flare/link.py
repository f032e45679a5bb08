"""The driver's view of its sites: who is there, and one answer a site to what they are asked.

NVFlare neither resumes a job nor takes a late site into one. So each change of who takes part is a new job, which is
made here, unseen.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from fedmpt.federated.flare import bridge
from fedmpt.federated.flare.job import write_job
from fedmpt.federated.flare.running import Answer, RunningJob
from fedmpt.federated.flare.server import Server
from fedmpt.federated.flare.session import ENDED, Session, SessionError, logging_to
from fedmpt.federated.flare.sockets import MAX_BYTES, listening, one_line, private_folder

__all__ = ["Answer", "Link"]

START_JOB = 60.0
"""Seconds that the server has to start a job; it takes 3 to 6."""
START_SITE = 60.0
"""Seconds that a site has to take part in a job that has started."""
REST = 300.0
"""Seconds that a site which did not is left out."""
UNREACHED = 10.0
"""The same for one that the server did not reach: it has just ended, or comes back."""
NOT_REACHED = "the server did not reach it"
RETURN = 40.0
"""Seconds that sites have to come back to a server that was started again."""
GRACE = 2.0
"""Seconds that the controller may take to say that time is over."""
ATTEMPTS = 3
"""Jobs that may end within one ask."""
T = TypeVar("T")


class Link:
    """Use it as a context, in a thread that lives on: NVFlare's server is a child of the thread."""

    def __init__(self, coordinator: Path, *, note: Callable[[str], None]) -> None:
        self._coordinator, self._note = coordinator, note
        self._stack = ExitStack()
        self._since: dict[str, float] = {}
        self._resting: dict[str, tuple[float, str]] = {}
        self._returning: set[str] = set()
        self._back_by = 0.0
        self._session: Session | None = None
        self._job: RunningJob | None = None
        self._ended: list[str] = []

    def __enter__(self) -> Link:
        """Raises InputError if NVFlare's server does not start."""
        with ExitStack() as stack:
            folder = stack.enter_context(private_folder())
            path = folder / "driver"
            self._listener = stack.enter_context(listening(path))
            self._job_folder = folder / "job"
            logs = self._coordinator / "logs"
            logs.mkdir(exist_ok=True)
            stack.enter_context(logging_to(logs / "driver.log"))
            env = {bridge.DRIVER_SOCKET: str(path)}
            self._server = Server(self._coordinator / "server", env=env, log=logs / "server.log")
            stack.callback(self._server.stop)
            stack.callback(self._forget)
            self._server.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

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

    def ask(self, contents: Mapping[str, bytes], *, timeout: float, limit: int) -> Iterator[Answer]:
        """Send each site its content; one answer a site, as they come. Contents may be one object that sites share.

        The time counts while a job is there that has the sites. A site that is not connected is answered for at once.
        If the server or a job's process dies, what was not answered is asked again in the time that is left; a worker
        is not made to do the same twice by that.
        """
        number, waiting, left = uuid.uuid4().hex, dict(contents), timeout
        late = f"no answer within {timeout:g} s"
        why = dict.fromkeys(waiting, "NVFlare's server and its jobs stopped again and again")
        for _ in range(ATTEMPTS):
            job, missing = self._job_for(set(waiting))
            for site, reason in missing.items():
                del waiting[site]
                yield Answer(site, None, reason)
            if job is None or not waiting or left <= 0:
                break
            deadline = time.monotonic() + left
            job.ask(waiting, number=number, timeout=left, limit=limit)
            for answer in job.answers(number, until=deadline + GRACE, is_over=partial(self._is_lost, job)):
                if answer.site in waiting:
                    del waiting[answer.site]
                    yield replace(answer, error=late) if answer.error == bridge.TIME_OVER else answer
                if not waiting:
                    return
            if not self._is_lost(job):
                why = dict.fromkeys(waiting, "the job's controller did not answer")
                self._forget_job()
                break
            left = deadline - time.monotonic()
            blamed = self._blamed(job)
            self._forget_job()
            if blamed in waiting:
                del waiting[blamed]
                yield Answer(blamed, None, "its job process stopped")
            else:
                self._note("a job stopped; what was not answered is asked again")
        for site in waiting:
            yield Answer(site, None, why[site] if left > 0 else late)

    def _is_lost(self, job: RunningJob) -> bool:
        """Whether a job will end, before it has: it takes NVFlare 10 s to end one that has lost a process."""
        return job.has_ended or not self._server.is_running() or bool(self._server.blamed(job.number))

    def _blamed(self, job: RunningJob) -> str:
        """The site whose process ended a job. The server's word for it may come a moment later than the end."""
        site, until = "", time.monotonic() + GRACE
        while self._server.is_running() and not (site := self._server.blamed(job.number)) and time.monotonic() < until:
            time.sleep(0.05)
        return site

    def _job_for(self, sites: set[str]) -> tuple[RunningJob | None, Mapping[str, str]]:
        """A job that has these sites, and why not for those that it has not."""
        connected = self._connected_of(sites)
        now = time.monotonic()
        resting = {site: why for site, (until, why) in self._resting.items() if until > now}
        missing = {site: resting.get(site, "not connected") for site in sites - connected | sites & resting.keys()}
        wanted = sites - missing.keys()
        if not wanted:
            return None, missing
        if self._job is None or self._is_lost(self._job) or not wanted <= self._job.present:
            self._forget_job()
            try:
                self._job = self._new_job(sorted(connected))
            except SessionError as error:
                self._note(f"no job could be started: {error}")
                return None, missing | dict.fromkeys(wanted, f"no job could be started: {error}")
            late, now = self._await_sites(self._job, wanted), time.monotonic()
            for site, why in late.items():
                self._resting[site] = (now + (UNREACHED if why == NOT_REACHED else REST), why)
            missing |= late
            self._remove_ended()
        return self._job, missing

    def _connected_of(self, sites: set[str]) -> set[str]:
        """Who is connected. After a new start of the server sites need a moment to come back."""
        found = set(self.connected())
        while self._returning & sites - found and time.monotonic() < self._back_by:
            time.sleep(0.5)
            found = set(self.connected())
        return found

    def _new_job(self, sites: list[str]) -> RunningJob:
        """Raises SessionError if it does not start. The server is started anew then: nothing else helps."""
        folder = write_job(self._job_folder, sites, max_bytes=MAX_BYTES)
        number = self._command(lambda session: session.submit(folder))
        until = time.monotonic() + START_JOB
        while time.monotonic() < until and self._server.is_running():
            if (found := self._accept(number)) is not None:
                return RunningJob(number, *found)
            if self._command(lambda session: session.status(number)).startswith(ENDED):
                site = self._server.blamed(number)
                raise SessionError(f"it ended at its start{f', at {site}' if site else ''}")
        self._note("NVFlare's server did not start a job; the server is started again")
        self._server.stop()
        raise SessionError(f"the server did not start it within {START_JOB:g} s")

    def _accept(self, number: str) -> tuple[list[str], socket.socket] | None:
        """The job's sites and the connection of its controller, if it comes within a second."""
        self._listener.settimeout(1.0)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return None
        connection.settimeout(5.0)
        hello = bridge.receive(connection)
        connection.settimeout(None)
        if hello is not None and hello[0].get("job") == number:
            return hello[0]["sites"], connection
        connection.close()  # Of a job that was given up.
        return None

    def _await_sites(self, job: RunningJob, sites: set[str]) -> Mapping[str, str]:
        """Wait until the sites take part; those that do not, and why not."""
        refusals: dict[str, str] = {}
        with suppress(SessionError):
            refusals = self._command(lambda session: session.refusals(job.number))
        late = {site: f"refused the job: {one_line(why)}" for site, why in refusals.items() if site in sites}
        late |= dict.fromkeys(sites - job.sites - late.keys(), NOT_REACHED)
        until = time.monotonic() + START_SITE
        while not sites - late.keys() <= job.present and not self._is_lost(job) and time.monotonic() < until:
            time.sleep(0.05)
        if not self._is_lost(job):
            late |= dict.fromkeys(sites - late.keys() - job.present, "connected, but did not take the job")
        return late

    def _remove_ended(self) -> None:
        """Jobs that have ended fill the server's disk. One that still ends is left for the next time."""
        for number in list(self._ended):
            if self._session is not None:
                with suppress(SessionError):
                    self._session.delete(number)
                    self._ended.remove(number)

    def _command(self, do: Callable[[Session], T]) -> T:
        """With a session to a server that runs: both are made where they are missing. Raises SessionError."""
        for is_last in (False, True):
            if not self._server.is_running():
                self._restart()
            try:
                if self._session is None:
                    self._session = Session(self._coordinator / "operator")
                return do(self._session)
            except SessionError:
                if is_last:
                    raise
                if self._session is not None:
                    self._session.close()
                    self._session = None
        raise AssertionError

    def _restart(self) -> None:
        self._note("NVFlare's server has stopped; it is started again")
        self._forget()
        self._ended.clear()
        self._server.start()
        self._returning, self._back_by = set(self._since), time.monotonic() + RETURN

    def _forget_job(self) -> None:
        if self._job is not None:
            self._job.close()
            self._ended.append(self._job.number)
            self._job = None

    def _forget(self) -> None:
        """What a server that is gone, or goes, has no use for."""
        self._forget_job()
        if self._session is not None:
            self._session.close()
            self._session = None
