"""NVFlare's server, as a process of the driver."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

from fedmpt.federated.flare.processes import SETTINGS, Child, nvflare_command, remove_jobs
from fedmpt.types import InputError

JOINED = re.compile(r"Client: New client (\S+?)@\S* joined")
START = 60.0
"""Seconds that the server has to begin to listen; it takes 2."""
STARTED = re.compile(r"Server started$")
FAILED_JOB = re.compile(r"(?:Failing|Aborting) job (\S+) due to reported failure from (\S+?): ")


class Server:
    """Use `start` in a thread that lives on: the process ends with the thread."""

    def __init__(self, kit: Path, *, env: Mapping[str, str], log: Path) -> None:
        self._kit, self._env, self._log = kit, SETTINGS | dict(env), log
        self._child: Child | None = None
        self._is_up = False
        self._blamed: dict[str, str] = {}
        self._joined: dict[str, float] = {}
        self._said = ""

    def start(self) -> None:
        """Returns when it listens. It starts without the jobs of the server before: NVFlare could not go on with them,
        nor end them.

        Raises:
            InputError: if it does not start.
        """
        self.stop()
        remove_jobs(self._kit)
        self._is_up, self._said = False, ""
        self._child = Child(nvflare_command("server", self._kit), env=self._env, log=self._log, on_line=self._read)
        deadline = time.monotonic() + START
        while not self._is_up:
            if not self.is_running() or time.monotonic() > deadline:
                self.stop()
                raise InputError(
                    f"NVFlare's server does not start ({self._said or 'it says nothing'}); see {self._log}"
                )
            time.sleep(0.05)

    def is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def blamed(self, job: str) -> str:
        """The site whose process ended a job; empty if it was none, or is not known."""
        return self._blamed.get(job, "")

    def joined_at(self, site: str) -> float:
        """When a site registered the last time (monotonic); 0 if it never did."""
        return self._joined.get(site, 0.0)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _read(self, line: str) -> None:
        if STARTED.search(line):
            self._is_up = True
        elif found := FAILED_JOB.search(line):
            # The first word counts: a site's own follow, which may hold lines as the server writes them.
            self._blamed.setdefault(found[1], found[2].partition(".")[0])
        elif found := JOINED.search(line):
            self._joined[found[1]] = time.monotonic()
        elif "ERROR" in line or "Error" in line:
            self._said = line
