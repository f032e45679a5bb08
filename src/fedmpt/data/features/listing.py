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

from fedmpt.data.features.files import BUILD_LOG, DamagedStoreError, StoreFacts, lock, read_store
from fedmpt.data.features.writer import read_log
from fedmpt.files import hold, is_held, lock_of, part_of

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
    names = sorted(os.listdir(parent)) if parent.is_dir() else []
    found = []
    for name in names:
        key = name.removesuffix(".part")
        if _KEY.fullmatch(key):
            with contextlib.suppress(FileNotFoundError):  # Another process may remove or rename it at any moment.
                found.append(_finished(parent / key) if key == name else _unfinished(parent / key))
    return sorted(found, key=lambda stored: (-stored.last_used, stored.key))


def select_features(
    stored: Iterable[StoredFeatures],
    *,
    states: Iterable[State] = (),
    key: str = "",
    older_than_days: float | None = None,
) -> list[StoredFeatures]:
    """Those of one of the ``states`` (any if none is given) whose key begins with ``key``, not used for some days."""
    wanted, now = set(states), time.time()
    return [
        one
        for one in stored
        if (not wanted or one.state in wanted)
        and one.key.startswith(key)
        and (older_than_days is None or now - one.last_used > older_than_days * 86400)
    ]


def remove_features(stored: StoredFeatures) -> str | None:
    """Delete a store, or leave it and return why: it is in use, being built, or a link.

    Raises:
        OSError: if the file system refuses.
    """
    folder, description = stored.folder, stored.folder / "store.json"
    if folder.is_symlink():
        return "it is a link; remove it and what it leads to by hand"
    try:
        with hold(lock_of(folder.with_name(stored.key))):
            if description.exists():
                with description.open("r+b") as file:
                    if not lock(file.fileno(), shared=False):
                        return "another process is using it"
                description.unlink()  # First: without it nobody takes the rest for a store.
            if folder.exists():
                shutil.rmtree(folder)
    except TimeoutError:
        return "another process is building it"
    return None


def _finished(folder: Path) -> StoredFeatures:
    facts: StoreFacts | None = None
    with contextlib.suppress(DamagedStoreError):
        store = read_store(folder, key=folder.name, rows=None)
        if store is None:
            raise FileNotFoundError(folder)
        facts = store.facts
    description = folder / "store.json"
    last_used = (description if description.exists() else folder).stat().st_mtime
    state: State = "complete" if facts else "damaged"
    return StoredFeatures(folder.name, folder, state, facts, facts.rows if facts else 0, _size(folder), last_used)


def _unfinished(folder: Path) -> StoredFeatures:
    part = part_of(folder)
    log = part / BUILD_LOG
    facts, blocks = read_log(log)
    num_done = blocks[-1][0].stop if blocks else 0
    last_used = (log if log.exists() else part).stat().st_mtime
    state: State = "building" if is_held(lock_of(folder)) else "interrupted" if num_done else "damaged"
    return StoredFeatures(folder.name, part, state, facts, num_done, _size(part), last_used)


def _size(folder: Path) -> int:
    """Bytes that a folder takes on the disk; an unfinished array is not as large there as it seems."""
    statuses = [path.stat() for path in folder.iterdir()]
    return sum(status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size for status in statuses)
