"""The coordinator's conversation with NVFlare's server: who is connected, what of jobs. Each within a time."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.fuel.hci.client import api

from fedmpt.federated.flare.local import OPERATOR
from fedmpt.federated.flare.processes import log_file

LOGIN, COMMAND = 30.0, 20.0
"""Seconds for a login and for a command; they take 2 and 0.1."""
CLOSE = 2.0
M_ARENA_MAX, ARENAS = -8, 4
ENDED = ("FINISHED", "ABANDONED", "FAILED")
T = TypeVar("T")

NVFLARE = logging.getLogger("nvflare")
api._print_hci_message = NVFLARE.info  # It prints to the terminal, which is not its own.


class SessionError(Exception):
    """The server does not answer, or refuses."""


class Session:
    """One login of the operator. After a `SessionError` make a new one."""

    def __init__(self, kit: Path) -> None:
        words: dict[str, Any] = {"timeout": LOGIN / 2, "command_timeout": COMMAND / 2, "auto_login_max_tries": 1}
        self._api = within(LOGIN, lambda: new_secure_session(OPERATOR, str(kit.absolute()), **words))

    def connected(self) -> list[str]:
        info = within(COMMAND, self._api.get_system_info)
        return sorted(client.name for client in info.client_info)

    def submit(self, folder: Path) -> str:
        """The number of the job that the folder describes."""
        return str(within(COMMAND, lambda: self._api.submit_job(str(folder))))

    def status(self, job: str) -> str:
        return str(within(COMMAND, lambda: self._api.get_job_status(job)))

    def refusals(self, job: str) -> dict[str, str]:
        """The sites that refused a job when it was sent to them, and why, in NVFlare's words."""
        meta = within(COMMAND, lambda: self._api.get_job_meta(job))
        told = (str(line).partition(": ") for line in meta.get("job_deploy_detail") or ())
        return {site: why for site, colon, why in told if colon and why != "OK" and not why.startswith("no reply")}

    def delete(self, job: str) -> None:
        """Remove a job that has ended from the server's disk."""
        within(COMMAND, lambda: self._api.delete_job(job))

    def close(self) -> None:
        with suppress(SessionError):  # Of a server that is gone nobody waits to hear goodbye.
            within(CLOSE, self._api.close)


def keep_memory_together() -> None:
    """Let threads share arenas of memory. For a minute NVFlare keeps a thread for each command, and glibc would give
    each memory of its own, which it does not get back: 0.1 MB a round."""
    with suppress(AttributeError, OSError):  # Of another libc.
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def within(seconds: float, do: Callable[[], T]) -> T:
    """What ``do`` gives. Raises SessionError for whatever it raises, and where it takes longer."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(do())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)  # One that never returns is left behind.
    thread.start()
    thread.join(seconds)
    if failure:
        raise SessionError(f"{type(failure[0]).__name__}: {failure[0]}") from failure[0]
    if not result:
        raise SessionError(f"no answer within {seconds:g} s")
    return result[0]


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """What NVFlare logs in this process goes to a file of a limited size, and not to the terminal."""
    handler = log_file(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = NVFLARE.propagate
    NVFLARE.propagate = False
    NVFLARE.addHandler(handler)
    try:
        yield
    finally:
        NVFLARE.removeHandler(handler)
        NVFLARE.propagate = before
        handler.close()
