"""The files of a feature store: ``<cache>/features/<key>/{patches.npy,pooled.npy,store.json}``."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from fedmpt.types import InputError

FORMAT = 1


class DamagedStoreError(Exception):
    """A finished store whose files are not what its store.json says."""


@dataclass(frozen=True)
class SkippedRow:
    """An image without features: its row of zeros in the store, and why."""

    row: int
    file: str
    reason: str


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


@dataclass(frozen=True, eq=False)
class Store:
    """A finished store, memory-mapped."""

    facts: StoreFacts
    patches: Float[np.ndarray, "rows M D"]
    pooled: Float[np.ndarray, "rows D"]


def read_store(folder: Path, *, key: str, rows: int) -> Store | None:
    """The store in ``folder``, or None if there is none.

    Raises:
        DamagedStoreError: if files are missing, cut short, of another shape, or not ours.
    """
    if not folder.is_dir():
        return None
    try:
        words = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        skipped = tuple(SkippedRow(**row) for row in words.pop("skipped"))
        facts = StoreFacts(**words, skipped=skipped)
        if (facts.key, facts.rows, facts.format) != (key, rows, FORMAT):
            raise DamagedStoreError("store.json describes another store")
        patches = _map(folder / "patches.npy", (rows, facts.num_patches, facts.width), facts.dtype)
        pooled = _map(folder / "pooled.npy", (rows, facts.width), facts.dtype)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError) as error:
        raise DamagedStoreError(f"{type(error).__name__}: {error}") from error
    return Store(facts, patches, pooled)


def _map(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DamagedStoreError(f"{path.name} holds {array.dtype} {array.shape}, store.json says {dtype} {shape}")
    if array.offset + array.nbytes != path.stat().st_size:
        raise DamagedStoreError(f"{path.name} has {path.stat().st_size} bytes")
    return array


class StoreWriter:
    """Writes a store into a temporary folder, row by row; rows never written read as zeros.

    Plain writes, no memory map: on a full disk those fail with an error, where a map kills the process.
    """

    def __init__(self, folder: Path, *, rows: int, num_patches: int, width: int, dtype: str) -> None:
        self._folder = folder
        self._shape = (rows, num_patches, width)
        self._dtype = np.dtype(dtype)
        needed_bytes = rows * (num_patches + 1) * width * self._dtype.itemsize
        _check_disk(folder, needed_bytes)
        with writing(folder), contextlib.ExitStack() as files:
            self._patches = files.enter_context((folder / "patches.npy").open("wb"))
            self._pooled = files.enter_context((folder / "pooled.npy").open("wb"))
            self._patches_start = _write_header(self._patches, self._shape, self._dtype)
            self._pooled_start = _write_header(self._pooled, (rows, width), self._dtype)
            self._files = files.pop_all()

    def write(self, rows: Sequence[int], patches: Float[np.ndarray, "B M D"], pooled: Float[np.ndarray, "B D"]) -> None:
        """Features of the images ``rows``, already in the store's number format."""
        with writing(self._folder):
            for row, patch_rows, pooled_row in zip(rows, patches, pooled, strict=True):
                _write_row(self._patches, self._patches_start, row, patch_rows)
                _write_row(self._pooled, self._pooled_start, row, pooled_row)

    def finish(self, *, key: str, backbone: str, skipped: Sequence[SkippedRow]) -> None:
        """Bring everything to the disk, store.json last."""
        rows, num_patches, width = self._shape
        facts = StoreFacts(key, backbone, rows, num_patches, width, self._dtype.name, tuple(skipped))
        with writing(self._folder):
            itemsize = self._dtype.itemsize
            self._patches.truncate(self._patches_start + rows * num_patches * width * itemsize)
            self._pooled.truncate(self._pooled_start + rows * width * itemsize)
            with (self._folder / "store.json").open("w", encoding="utf-8") as description:
                json.dump(dataclasses.asdict(facts), description, indent=2)
                for file in (self._patches, self._pooled, description):
                    file.flush()
                    os.fsync(file.fileno())
        self.close()

    def close(self) -> None:
        """Close the files, finished or not; on a full disk the last bytes may be lost without a word."""
        with contextlib.suppress(OSError):
            self._files.close()


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _write_row(file: IO[bytes], start: int, row: int, values: np.ndarray) -> None:
    file.seek(start + row * values.nbytes)
    file.write(values.tobytes())


def _check_disk(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"{folder.parent}: the features take {needed_bytes / 1e9:.2f} GB and {free_bytes / 1e9:.2f} GB are free; "
            "make room, put the cache on another disk, or store float16"
        )


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses within into an `InputError` about the cache."""
    try:
        yield
    except OSError as error:
        remedy = "make room on the disk" if error.errno == errno.ENOSPC else "choose a cache folder you may write to"
        raise InputError(f"{folder}: features cannot be written: {error.strerror or error}; {remedy}") from error


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent``, named after this process, and gone at the end unless renamed."""
    folder = parent / f"tmp-{os.getpid()}-{uuid.uuid4().hex}-{socket.gethostname()}"
    with writing(parent):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Delete the temporary folders of processes of this machine that are no more."""
    for folder in parent.glob("tmp-*-*-*"):
        _, pid, _, host = folder.name.split("-", 3)
        if host == socket.gethostname() and pid.isdecimal() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # There os.kill would end the process instead of asking for it.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def publish(temporary: Path, folder: Path, *, key: str, rows: int) -> None:
    """Give a finished store its name, unless another process did first; a damaged one there gives way."""
    with writing(folder):
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            with contextlib.suppress(DamagedStoreError):
                if read_store(folder, key=key, rows=rows) is not None:
                    return
            with temporary_folder(folder.parent) as aside:
                folder.rename(aside / "damaged")
                temporary.rename(folder)
