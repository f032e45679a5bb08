"""A federation of real processes on this machine: the commands as people type them, and faults that befall them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from flare_processes import free_port

FEDMPT = (sys.executable, "-c", "from fedmpt.cli.main import main; main()")
WORKER, CLIENT, JOB = "fedmpt.runs.federation.worker", "client.client_train", "client.worker_process"
SERVER, CONTROLLER = "server.server_train", "server.runner_process"
FOREIGN = re.compile(r"Traceback| - (INFO|WARNING|ERROR) - |nvflare\.|^\s+File ", re.MULTILINE)
"""What no command of ours may print: a traceback, or a line of NVFlare's log."""
SECONDS = 150.0
AFTER = 20.0
"""Seconds that what a killed process has started may live on; NVFlare's jobs take a while to see it."""


class Running:
    """A command that runs. ``said`` is all that it has printed; its processes end with the test."""

    def __init__(
        self, words: Sequence[object], *, log: Path, env: Mapping[str, str], prefix: Sequence[str] = ()
    ) -> None:
        self._log = log
        with log.open("ab") as output:
            self._from = output.tell()
            self.process = subprocess.Popen(
                list(map(str, words)),
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._ever: dict[int, psutil.Process] = {}

    @property
    def said(self) -> str:
        return self._log.read_bytes()[self._from :].decode(errors="replace")

    def family(self) -> list[psutil.Process]:
        """Its processes that live, itself first. All that it ever had are remembered."""
        try:
            found = [own := psutil.Process(self.process.pid), *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        self._ever |= {process.pid: process for process in found}
        return found

    def part(self, name: str) -> psutil.Process:
        """The process of its family that runs the module ``name``."""
        return until(lambda: next((one for one in self.family() if _runs(one, name)), None), f"a process of {name}")

    def kill(self) -> None:
        self.family()
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGINT, *, seconds: float = 30.0) -> int:
        """End it by a signal, as Ctrl-C does; its exit code."""
        self.family()
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def survivors(self) -> list[str]:
        """What it has left behind, a moment after its end."""

        def left() -> list[psutil.Process]:
            return [one for one in self._ever.values() if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

        deadline = time.monotonic() + AFTER
        while left() and time.monotonic() < deadline:
            time.sleep(0.1)
        return [" ".join(one.cmdline()) for one in left()]

    def end(self) -> None:
        """Whatever it is doing, and all of it."""
        self.family()
        for one in self._ever.values():
            if one.is_running():
                one.kill()
        self.process.kill()
        self.process.wait()


def _runs(process: psutil.Process, name: str) -> bool:
    try:
        return name in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(look: Callable[[], Any], what: str, *, seconds: float = SECONDS) -> Any:
    """The first true value that ``look`` gives. An AssertionError names ``what`` if that takes too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return found


class RealFederation:
    """Made by ``fedmpt federation init --trial`` in ``root``. Use it as a context: all its processes end with it."""

    def __init__(self, root: Path, *options: object, sites: Sequence[str], data: Path, clip: Path) -> None:
        self.root, self.data, self.port = root, data, free_port()
        self.clip = clip
        root.mkdir(parents=True, exist_ok=True)
        self._env = {"FEDMPT_CACHE": str(root / "cache"), "HOME": str(root / "home"), "OMP_NUM_THREADS": "1"}
        self.sites: dict[str, Running] = {}
        self.started: Running | None = None
        self._all: list[Running] = []
        self.coordinator = root / "fed" / "coordinator"
        address = f"localhost:{self.port}"
        words = ("init", root / "fed", "--trial", "--sites", ",".join(sites), "--address", address)
        made = self.run(*words, "--backbone", clip, *options)
        assert made.process.wait(60) == 0, made.said

    def __enter__(self) -> RealFederation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for running in self._all:
            running.end()

    def run(self, *words: object, log: str = "other", prefix: Sequence[str] = ()) -> Running:
        """Any ``fedmpt federation`` command, behind ``prefix``."""
        return self.begin((*prefix, *FEDMPT, "federation", *words), log=log)

    def begin(self, words: Sequence[object], *, log: str) -> Running:
        """Any command. Its log is one of the federation's."""
        running = Running(words, log=self.root / f"{log}.log", env=self._env)
        self._all.append(running)
        return running

    def kit(self, site: str) -> Path:
        return self.root / "fed" / "sites" / site

    def join(self, site: str, *options: object, data: str | None = None) -> Running:
        """Have a site take part, with its own folder of images unless ``data`` says otherwise."""
        words = ("join", self.kit(site), "--data", data or f"folder:{self.data / site}", *options)
        self.sites[site] = self.run(*words, log=f"join-{site}")
        return self.sites[site]

    def start(self, *, prefix: Sequence[str] = ()) -> Running:
        self.started = self.run("start", self.coordinator, log="start", prefix=prefix)
        return self.started

    def status(self) -> dict[str, Any]:
        """What the coordinator last wrote down of itself."""
        path = self.coordinator / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def rounds(self) -> list[dict[str, Any]]:
        path = self.coordinator / "run" / "rounds.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def cohorts(self) -> list[list[int]]:
        """Who counted in each round so far."""
        return [line["clients"] for line in self.rounds()]

    def events(self) -> list[str]:
        path = self.coordinator / "events.jsonl"
        return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []

    def hears(self, pattern: str, *, after: int = 0, seconds: float = SECONDS) -> str:
        """The first event after so many that fits."""

        def look() -> str | None:
            return next((event for event in self.events()[after:] if re.search(pattern, event)), None)

        return str(until(look, f"an event {pattern!r}; there are {self.events()[after:]}", seconds=seconds))

    def counts(self, *clients: int, rounds: int = 1, seconds: float = SECONDS) -> None:
        """Wait until exactly these clients have counted in so many new rounds."""
        done = len(self.rounds())

        def look() -> bool:
            return [line for line in self.cohorts()[done:] if line == list(clients)][rounds - 1 :] != []

        until(look, f"{rounds} rounds of {clients}; there are {self.cohorts()[done:]}", seconds=seconds)
