"""The driver's view of its sites: who is there, and one answer a site to what they are asked.

NVFlare neither resumes a job nor takes a late site into one. So each change of who takes part is a new job, which is
made here, unseen.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from fedmpt.federated.flare import bridge
from fedmpt.federated.flare.engine import Engine
from fedmpt.federated.flare.job import write_job
from fedmpt.federated.flare.running import Answer, RunningJob
from fedmpt.federated.flare.session import SessionError, keep_memory_together, logging_to
from fedmpt.federated.flare.sockets import MAX_BYTES, listening, one_line, private_folder

__all__ = ["Answer", "Link"]

START_JOB = 60.0
"""Seconds that the server has to start a job; it takes 3 to 6."""
START_SITE = 60.0
"""Seconds that a site has to take part in a job that has started."""
REST = 300.0
"""Seconds that a site is left out which did not take part in a job, or has ended two in a row."""
UNREACHED = 10.0
"""The same for one that the server did not reach. It takes 30 s to see that a site has gone."""
GRACE = 2.0
"""Seconds that the controller may take to say that time is over, and the server to say who has ended a job."""
ATTEMPTS = 3
"""Jobs that may end within one ask without anybody who is to blame."""
STOPPED, LATE = "its job process stopped", "connected, but did not take part in the job"
NOT_REACHED = "the server did not reach it"


class JobError(Exception):
    """A job has not started. ``blamed`` is the site that has ended it, if one has."""

    def __init__(self, words: str, blamed: str = "") -> None:
        super().__init__(words)
        self.blamed = blamed


class Rest(NamedTuple):
    """Of a site that is left out for a while (monotonic), or until it comes anew."""

    since: float
    until: float
    why: str


class Link:
    """Use it as a context, in a thread that lives on: NVFlare's server is a child of the thread."""

    def __init__(self, coordinator: Path, *, note: Callable[[str], None]) -> None:
        self._coordinator, self._note = coordinator, note
        self._stack = ExitStack()
        self._job: RunningJob | None = None
        self._ended: list[str] = []
        self._resting: dict[str, Rest] = {}
        self._faults: Counter[str] = Counter()

    def __enter__(self) -> Link:
        """Raises InputError if NVFlare's server does not start."""
        keep_memory_together()
        with ExitStack() as stack:
            folder = stack.enter_context(private_folder())
            path = folder / "driver"
            self._listener = stack.enter_context(listening(path))
            self._job_folder = folder / "job"
            logs = self._coordinator / "logs"
            logs.mkdir(exist_ok=True)
            stack.enter_context(logging_to(logs / "driver.log"))
            self._engine = Engine(self._coordinator, env={bridge.DRIVER_SOCKET: str(path)}, note=self._note)
            stack.callback(self._engine.stop)
            stack.callback(self._forget_job)
            self._engine.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def connected(self) -> Mapping[str, float]:
        """The sites that are there now, and since when (Unix time), as far as this process has seen them."""
        return self._engine.connected()

    def ask(self, contents: Mapping[str, bytes], *, timeout: float, limit: int) -> Iterator[Answer]:
        """Send each site its content; one answer a site, as they come. Contents may be one object that sites share.

        The time counts while a job is there that has the sites. A site that is not connected is answered for at once.
        If the server or a job's process dies, what was not answered is asked again in the time that is left; a worker
        is not made to do the same twice by that.
        """
        number, waiting, left_out = uuid.uuid4().hex, dict(contents), set[str]()
        left, strikes, why, late = timeout, 0, "", f"no answer within {timeout:g} s"
        while waiting and strikes < ATTEMPTS:
            try:
                job, missing = self._job_for(set(waiting), left_out)
            except JobError as error:
                missing, why = self._blame(error.blamed, left_out), f"no job could be started: {error}"
                strikes += not missing
                yield from _answered(missing, waiting)
                continue
            yield from _answered(missing, waiting)
            if job is None or not waiting:
                break
            deadline = time.monotonic() + left
            job.ask(waiting, number=number, timeout=left, limit=limit)
            for answer in job.answers(number, until=deadline + GRACE, is_over=partial(self._is_lost, job)):
                if waiting.pop(answer.site, None) is not None:
                    self._faults.pop(answer.site, None)
                    yield replace(answer, error=late) if answer.error == bridge.TIME_OVER else answer
                if not waiting:
                    return
            left = deadline - time.monotonic()
            if left <= 0 or not self._is_lost(job):
                why = late if left <= 0 else "the job's controller did not answer"
                break
            missing = self._blame(self._engine.blamed(job.number, patience=GRACE), left_out)
            strikes, why = strikes + (not missing), "NVFlare's server or its job stopped again and again"
            self._note(f"a job stopped{', at ' + ', '.join(missing) if missing else ''}; the others are asked again")
            yield from _answered(missing, waiting)
        if waiting:
            self._forget_job()
        yield from _answered(dict.fromkeys(waiting, why), waiting)

    def _is_lost(self, job: RunningJob) -> bool:
        return job.has_ended or self._engine.is_lost(job.number)

    def _blame(self, site: str, left_out: set[str]) -> Mapping[str, str]:
        """What is said of the site that has ended a job, if one has. With it the next job would end as well."""
        self._forget_job()
        if not site:
            return {}
        left_out.add(site)
        self._faults[site] += 1
        if self._faults[site] > 1:
            self._rest(site, STOPPED)
        return {site: STOPPED}

    def _rest(self, site: str, why: str) -> None:
        now = time.monotonic()
        self._resting[site] = Rest(now, now + (UNREACHED if why == NOT_REACHED else REST), why)

    def _job_for(self, sites: set[str], left_out: set[str]) -> tuple[RunningJob | None, Mapping[str, str]]:
        """A job that has these sites, and why not for those that it has not. Raises JobError if it does not start."""
        connected = self._engine.connected_of(sites)
        now = time.monotonic()
        resting = {
            site: rest.why
            for site, rest in self._resting.items()
            if now < rest.until and self._engine.joined_at(site) < rest.since
        }
        missing = {
            site: resting.get(site, "not connected") for site in sites if site in resting or site not in connected
        }
        wanted = sites - missing.keys()
        if not wanted:
            return None, missing
        if self._job is None or self._is_lost(self._job) or not wanted <= self._present(self._job):
            self._forget_job()
            self._job = self._new_job(sorted(connected - resting.keys() - left_out))
            late = self._await_sites(self._job, wanted)
            for site, why in late.items():
                self._rest(site, why)
            missing |= late
            self._ended = [number for number in self._ended if not self._engine.delete(number)]
        return self._job, missing

    def _present(self, job: RunningJob) -> set[str]:
        """The sites that take part in a job. One that has come anew since is in no job yet."""
        return {site for site in job.present if self._engine.joined_at(site) < job.since}

    def _new_job(self, sites: list[str]) -> RunningJob:
        """Raises JobError. A server that does not start one is started anew for the next: nothing else helps."""
        since = time.monotonic()
        try:
            number = self._engine.submit(write_job(self._job_folder, sites, max_bytes=MAX_BYTES))
        except SessionError as error:
            raise JobError(str(error)) from error
        while time.monotonic() < since + START_JOB:
            if (found := self._accept(number)) is not None:
                return RunningJob(number, found[0], since=since, reached=found[1])
            if self._engine.has_ended(number):
                site = self._engine.blamed(number, patience=GRACE)
                raise JobError(f"it ended at its start{f', at {site}' if site else ''}", site)
        self._note("NVFlare's server did not start a job")
        self._engine.give_up()
        raise JobError(f"the server did not start it within {START_JOB:g} s")

    def _accept(self, number: str) -> tuple[socket.socket, list[str]] | None:
        """The connection of the job's controller, and who is in the job, if it comes within a second."""
        self._listener.settimeout(1.0)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return None
        connection.settimeout(5.0)
        hello = bridge.receive(connection)
        connection.settimeout(None)
        if hello is not None and hello[0].get("job") == number:
            return connection, hello[0]["sites"]
        connection.close()  # Of a job that was given up.
        return None

    def _await_sites(self, job: RunningJob, sites: set[str]) -> Mapping[str, str]:
        """Wait until the sites take part; those that do not, and why not."""
        refusals = self._engine.refusals(job.number)
        late = {site: f"refused the job: {one_line(why)}" for site, why in refusals.items() if site in sites}
        late |= dict.fromkeys(sites - job.reached - late.keys(), NOT_REACHED)
        until = time.monotonic() + START_SITE
        while not sites - late.keys() <= job.present and not self._is_lost(job) and time.monotonic() < until:
            time.sleep(0.05)
        if not self._is_lost(job):
            late |= dict.fromkeys(sites - late.keys() - job.present, LATE)
        return late

    def _forget_job(self) -> None:
        if self._job is not None:
            self._job.close()
            self._ended.append(self._job.number)
            self._job = None


def _answered(errors: Mapping[str, str], waiting: dict[str, bytes]) -> Iterator[Answer]:
    """Sites that have no content to answer with, and are no longer waited for."""
    for site, error in list(errors.items()):
        if waiting.pop(site, None) is not None:
            yield Answer(site, None, error)
