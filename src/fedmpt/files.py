"""Files of ours: where the cache is, and writing so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

from fedmpt.types import InputError


def default_cache() -> Path:
    """Where computed things are kept between runs: $FEDMPT_CACHE, else a folder of the user's cache."""
    return Path(os.environ.get("FEDMPT_CACHE") or platformdirs.user_cache_dir("fedmpt", appauthor=False))


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name, flush to disk, rename: the file is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, atomically. NaN and infinity are refused: other readers know neither."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Parsed JSON.

    Raises:
        InputError: if the file cannot be read or is no JSON, naming the line.
    """
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
    """Header and length only: a torn download is found before anything is read.

    Raises:
        InputError: if the file is broken or cut off.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        raise InputError(f"{path} is broken or cut off at {size} bytes ({error}); copy it again") from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the hold ends with the process, however that ends.

    Raises:
        InputError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such lock; there the user has to take care.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another process is writing to {folder}; wait for it or choose another folder"
            raise InputError(message) from None
        except OSError:  # Some network file systems have no locks.
            pass
        yield
    finally:
        os.close(handle)
