"""Hashes of image files, remembered so that files which did not change are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedmpt.data.progress import map_ahead, progress_bar
from fedmpt.files import write_atomically
from fedmpt.types import InputError

FORMAT = 1

# Clocks of file systems tick slowly: up to two seconds on FAT. A file that was written within this time before it was
# read may be written again without its times telling.
GRANULARITY_NS = 2_000_000_000

# Files that one thread looks after at a time: a task for each file would cost more than asking the system about it.
CHUNK = 32

Entry = list[Any]
"""``[size, mtime_ns, ctime_ns, inode, sha256]``: all but the hash stay while a file's bytes do.

``ctime_ns`` tells of a write after which somebody set the time of change back.
"""


def image_hashes(files: Sequence[Path], *, cache: Path | None, progress: bool) -> list[bytes]:
    """SHA-256 of the bytes of each file, in order.

    With a ``cache``, hashes are kept there in ``image_hashes``, one file for each folder of images, and used for files
    whose size, times and inode are what they were. A cache that cannot be read or written is done without.

    Raises:
        InputError: if a file cannot be read.
    """
    root = common_folder(files)
    index = cache / "image_hashes" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json" if cache else None
    known: dict[str, Entry] = {}  # By paths without the root.
    if index:
        with contextlib.suppress(OSError, ValueError):
            words = json.loads(index.read_bytes())
            known = words["images"] if words["format"] == FORMAT else {}
    names = [os.path.abspath(file).removeprefix(root) for file in files]

    def look(chunk: slice) -> list[Entry]:
        return [_hash(file, known.get(name)) for file, name in zip(files[chunk], names[chunk], strict=True)]

    entries: list[Entry] = []
    with progress_bar("looking for changed images", len(files), enabled=progress) as advance:
        for found in map_ahead(look, [slice(at, at + CHUNK) for at in range(0, len(files), CHUNK)], ahead=32):
            entries += found
            advance(len(found))
    fresh = dict(zip(names, entries, strict=True))
    if index and any(known.get(name) != entry for name, entry in fresh.items()):
        others = {name: entry for name, entry in known.items() if name not in fresh and os.path.exists(root + name)}
        with contextlib.suppress(OSError):
            index.parent.mkdir(parents=True, exist_ok=True)
            words = {"format": FORMAT, "root": root, "images": {**others, **fresh}}
            write_atomically(index, json.dumps(words).encode())
    return [bytes.fromhex(entry[-1]) for entry in entries]


def _hash(path: Path, known: Entry | None) -> Entry:
    try:
        status = path.stat()  # Before it is read: a change meanwhile makes it another.
        signature = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known and known[:4] == signature:
            return known
        began = time.time_ns()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error.strerror}; check the data set's folder") from error
    if max(status.st_mtime_ns, status.st_ctime_ns) + GRANULARITY_NS >= began:
        signature[0] = -1  # Times may not tell of its next change, so it is read again the next time.
    return [*signature, digest]


def common_folder(files: Sequence[Path]) -> str:
    """The absolute path of the folder that holds all files, itself or in folders below; empty if there is none."""
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # On several drives.
        return ""
