"""The files of a feature store: ``<cache>/features/<key>/{patches.npy,pooled.npy,store.json}``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from fedmpt.types import InputError

FORMAT = 1

NUMBER_FORMATS: Mapping[str, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),  # NumPy has none: its bits.
    "float32": np.dtype("<f4"),
}
"""How the numbers of a store lie in its files."""

BUILD_LOG = "build.jsonl"
"""What an unfinished store holds so far; see `fedmpt.data.features.writer`."""


class DamagedStoreError(Exception):
    """A finished store whose files are not what its store.json says."""


@dataclass(frozen=True)
class SkippedRow:
    """An image without features: its row of zeros in the store, and why."""

    row: int
    file: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """What a store was made for: the data set as the user named it (or ""), the split, the folder of its images.

    For people: images and model alone make the key, so a store may serve others too.
    """

    data: str
    split: str
    folder: str


@dataclass(frozen=True)
class StoreFacts:
    """store.json. ``rows`` counts all images of the split, the skipped ones too."""

    key: str
    backbone: str
    rows: int
    num_patches: int
    width: int
    dtype: str
    skipped: tuple[SkippedRow, ...]
    format: int = FORMAT
    made_for: Origin | None = None

    @property
    def row_bytes(self) -> int:
        """Of one image: its patches and the pooled feature."""
        return (self.num_patches + 1) * self.width * NUMBER_FORMATS[self.dtype].itemsize


def facts_from_json(words: dict[str, Any]) -> StoreFacts:
    """The facts in an object of JSON.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: if it is of another form.
    """
    skipped = tuple(SkippedRow(**row) for row in words.pop("skipped"))
    made_for = words.pop("made_for", None)
    return StoreFacts(**words, skipped=skipped, made_for=None if made_for is None else Origin(**made_for))


@dataclass(frozen=True, eq=False)
class Store:
    """A finished store, memory-mapped. While one is there, its files are not removed by `fedmpt features clean`.

    The arrays of bfloat16 are of its bits. ``handles`` are the open files of both arrays, where they are files.
    """

    facts: StoreFacts
    patches: Shaped[np.ndarray, "rows M D"]
    pooled: Shaped[np.ndarray, "rows D"]
    handles: tuple[int, ...] = field(default=(), repr=False)

    def read(self, rows: Int64[np.ndarray, "B"]) -> tuple[Shaped[Tensor, "B M D"], Shaped[Tensor, "B D"]]:
        """Patch and pooled features of some rows, in the store's number format, in memory of their own.

        Raises:
            InputError: if the files have been cut short since they were opened.
        """
        patches, pooled = (self._read(index, rows) for index in range(2))
        return patches, pooled

    def _read(self, index: int, rows: Int64[np.ndarray, "B"]) -> Shaped[Tensor, "B *rest"]:
        array = (self.patches, self.pooled)[index]
        values = _read_rows(self.handles[index], array, rows) if isinstance(array, np.memmap) else array[rows]
        tensor = torch.from_numpy(values)
        return tensor.view(torch.bfloat16) if self.facts.dtype == "bfloat16" else tensor


def read_store(folder: Path, *, key: str, rows: int | None) -> Store | None:
    """The store in ``folder``, or None if there is none (or it is about to be removed); None as ``rows`` fits any.

    Raises:
        DamagedStoreError: if files are missing, cut short, of another shape, or not ours.
    """
    if not folder.is_dir():
        return None
    with contextlib.ExitStack() as handles:
        try:
            description = _open(folder / "store.json", handles)
            with contextlib.suppress(OSError):  # Some network disks have no locks.
                if not lock(description, shared=True):
                    return None
            facts = facts_from_json(json.loads((folder / "store.json").read_text(encoding="utf-8")))
            if (facts.key, facts.format) != (key, FORMAT) or rows not in (None, facts.rows):
                raise DamagedStoreError("store.json describes another store")
            shape, dtype = (facts.rows, facts.num_patches, facts.width), NUMBER_FORMATS[facts.dtype]
            patches, pooled = (_open(folder / name, handles) for name in ("patches.npy", "pooled.npy"))
            if hasattr(os, "posix_fadvise"):  # Who reads neighbours reads many; who does not says what is wanted.
                os.posix_fadvise(patches, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            arrays = _map(folder / "patches.npy", shape, dtype), _map(folder / "pooled.npy", shape[::2], dtype)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError) as error:
            if not folder.is_dir():
                return None
            raise DamagedStoreError(f"{type(error).__name__}: {error}") from error
        store = Store(facts, *arrays, (patches, pooled))
        weakref.finalize(store, handles.pop_all().close)
    return store


def lock(handle: int, *, shared: bool) -> bool:
    """Lock an open file until it is closed, without waiting; whether that worked.

    Not by filelock: its shared locks are files of their own, which nobody can make in a cache that is only read.
    """
    try:
        import fcntl
    except ImportError:  # Windows removes no open file anyway.
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path, handles: contextlib.ExitStack) -> int:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    handles.callback(os.close, handle)
    return handle


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    """The memory map of an ``.npy`` file; nothing of it is read yet. Raises ValueError if it is of another kind."""
    array = np.load(path, mmap_mode="r")
    if not isinstance(array, np.memmap) or (array.shape, array.dtype) != (shape, dtype):
        raise ValueError(f"{path.name} holds no {dtype} {shape}")
    if array.offset + array.nbytes != path.stat().st_size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
    return array


def _read_rows(handle: int, array: np.memmap[Any, Any], rows: Int64[np.ndarray, "B"]) -> Shaped[np.ndarray, "B *rest"]:
    """Rows of a mapped array, read from its open file.

    Not through the map: pages that were looked at through a map count as memory of the process, and each costs a page
    fault. Shuffled reading in 2 GB of memory is 25 times as fast (benchmarks/speed/feature_store.py).

    Raises:
        InputError: if the file has been cut short since it was mapped, where a map would end the process.
    """
    if not hasattr(os, "preadv"):  # Windows.
        return np.asarray(array[rows])
    size = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    values = np.empty((len(rows), *array.shape[1:]), array.dtype)
    buffer = values.reshape(-1).view(np.uint8).data
    ends = (np.flatnonzero(np.diff(rows, append=-1) != 1) + 1).tolist()  # Neighbours are read at once.
    spans = [
        (start * size, end * size, array.offset + int(rows[start]) * size)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    if len(spans) > 1 and hasattr(os, "posix_fadvise"):
        for start, end, offset in spans:  # A disk is faster when it knows of all of them.
            os.posix_fadvise(handle, offset, end - start, os.POSIX_FADV_WILLNEED)
    for start, end, offset in spans:
        rest = buffer[start:end]
        while rest:
            num_read = os.preadv(handle, [rest], offset)
            if num_read == 0:
                raise InputError(f"{array.filename} was cut short by another program; start again to compute it anew")
            rest, offset = rest[num_read:], offset + num_read
    return values


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses within into an `InputError` about the cache."""
    try:
        yield
    except OSError as error:
        remedy = "make room on the disk" if error.errno == errno.ENOSPC else "choose a cache folder you may write to"
        raise InputError(f"{folder}: features cannot be written: {error.strerror or error}; {remedy}") from error
