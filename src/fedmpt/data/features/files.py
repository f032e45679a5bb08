"""The files of a feature store: ``<cache>/features/<key>/{patches.npy,pooled.npy,store.json}``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from fedmpt.data.features.array_files import map_array, read_rows
from fedmpt.data.features.lock import NoLocksError, hold, is_still_at, lock
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
    facts = StoreFacts(**words, skipped=skipped, made_for=None if made_for is None else Origin(**made_for))
    sizes = (facts.rows, facts.num_patches, facts.width)
    if facts.dtype not in NUMBER_FORMATS or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"no store has {sizes} numbers of type {facts.dtype}")
    return facts


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
        values = read_rows(self.handles[index], array, rows) if isinstance(array, np.memmap) else array[rows]
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
            description = folder / "store.json"
            in_use = _open(description, handles)
            if not _share(in_use, description):
                return None
            facts = facts_from_json(json.loads(description.read_text(encoding="utf-8")))
            if (facts.key, facts.format) != (key, FORMAT) or rows not in (None, facts.rows):
                raise DamagedStoreError("store.json describes another store")
            shape, dtype = (facts.rows, facts.num_patches, facts.width), NUMBER_FORMATS[facts.dtype]
            patches = _open(folder / "patches.npy", handles)
            if hasattr(os, "posix_fadvise"):  # Who reads neighbours reads many; who does not says what is wanted.
                os.posix_fadvise(patches, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            pooled = _open(folder / "pooled.npy", handles)
            arrays = (
                map_array(folder / "patches.npy", patches, shape, dtype),
                map_array(folder / "pooled.npy", pooled, shape[::2], dtype),
            )
        except FileNotFoundError as error:
            if not folder.is_dir():
                return None
            raise DamagedStoreError(str(error)) from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, RecursionError) as error:
            raise DamagedStoreError(f"{type(error).__name__}: {error}") from error
        store = Store(facts, *arrays, (patches, pooled))
        weakref.finalize(store, handles.pop_all().close)
    return store


def _open(path: Path, handles: contextlib.ExitStack) -> int:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    handles.callback(os.close, handle)
    return handle


def _share(handle: int, path: Path) -> bool:
    """Keep a store from being removed while the handle is open; whether it is still there."""
    try:
        return lock(handle, shared=True) and is_still_at(handle, path)
    except NoLocksError:
        return True


def size_text(num_bytes: int) -> str:
    """``16.6 GB``: in units of a thousand, as disks are sold."""
    size, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if round(size, 1) < 1000:
            break
        size, unit = size / 1000, larger
    return f"{num_bytes} B" if unit == "B" else f"{size:.1f} {unit}"


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses within into an `InputError` about the cache."""
    try:
        yield
    except OSError as error:
        remedy = "make room on the disk" if error.errno == errno.ENOSPC else "choose a cache folder you may write to"
        raise InputError(f"{folder}: features cannot be written: {error.strerror or error}; {remedy}") from error


@contextlib.contextmanager
def build_folder(folder: Path, *, on_wait: Callable[[str], None]) -> Iterator[Path]:
    """A folder beside ``folder`` to build it in, for this process and thread alone, with what is there from before.

    Others that want the same wait; these tell ``on_wait`` once who is building, and where. Where files cannot be
    locked, nobody waits: each has a new folder, which is gone at the end unless renamed.
    """
    parent, part = folder.parent, part_folder(folder)

    def waiting(owner: str) -> None:
        on_wait(f"waiting for {owner}, which computes them in {part}")

    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent)
    with contextlib.ExitStack() as stack:
        try:
            with writing(parent):
                stack.enter_context(hold(lock_file(folder), on_wait=waiting))
        except NoLocksError:
            yield stack.enter_context(temporary_folder(parent))
            return
        with writing(parent):
            part.mkdir(exist_ok=True)
        try:
            yield part
        finally:
            if not (part / BUILD_LOG).exists():
                shutil.rmtree(part, ignore_errors=True)


def part_folder(folder: Path) -> Path:
    """Where the store ``folder`` is built."""
    return folder.with_name(f"{folder.name}.part")


def lock_file(folder: Path) -> Path:
    """The lock of whoever builds or removes the store ``folder``."""
    return folder.with_name(f"{folder.name}.lock")


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
                    shutil.rmtree(temporary, ignore_errors=True)
                    return
            with temporary_folder(folder.parent) as aside:
                folder.rename(aside / "damaged")
                temporary.rename(folder)
        (folder / BUILD_LOG).unlink(missing_ok=True)
