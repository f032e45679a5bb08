"""The stores of a cache: what there is, and the removal of what nobody uses."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedmpt.data.features.files import (
    BUILD_LOG,
    DamagedStoreError,
    StoreFacts,
    lock_file,
    part_folder,
    read_store,
    temporary_folder,
)
from fedmpt.data.features.lock import NoLocksError, is_held, is_still_at, lock, take
from fedmpt.data.features.log import read_log

State = Literal["complete", "interrupted", "building", "damaged"]

_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFeatures:
    """A store in a cache. ``folder`` holds it; ``facts`` are None where they cannot be told.

    ``num_done`` images of it are there, those without features too. ``last_used`` is in seconds since 1970, of an
    unfinished store when a block was last written.
    """

    key: str
    folder: Path
    state: State
    facts: StoreFacts | None
    num_done: int
    size_bytes: int
    last_used: float


def list_features(cache: Path) -> list[StoredFeatures]:
    """All stores of a cache, finished or not, last used first."""
    parent = cache / "features"
    try:
        names = sorted(os.listdir(parent))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        key, is_part = name.removesuffix(".part"), name.endswith(".part")
        if _KEY.fullmatch(key):
            # Another process may remove or rename it at any moment.
            with contextlib.suppress(FileNotFoundError):
                found.append(_unfinished(parent / key) if is_part else _finished(parent / key))
    return sorted(found, key=lambda stored: (-stored.last_used, stored.key))


def select_features(
    stored: Iterable[StoredFeatures],
    *,
    states: Iterable[State] = (),
    key: str = "",
    older_than_days: float | None = None,
    now: float | None = None,
) -> list[StoredFeatures]:
    """Those of one of the ``states`` (any if none is given) whose key begins with ``key``, not used for some days."""
    wanted, now = set(states), time.time() if now is None else now
    return [
        one
        for one in stored
        if (not wanted or one.state in wanted)
        and one.key.startswith(key)
        and (older_than_days is None or now - one.last_used > older_than_days * 86400)
    ]


def remove_features(stored: StoredFeatures) -> str | None:
    """Delete a store, or leave it and return why: it is in use, being built, a link, or cannot be locked.

    Raises:
        OSError: if the file system refuses.
    """
    folder = stored.folder
    if folder.is_symlink():
        return "it is a link; remove it and what it leads to by hand"
    try:
        building = take(lock_file(folder.with_name(stored.key)))
    except NoLocksError:
        return "files cannot be locked on this disk, so whether it is in use is not known; remove it by hand"
    if building is None:
        return "another process is building it"
    try:
        return _remove_unless_used(folder)
    finally:
        building.release()


def _remove_unless_used(folder: Path) -> str | None:
    description = folder / "store.json"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(description, os.O_RDWR)
            stack.callback(os.close, handle)
            if not lock(handle, shared=False):
                return "another process is using it"
            if not is_still_at(handle, description):
                return "another process has just replaced it"
        # Renamed first: nobody is ever to find half a store. The folder's end takes it along.
        with temporary_folder(folder.parent) as aside, contextlib.suppress(FileNotFoundError):
            folder.rename(aside / folder.name)
            shutil.rmtree(aside / folder.name)
    return None


def _finished(folder: Path) -> StoredFeatures:
    status = folder.stat()
    facts: StoreFacts | None = None
    state: State = "damaged"
    with contextlib.suppress(DamagedStoreError):
        store = read_store(folder, key=folder.name, rows=None)
        if store is None:
            raise FileNotFoundError(folder)
        facts, state = store.facts, "complete"
    last_used = status.st_mtime
    with contextlib.suppress(OSError):
        last_used = (folder / "store.json").stat().st_mtime
    return StoredFeatures(folder.name, folder, state, facts, facts.rows if facts else 0, _size(folder), last_used)


def _unfinished(folder: Path) -> StoredFeatures:
    part = part_folder(folder)
    status = part.stat()
    facts, num_done, last_used = None, 0, status.st_mtime
    with contextlib.suppress(OSError):
        lines = list(read_log(part / BUILD_LOG))
        if lines:
            facts, block, _ = lines[-1]
            num_done = block.stop if block else 0
        last_used = (part / BUILD_LOG).stat().st_mtime
    state: State = "building" if is_held(lock_file(folder)) else "interrupted" if num_done else "damaged"
    return StoredFeatures(folder.name, part, state, facts, num_done, _size(part), last_used)


def _size(folder: Path) -> int:
    """Bytes that a folder takes on the disk; an unfinished array is not as large there as it seems."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total
