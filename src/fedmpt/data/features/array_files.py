"""Rows of arrays in files that are larger than memory: written in order, read in any."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64, Shaped

from fedmpt.types import InputError


def map_array(path: Path, handle: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, Any]:
    """The memory map of an ``.npy`` file, which is open as ``handle``; nothing of it is read yet.

    Raises:
        ValueError: if it holds anything but an array of this shape and type, or is cut short.
        OSError: if it cannot be read.
    """
    with open(handle, "rb", closefd=False) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path.name} is no array of this package")
        found_shape, _, found_dtype = np.lib.format.read_array_header_1_0(file)
        if (found_shape, found_dtype) != (shape, dtype):
            raise ValueError(f"{path.name} holds {found_dtype} {found_shape}, expected {dtype} {shape}")
        num_bytes = os.fstat(handle).st_size
        if file.tell() + row_bytes(shape, dtype) * shape[0] != num_bytes:
            raise ValueError(f"{path.name} has {num_bytes} bytes")
        return np.memmap(path, dtype, mode="r", offset=file.tell(), shape=shape)


def row_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Size of one row of an array."""
    return dtype.itemsize * int(np.prod(shape[1:]))


def read_rows(handle: int, array: np.memmap[Any, Any], rows: Int64[np.ndarray, "B"]) -> Shaped[np.ndarray, "B *rest"]:
    """Rows of a mapped array, read from its open file.

    Not through the map: pages that were looked at through a map count as memory of the process, and each costs a page
    fault.

    Raises:
        InputError: if the file has been cut short since it was mapped, where a map would end the process.
    """
    if not hasattr(os, "preadv"):  # Windows.
        return np.asarray(array[rows])
    size = row_bytes(array.shape, array.dtype)
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
        _fill(buffer[start:end], handle, offset, array.filename)
    return values


def _fill(buffer: memoryview, handle: int, offset: int, name: object) -> None:
    while buffer:
        num_read = os.preadv(handle, [buffer], offset)
        if num_read == 0:
            raise InputError(f"{name} has been cut short by another program; start again to compute it anew")
        buffer, offset = buffer[num_read:], offset + num_read


class RowFile:
    """An ``.npy`` file of which rows are written in order; ``checksum`` is CRC-32 of those since the last `flush`."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        self.checksum = 0
        self._file, self._header = file, header.getvalue()
        self._row_bytes = row_bytes(shape, dtype)

    def write_header(self) -> None:
        self._file.write(self._header)

    def has_header(self) -> bool:
        return self._file.read(len(self._header)) == self._header

    def write(self, rows: Sequence[int], values: Shaped[np.ndarray, "B *rest"]) -> None:
        for row, row_values in zip(rows, values, strict=True):
            content = row_values.tobytes()
            assert len(content) == self._row_bytes
            self._file.seek(self._start(row))
            self._file.write(content)
            self.checksum = zlib.crc32(content, self.checksum)

    def checksum_of(self, rows: Sequence[int]) -> int:
        """Of rows in the file, in this order."""
        checksum = 0
        for row in rows:
            self._file.seek(self._start(row))
            checksum = zlib.crc32(self._file.read(self._row_bytes), checksum)
        return checksum

    def flush(self) -> None:
        """Hand everything to the system, which keeps it when the process is killed."""
        self._file.flush()
        self.checksum = 0

    def cut(self, row: int) -> None:
        """Forget what follows, so that rows which are never written read as zeros."""
        self._file.truncate(self._start(row))

    def finish(self, num_rows: int) -> None:
        """All rows, on the disk."""
        self._file.flush()
        self.cut(num_rows)
        os.fsync(self._file.fileno())

    def _start(self, row: int) -> int:
        return len(self._header) + row * self._row_bytes
