"""Pictures that are in train and in test under different names, byte for byte."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

# Sizes differ between most pictures; where there are more, so many are alike that reading them takes minutes.
MAX_IMAGES = 20_000


def copies(train: Sequence[Path], test: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each test picture with the first training picture of the same bytes. Only files of one size are read.

    Files that cannot be read are passed over: whoever opens them as pictures says so.
    """
    sizes = _by_size(train)
    candidates = [(path, sizes[size]) for size, paths in _by_size(test).items() if size in sizes for path in paths]
    train_hashes: dict[bytes, Path] = {}
    for path in dict.fromkeys(path for _, paths in candidates for path in paths):
        if (digest := _digest(path)) is not None:
            train_hashes.setdefault(digest, path)
    found = [(path, train_hashes.get(digest)) for path, _ in candidates if (digest := _digest(path)) is not None]
    return [(path, original) for path, original in found if original is not None]


def _by_size(paths: Iterable[Path]) -> dict[int, list[Path]]:
    by_size: dict[int, list[Path]] = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size:
            by_size.setdefault(status.st_size, []).append(path)
    return by_size


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
