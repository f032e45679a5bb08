"""Locks on files. They end with the process that holds them, however that ends, so nothing stale is ever in the way."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None

POLL_S = 0.2


class NoLocksError(Exception):
    """Files cannot be locked here: on Windows, and on some network disks."""


@dataclass(frozen=True)
class Held:
    """A lock file that is held. It exists no longer than that."""

    handle: int
    path: Path

    def release(self) -> None:
        """Let others have it. The file goes first: who opened it before sees that and makes a new one (`take`)."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.handle)


def take(path: Path) -> Held | None:
    """The lock file ``path``, made for the purpose; None while another process or another thread holds it.

    Raises:
        NoLocksError: where files cannot be locked.
        OSError: if the file cannot be made.
    """
    while True:
        handle = _open(path)
        try:
            got = lock(handle, shared=False)
            if got and is_still_at(handle, path):
                _write_owner(handle)
                held = Held(handle, path)
                handle = -1
                return held
        except NoLocksError:
            with contextlib.suppress(OSError):  # It holds nobody off.
                path.unlink()
            raise
        finally:
            if handle >= 0:
                os.close(handle)
        if not got:
            return None


@contextlib.contextmanager
def hold(path: Path, *, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file ``path``. ``on_wait`` is told once who holds it, if that is somebody else for a while.

    Raises:
        NoLocksError: where files cannot be locked.
        OSError: if the file cannot be made.
    """
    held = take(path)
    num_tries = 1
    while held is None:
        if num_tries == 2:  # Who only looks whether it is free holds it for a moment.
            on_wait(owner(path))
        time.sleep(POLL_S)
        held = take(path)
        num_tries += 1
    try:
        yield
    finally:
        held.release()


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file ``path`` now; where there are no locks, nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not lock(handle, shared=True)
    except NoLocksError:
        return False
    finally:
        os.close(handle)


def owner(path: Path) -> str:
    """Who holds the lock file, in words: ``process 1234 on host``."""
    with contextlib.suppress(OSError, ValueError):
        pid, host = path.read_text(encoding="utf-8").split()
        return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host}"
    return "another process"


def lock(handle: int, *, shared: bool) -> bool:
    """Lock an open file without waiting; whether that worked. Closing the file ends it.

    Raises:
        NoLocksError: where files cannot be locked.
    """
    if fcntl is None:
        raise NoLocksError("this system has no such locks")
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise NoLocksError(error.strerror) from error
    return True


def is_still_at(handle: int, path: Path) -> bool:
    """Whether ``path`` is the open file: it may have been removed, or made anew, before the lock was there."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)  # Another user's: enough to wait for it.


def _write_owner(handle: int) -> None:
    with contextlib.suppress(OSError):  # For people only.
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
