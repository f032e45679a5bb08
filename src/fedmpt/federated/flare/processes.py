"""Processes of ours: they end when we end, however that is, and what they print goes to a small file."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil

from fedmpt.federated.flare import child
from fedmpt.federated.flare.sockets import MAX_BYTES

LOG_BYTES, OLD_LOGS = 2 * 2**20, 2
SETTINGS = {
    "NVFLARE_STREAMING_CHUNK_SIZE": str(2**16),
    "NVFLARE_STREAMING_WINDOW_SIZE": str(2**19),
    "NVFLARE_STREAMING_ACK_INTERVAL": str(2**17),
    "NVFLARE_STREAMING_RETRY_WAIT": "20",
    "NVFLARE_STREAMING_RETRY_TIMEOUT": "40",
    "NVFLARE_STREAMING_MAX_BLOB_SIZE": str(MAX_BYTES + 2**20),
    "MALLOC_ARENA_MAX": "4",
}
"""Of NVFlare's processes. By itself it sends 64 MB at once and all of it again what is not there after 5 seconds, so a
slow line carries the same bytes over and over. With these, half a megabyte is under way: a line of 64 kB/s needs 8
seconds for that, and signs of life come in between. For the sum of both times a thread waits for each answer that has
come: at two a second that is what a site's job process has of threads. Few arenas keep their memory together."""
JOB = "[0-9a-f]" * 8 + "-*-*-*-*"
"""How NVFlare names a job's folder in a kit."""
STORES = ("jobs", "snapshots", "transfer")
"""What its server keeps of jobs, in its kit."""
PATIENCE = 5.0
"""Seconds that a process has to end when it is asked to."""


class Child:
    """A process that is killed when the thread ends that has started it: start it in one that lives on.

    Without a ``log`` it has our terminal; otherwise what it prints goes there, and line by line to ``on_line``, which
    is called in another thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        log: Path | None = None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, child.__file__, str(os.getpid()), *command],
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=None if log is None else subprocess.PIPE,
            stderr=None if log is None else subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to handle.
        )
        self._reader: threading.Thread | None = None
        if log is not None:
            self._reader = threading.Thread(target=self._read, args=(log, on_line), daemon=True)
            self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code; None while it runs, negative for the signal that ended it."""
        return self._process.poll()

    def stop(self) -> None:
        """End it and all that it has started."""
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid).children(recursive=True)
        with suppress(subprocess.TimeoutExpired):
            self._process.terminate()
            self._process.wait(PATIENCE)
        for process in [self._process, *family]:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
        self._process.wait()
        if self._reader is not None:
            self._reader.join(PATIENCE)

    def _read(self, log: Path, on_line: Callable[[str], None]) -> None:
        assert self._process.stdout is not None
        handler = log_file(log)
        logger = logging.Logger("child")
        logger.addHandler(handler)
        with self._process.stdout as lines:
            for line in lines:
                words = line.decode(errors="replace").rstrip()
                logger.info("%s", words)
                on_line(words)
        handler.close()


def how_it_ended(code: int) -> str:
    """What `Child.poll` gave, in words."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


class LogFile(RotatingFileHandler):
    """Loses what cannot be written, on a full disk, without a word on the terminal: others say that."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name.
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def log_file(path: Path) -> LogFile:
    """A file that makes room by itself."""
    return LogFile(path, maxBytes=LOG_BYTES, backupCount=OLD_LOGS, encoding="utf-8")


def nvflare_command(kind: str, kit: Path, *settings: str) -> list[str]:
    """NVFlare's process of a kit; ``kind`` is server or client."""
    module = f"nvflare.private.fed.app.{kind}.{kind}_train"
    fixed = ("secure_train=true", "org=fedmpt", "config_folder=")
    return [
        sys.executable,
        "-u",
        "-m",
        module,
        "-m",
        str(kit.absolute()),
        "-s",
        f"fed_{kind}.json",
        "--set",
        *fixed,
        *settings,
    ]


def remove_jobs(kit: Path, *, keep: int = 0) -> None:
    """Remove what NVFlare has left of jobs in a kit, all but the last ones. No job outlives its processes."""
    folders = sorted(kit.glob(JOB), key=lambda folder: folder.stat().st_mtime)
    for folder in (*folders[: len(folders) - keep], *(kit / name for name in STORES if not keep)):
        shutil.rmtree(folder, ignore_errors=True)
