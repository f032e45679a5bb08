"""The files of a feature store: ``<cache>/features/<key>/{patches.npy,pooled.npy,store.json}``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
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


Skipped = dict[str, Any]
"""An image without features: its ``row`` of zeros in the store, its ``file``, and the ``reason``."""


@dataclass(frozen=True)
class StoreFacts:
    """store.json. ``rows`` counts all images of the split, the skipped ones too.

    ``made_for`` is for people, since images and model alone make the key: ``data`` as the user named it (or ""), the
    ``split``, and the ``folder`` of its images.
    """

    key: str
    backbone: str
    rows: int
    num_patches: int
    width: int
    dtype: str
    skipped: Sequence[Skipped] = ()
    format: int = FORMAT
    made_for: dict[str, str] | None = None

    @property
    def row_bytes(self) -> int:
        """Of one image: its patches and the pooled feature."""
        return (self.num_patches + 1) * self.width * NUMBER_FORMATS[self.dtype].itemsize

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays, by the names of their files."""
        return {"patches.npy": (self.rows, self.num_patches, self.width), "pooled.npy": (self.rows, self.width)}


@dataclass(frozen=True, eq=False)
class Store:
    """A finished store, memory-mapped. While one is there, its files are not removed by `fedmpt features clean`.

    The arrays of bfloat16 are of its bits. ``handles`` are the open files of both arrays, where they are files.
    """

    facts: StoreFacts
    patches: Shaped[np.ndarray, "rows M D"]
    pooled: Shaped[np.ndarray, "rows D"]
    handles: tuple[int | None, int | None] = field(default=(None, None), repr=False)

    def read(self, rows: Int64[np.ndarray, "B"]) -> tuple[Shaped[Tensor, "B M D"], Shaped[Tensor, "B D"]]:
        """Patch and pooled features of some rows, in the store's number format, in memory of their own."""
        arrays = zip((self.patches, self.pooled), self.handles, strict=True)
        patches, pooled = (torch.from_numpy(_read_rows(array, handle, rows)) for array, handle in arrays)
        if self.facts.dtype == "bfloat16":
            return patches.view(torch.bfloat16), pooled.view(torch.bfloat16)
        return patches, pooled


def read_store(folder: Path) -> Store | None:
    """The store in ``folder``, which its key names, or None if there is none (or it is about to be removed).

    Raises DamagedStoreError if files are missing, cut short, of another shape, or not ours.
    """
    if not folder.is_dir():
        return None
    with contextlib.ExitStack() as files:
        try:
            description = files.enter_context((folder / "store.json").open("rb"))
            with contextlib.suppress(OSError):  # Some network disks have no locks.
                if not lock(description.fileno(), shared=True):
                    return None
            facts = StoreFacts(**json.load(description))
            if (facts.key, facts.format) != (folder.name, FORMAT):
                raise DamagedStoreError("store.json describes another store")
            arrays, handles = [], []
            for name, shape in facts.shapes.items():
                file = files.enter_context((folder / name).open("rb"))
                array: np.memmap[Any, Any] = np.lib.format.open_memmap(folder / name, mode="r")
                size, dtype = os.fstat(file.fileno()).st_size, NUMBER_FORMATS[facts.dtype]
                if (array.shape, array.dtype, array.offset + array.nbytes) != (shape, dtype, size):
                    raise DamagedStoreError(f"{name} is not of {dtype} {shape}")
                arrays.append(array)
                handles.append(file.fileno())
            if hasattr(os, "posix_fadvise"):  # Who reads neighbours reads many; who does not says what is wanted.
                os.posix_fadvise(handles[0], 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except (OSError, ValueError, TypeError, KeyError) as error:
            if not folder.is_dir():
                return None
            raise DamagedStoreError(f"{type(error).__name__}: {error}") from error
        store = Store(facts, arrays[0], arrays[1], (handles[0], handles[1]))
        weakref.finalize(store, files.pop_all().close)
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


def _read_rows(
    array: Shaped[np.ndarray, "rows *rest"], handle: int | None, rows: Int64[np.ndarray, "B"]
) -> Shaped[np.ndarray, "B *rest"]:
    """Rows of a mapped array, read from its open file.

    Not through the map: pages that were looked at through a map count as memory of the process, and each costs a page
    fault. Shuffled reading in 2 GB of memory is 25 times as fast (benchmarks/speed/feature_store.py).
    """
    if handle is None or not isinstance(array, np.memmap) or not hasattr(os, "preadv"):  # In memory; Windows.
        return np.asarray(array[rows])
    values = np.empty((len(rows), *array.shape[1:]), array.dtype)
    offsets = (array.offset + rows * array.strides[0]).tolist()
    if len(rows) > 1 and hasattr(os, "posix_fadvise"):
        for offset in offsets:  # A disk is faster when it knows of all of them.
            os.posix_fadvise(handle, offset, array.strides[0], os.POSIX_FADV_WILLNEED)
    for value, offset in zip(values, offsets, strict=True):
        if os.preadv(handle, [value], offset) < value.nbytes:
            # A map would end the process here.
            raise InputError(f"{array.filename} was cut short by another program; start again to compute it anew")
    return values


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses within into an `InputError` about the cache."""
    try:
        yield
    except OSError as error:
        remedy = "make room on the disk" if error.errno == errno.ENOSPC else "choose a cache folder you may write to"
        raise InputError(f"{folder}: features cannot be written: {error.strerror or error}; {remedy}") from error
