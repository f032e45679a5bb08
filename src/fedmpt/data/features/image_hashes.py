"""Hashes of image files, remembered so that files which did not change are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
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


def image_hashes(files: Sequence[Path], *, cache: Path | None, progress: bool) -> Generator[bytes, None, None]:
    """SHA-256 of the bytes of each file, in order.

    With a ``cache``, hashes are kept there in ``image_hashes``, one file for each folder of images, and used for files
    whose size, times and inode are what they were. A cache that cannot be read or written is done without.

    Raises:
        InputError: if a file cannot be read.
    """
    root = common_folder(files)
    known: dict[str, Entry] = {}  # By paths without the root.
    index = None
    if cache and root:
        index = cache / "image_hashes" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
        with contextlib.suppress(OSError, ValueError):
            words = json.loads(index.read_bytes())
            known = words["images"] if words["format"] == FORMAT else {}

    def look(chunk: Sequence[Path]) -> list[tuple[str, bytes, Entry | None]]:
        names = [os.path.abspath(file).removeprefix(root) for file in chunk]
        return [(name, *_hash(file, known.get(name))) for name, file in zip(names, chunk, strict=True)]

    fresh: dict[str, Entry] = {}
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    results = map_ahead(look, chunks, ahead=32)
    with progress_bar("looking for changed images", len(files), enabled=progress) as advance, closing(results):
        for chunk in results:
            for name, digest, entry in chunk:
                if entry is not None:
                    fresh[name] = entry
                yield digest
            advance(len(chunk))
    if index is not None and any(known.get(name) != entry for name, entry in fresh.items()):
        others = {name: entry for name, entry in known.items() if name not in fresh and os.path.exists(root + name)}
        with contextlib.suppress(OSError):
            index.parent.mkdir(parents=True, exist_ok=True)
            words = {"format": FORMAT, "root": root, "images": {**others, **fresh}}
            write_atomically(index, json.dumps(words).encode())


def _hash(path: Path, known: Entry | None) -> tuple[bytes, Entry | None]:
    """SHA-256 of a file, and what to remember of it if that may be trusted to tell of the next change."""
    try:
        status = path.stat()  # Before it is read: a change meanwhile makes it another.
        signature = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known and known[:4] == signature:
            return bytes.fromhex(known[4]), known
        began = time.time_ns()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error.strerror}; check the data set's folder") from error
    is_settled = max(status.st_mtime_ns, status.st_ctime_ns) + GRANULARITY_NS < began
    return digest, [*signature, digest.hex()] if is_settled else None


def common_folder(files: Sequence[Path]) -> str:
    """The absolute path of the folder that holds all files, itself or in folders below; empty if there is none."""
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # On several drives.
        return ""
