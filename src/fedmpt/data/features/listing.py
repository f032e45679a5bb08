"""The stores of a cache: what there is, and the removal of what nobody uses."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedmpt.data.features.files import BUILD_LOG, DamagedStoreError, StoreFacts, lock, read_store
from fedmpt.data.features.writer import read_log
from fedmpt.files import hold, is_held, lock_of

State = Literal["complete", "interrupted", "building", "damaged"]


@dataclass(frozen=True)
class StoredFeatures:
    """A store in a cache. ``folder`` holds it; ``facts`` are None where they cannot be told.

    ``num_done`` images of it are there, those without features too. ``last_used`` is in seconds since 1970, of an
    unfinished store when a block was last written. ``size_bytes`` is what it takes on the disk.
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
    found = []
    for name in os.listdir(parent) if parent.is_dir() else []:
        if re.fullmatch(r"[0-9a-f]{64}(\.part)?", name):
            with contextlib.suppress(FileNotFoundError):  # Another process may remove or rename it at any moment.
                found.append(_look(parent / name))
    return sorted(found, key=lambda stored: (-stored.last_used, stored.key))


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


def _look(folder: Path) -> StoredFeatures:
    key, facts, num_done, times = folder.name[:64], None, 0, folder / "store.json"
    state: State = "damaged"
    if folder.suffix == ".part":
        times = folder / BUILD_LOG
        facts, blocks = read_log(folder)
        num_done = blocks[-1]["stop"] if blocks else 0
        if is_held(lock_of(folder.with_name(key))):
            state = "building"
        elif num_done:
            state = "interrupted"
    else:
        with contextlib.suppress(DamagedStoreError):
            store = read_store(folder)
            if store is None:
                raise FileNotFoundError(folder)
            state, facts, num_done = "complete", store.facts, store.facts.rows
    statuses = [path.stat() for path in folder.iterdir()]
    # Blocks, where the system counts them: an unfinished array is not as large on the disk as it seems.
    sizes = [status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size for status in statuses]
    last_used = (times if times.exists() else folder).stat().st_mtime
    return StoredFeatures(key, folder, state, facts, num_done, sum(sizes), last_used)
