"""NVFlare's processes, started from kits as our own commands do, and ended with the test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Processes:
    """A context manager. Each process has a session of its own, so that its jobs end with it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            self.kill(process)

    def server(self, kit: Path) -> subprocess.Popen[bytes]:
        return self._start(kit, "server", "fed_server.json")

    def client(self, kit: Path, *, name: str) -> subprocess.Popen[bytes]:
        return self._start(kit, "client", "fed_client.json", f"uid={name}")

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, kit: Path, role: str, config: str, *extra: str) -> subprocess.Popen[bytes]:
        module = f"nvflare.private.fed.app.{role}.{role}_train"
        words = ["-m", str(kit), "-s", config, "--set", "secure_train=true", "org=fedmpt", "config_folder=", *extra]
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            env={**os.environ, "HOME": str(self._home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._running.append(process)
        return process


def wait_for(log: Path, text: str, *, times: int = 1, seconds: float = 40.0) -> None:
    """Until a log has ``text`` so many times. An AssertionError shows the log's end if that takes too long."""
    deadline = time.monotonic() + seconds
    while not (log.exists() and log.read_text(errors="replace").count(text) >= times):
        if time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-3000:] if log.exists() else "(no log)"
            raise AssertionError(f"{log} has not {text!r} {times} times after {seconds} s:\n{end}")
        time.sleep(0.1)
