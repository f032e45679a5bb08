"""Files of ours: where the cache is, writing so that a reader never sees half of one, and locks."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from fedmpt.errors import InputError

LOCK = ".fedmpt.lock"
"""The lock file of a folder that one process at a time may write to. It is empty, and stays."""


def default_cache() -> Path:
    """Where computed things are kept between runs: $FEDMPT_CACHE, else a folder of the user's cache."""
    return Path(os.environ.get("FEDMPT_CACHE") or platformdirs.user_cache_dir("fedmpt", appauthor=False))


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name, flush to disk, rename: the file is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # What the caller asked for; nobody knows the temporary name.
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically. NaN and infinity are refused: other readers know neither."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Parsed JSON. Raises InputError if the file cannot be read or is no JSON, naming the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # Numbers of thousands of digits, brackets nested as deep.
        raise InputError(f"{path}: JSON that cannot be read ({error})") from error


def check_safetensors(path: Path) -> None:
    """Raises InputError if header and length show that a file is broken or cut off, before anything is read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise InputError(f"{path} is broken or cut off at {size} bytes ({error}); copy it again") from error


@contextmanager
def hold(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` for this thread of this process; the hold ends with the process, however that ends.

    The empty file stays: were it removed, one process could lock the old file and another a new one of the same name.
    ``on_wait`` is called once if another has held it for a while.

    Raises:
        TimeoutError: if another holds it, and there is no ``on_wait``.
        OSError: if the file cannot be made, or locked.
    """
    from filelock import FileLock, Timeout  # Imported here: few commands lock anything.

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5 if on_wait else 0)  # Who only looks whether it is free holds it for a moment.
    except Timeout:
        if on_wait is None:
            raise
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether another process or thread holds the lock file ``path`` now."""
    try:
        with hold(path):
            return False
    except TimeoutError:
        return True
    except OSError:  # In a cache that is only read nobody writes.
        return False


@contextmanager
def exclusive(folder: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a folder for this process, as `hold` does. Raises InputError if another holds it and there is no
    ``on_wait``."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder / LOCK, on_wait=on_wait))
        except TimeoutError:
            message = f"another process is writing to {folder}; wait for it or choose another folder"
            raise InputError(message) from None
        except OSError:  # Some network disks have no locks; a folder that is only read needs none.
            pass
        yield


@contextmanager
def building(folder: Path, *, on_wait: Callable[[Path], None]) -> Iterator[Path]:
    """A folder to build ``folder`` in, for this process and thread alone, with what is there from before.

    Others that want the same wait, and tell ``on_wait`` once where it is built. `publish` ends a build.
    """
    part = folder.with_name(f"{folder.name}.part")
    with hold(lock_of(folder), on_wait=lambda: on_wait(part)):
        part.mkdir(parents=True, exist_ok=True)
        yield part


def publish(part: Path, folder: Path) -> None:
    """Give what was built its name; what is there, and damaged, gives way."""
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)


def lock_of(folder: Path) -> Path:
    """The lock file of whoever builds or removes ``folder``, which is two levels below the cache."""
    return folder.parents[1] / "locks" / f"{folder.name}.lock"
