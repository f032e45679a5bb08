"""Hashes of image files, remembered so that files which did not change are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fedmpt.data.features.ahead import map_ahead, progress_bar
from fedmpt.types import InputError

FORMAT = 1

# Clocks of file systems tick slowly: up to two seconds on FAT. A file that was written within this time before it was
# read may be written again without its times telling.
GRANULARITY_NS = 2_000_000_000

# Files that one thread looks after at a time: a task for each file would cost more than asking the system about it.
CHUNK = 32

_saving = threading.Lock()


class Signature(NamedTuple):
    """What the file system says of a file, all of which stays while its bytes do.

    ``ctime_ns`` tells of a write after which somebody set the time of change back.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Hashed(NamedTuple):
    """SHA-256 of a file, and its signature if that may be trusted to tell of the next change."""

    digest: bytes
    signature: Signature | None


Index = Mapping[str, Any]
"""From paths without the root to ``[size, mtime_ns, ctime_ns, inode, sha256]``, as far as the file is sound."""


def image_hashes(
    files: Sequence[Path], *, cache: Path | None, num_threads: int, progress: bool
) -> Generator[bytes, None, None]:
    """SHA-256 of the bytes of each file, in order.

    With a ``cache``, hashes are kept there in ``image_hashes``, one file for each folder of images, and used for files
    whose size, times and inode are what they were. A cache that cannot be read or written is done without.

    Raises:
        InputError: if a file cannot be read.
    """
    root = common_folder(files)
    path = cache / "image_hashes" / f"{_name(root)}.json" if cache and root else None
    known = _load(path)
    names = [os.path.abspath(file).removeprefix(root) for file in files]
    chunks = [range(start, min(start + CHUNK, len(files))) for start in range(0, len(files), CHUNK)]
    look = partial(_hash_chunk, files, names, known)
    fresh: dict[str, Any] = {}
    results = map_ahead(look, chunks, num_workers=num_threads, ahead=4 * num_threads)
    with progress_bar("looking for changed images", len(files), enabled=progress) as advance, closing(results):
        for chunk, hashes in zip(chunks, results, strict=True):
            for name, hashed in zip((names[index] for index in chunk), hashes, strict=True):
                if hashed.signature is not None:
                    fresh[name] = [*hashed.signature, hashed.digest.hex()]
                yield hashed.digest
            advance(len(chunk))
    if path is not None and any(known.get(name) != entry for name, entry in fresh.items()):
        _save(path, root, fresh)


def _hash_chunk(files: Sequence[Path], names: Sequence[str], known: Index, chunk: range) -> list[Hashed]:
    return [_hash(files[index], known.get(names[index])) for index in chunk]


def _hash(path: Path, entry: Any) -> Hashed:
    try:
        signature = _signature(path.stat())  # Before it is read: a change meanwhile makes it another.
        digest = _digest_in(entry, signature)
        if digest is not None:
            return Hashed(digest, signature)
        began = time.time_ns()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error.strerror}; check the data set's folder") from error
    is_settled = max(signature.mtime_ns, signature.ctime_ns) + GRANULARITY_NS < began
    return Hashed(digest, signature if is_settled else None)


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _digest_in(entry: Any, signature: Signature) -> bytes | None:
    """The hash in a line of the index, if it is of a file with this signature."""
    if not (isinstance(entry, list) and len(entry) == 5 and tuple(entry[:4]) == signature):
        return None
    with contextlib.suppress(TypeError, ValueError):
        digest = bytes.fromhex(entry[4])
        return digest if len(digest) == 32 else None
    return None


def common_folder(files: Sequence[Path]) -> str:
    """The absolute path of the folder that holds all files, itself or in folders below; empty if there is none."""
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    try:
        return os.path.commonpath(folders) if folders else ""
    except ValueError:  # On several drives.
        return ""


def _name(root: str) -> str:
    return hashlib.sha256(os.fsencode(root)).hexdigest()[:16]


def _load(path: Path | None) -> dict[str, Any]:
    """The index, or an empty one if there is none or it is damaged."""
    if path is None:
        return {}
    try:
        words = json.loads(path.read_bytes())
        images = words["images"] if words["format"] == FORMAT else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return images if isinstance(images, dict) else {}


def _save(path: Path, root: str, fresh: Mapping[str, Any]) -> None:
    """Add what is new to the index, to which other processes may have added; images that are no more are dropped."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    with _saving, contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        others = {
            name: entry for name, entry in _load(path).items() if name not in fresh and os.path.exists(root + name)
        }
        words = {"format": FORMAT, "root": root, "images": {**others, **fresh}}
        try:
            # Not flushed to the disk: what is lost is computed again, and half a file is no JSON.
            temporary.write_text(json.dumps(words), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
