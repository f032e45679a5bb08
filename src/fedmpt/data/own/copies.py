"""Pictures that are in train and in test under different names, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

# Sizes differ between most pictures; where there are more, so many are alike that reading them takes minutes.
MAX_IMAGES = 20_000


def copies(train: Sequence[Path], test: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each test picture with the first training picture of the same bytes. Only files of one size are read.

    Files that cannot be read are passed over: whoever opens them as pictures says so.
    """
    train_sizes, test_sizes = _sizes(train), _sizes(test)
    sizes = set(train_sizes.values()) & set(test_sizes.values())
    originals: dict[str, Path] = {}
    for path in (path for path, size in train_sizes.items() if size in sizes):
        originals.setdefault(_digest(path), path)
    digests = {path: _digest(path) for path, size in test_sizes.items() if size in sizes}
    return [(path, originals[digest]) for path, digest in digests.items() if digest and digest in originals]


def _sizes(paths: Iterable[Path]) -> dict[Path, int]:
    return {path: size for path in paths if path.is_file() and (size := path.stat().st_size)}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
