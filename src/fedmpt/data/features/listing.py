"""The stores of a cache: what there is, and the removal of what nobody uses."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedmpt.data.features.files import BUILD_LOG, DamagedStoreError, lock, read_store
from fedmpt.data.features.writer import read_log
from fedmpt.files import hold, is_held, lock_of

Record = dict[str, Any]
"""A store in a cache: ``key``, ``folder``, ``state`` (complete, interrupted, building or damaged), ``size_bytes`` on
the disk, ``last_used`` (of an unfinished store when a block was last written), ``images_done`` (those without features
too), and what its `StoreFacts` say, where they can be told.
"""


def time_text(seconds: float) -> str:
    """Seconds since 1970 as a time in UTC. Earlier times are smaller strings."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def list_features(cache: Path) -> list[Record]:
    """All stores of a cache, finished or not, last used first."""
    parent = cache / "features"
    found = []
    for name in sorted(os.listdir(parent)) if parent.is_dir() else []:
        if re.fullmatch(r"[0-9a-f]{64}(\.part)?", name):
            with contextlib.suppress(FileNotFoundError):  # Another process may remove or rename it at any moment.
                found.append(_look(parent / name))
    return sorted(found, key=lambda record: record["last_used"], reverse=True)


def remove_features(record: Record) -> str | None:
    """Delete a store, or leave it and return why: it is in use, being built, or a link.

    Raises:
        OSError: if the file system refuses.
    """
    folder = Path(record["folder"])
    description = folder / "store.json"
    if folder.is_symlink():
        return "it is a link; remove it and what it leads to by hand"
    try:
        with hold(lock_of(folder.with_name(record["key"]))):
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


def _look(folder: Path) -> Record:
    key, state, facts, num_done, times = folder.name[:64], "damaged", None, 0, folder / "store.json"
    if folder.suffix == ".part":
        times = folder / BUILD_LOG
        facts, blocks = read_log(folder)
        num_done = blocks[-1]["stop"] if blocks else 0
        is_building = is_held(lock_of(folder.with_name(key)))
        state = "building" if is_building else "interrupted" if num_done else "damaged"
    else:
        with contextlib.suppress(DamagedStoreError):
            store = read_store(folder)
            if store is None:
                raise FileNotFoundError(folder)
            state, facts, num_done = "complete", store.facts, store.facts.rows
    statuses = [path.stat() for path in folder.iterdir()]
    # Blocks, where the system counts them: an unfinished array is not as large on the disk as it seems.
    sizes = [status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size for status in statuses]
    return {
        "key": key,
        "folder": str(folder),
        "state": state,
        "size_bytes": sum(sizes),
        "last_used": time_text((times if times.exists() else folder).stat().st_mtime),
        "images_done": num_done,
        **(asdict(facts) if facts else {}),
    }
