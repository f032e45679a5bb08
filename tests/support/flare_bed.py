"""A federation of echo workers in real processes on loopback, and ways to hurt it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil
from flare_processes import free_port
from slow_line import Line

from fedmpt.federated.flare.founding import set_up
from fedmpt.federated.flare.link import Answer, Link

HERE = Path(__file__).parent
JOIN = """
import sys
from pathlib import Path
from fedmpt.federated.flare.supervise import supervise
note = lambda words: print(words, flush=True)
sys.exit(supervise(Path(sys.argv[1]), worker=[sys.executable, *sys.argv[2:]], note=note))
"""
WORKER, CLIENT, JOB, SERVER_JOB = "echo_worker", "client_train", "client.worker_process", "runner_process"


class Bed:
    """A context: a running coordinator, and sites that join when they are told. Each site has a line of its own."""

    def __init__(self, folder: Path, *, sites: tuple[str, ...]) -> None:
        self.folder, self.sites, self.notes = folder, sites, list[str]()
        port = free_port()
        plan = {"name": "fed", "sites": list(sites)}
        set_up(folder, plan, address=("localhost", port), days=10, root_days=20, trial=True)
        self.lines = {site: Line(port) for site in sites}
        for site, line in self.lines.items():
            settings = self.kit(site) / "startup" / "fed_client.json"
            words = json.loads(settings.read_text())
            words["servers"][0]["service"]["target"] = f"localhost:{line.port}"
            settings.write_text(json.dumps(words))
        self.link = Link(folder / "coordinator", note=self.notes.append)
        self.joined: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Bed:
        self.link.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.joined.values():
            process.terminate()
        for process in self.joined.values():
            process.wait(30)
        self.link.__exit__(kind, error, trace)
        for line in self.lines.values():
            line.close()

    def kit(self, site: str) -> Path:
        return self.folder / "sites" / site

    def join(self, site: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", JOIN, str(self.kit(site)), str(HERE / "echo_worker.py"), *words]
        with (self.folder / f"{site}.out").open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.joined[site] = process
        return process

    def said(self, site: str) -> str:
        return (self.folder / f"{site}.out").read_text()

    def all_there(self, *, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while set(self.link.connected()) != set(self.joined):
            assert time.monotonic() < until, f"{self.link.connected()} of {set(self.joined)}; {self.notes}"
            time.sleep(0.2)

    def ask(self, contents: dict[str, bytes], *, timeout: float = 60.0, limit: int = 10**6) -> dict[str, Answer]:
        answers = list(self.link.ask(contents, timeout=timeout, limit=limit))
        assert sorted(answer.site for answer in answers) == sorted(contents)
        return {answer.site: answer for answer in answers}

    def processes(self, site: str, kind: str) -> list[psutil.Process]:
        family = psutil.Process(self.joined[site].pid).children(recursive=True)
        return [process for process in family if kind in " ".join(process.cmdline())]

    def kill(self, site: str, kind: str) -> None:
        (process,) = self.processes(site, kind)
        process.kill()

    def kill_ours(self, kind: str) -> None:
        """A process of the coordinator."""
        for process in psutil.Process().children(recursive=True):
            if kind in " ".join(process.cmdline()):
                process.kill()


def later(seconds: float, *calls: tuple[object, ...]) -> None:
    def run() -> None:
        for do, *words in calls:
            assert callable(do)
            do(*words)

    threading.Timer(seconds, run).start()
