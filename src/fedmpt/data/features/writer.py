"""Writing a feature store, so that a build that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

from fedmpt.data.features.files import (
    BUILD_LOG,
    NUMBER_FORMATS,
    SkippedRow,
    StoreFacts,
    facts_from_json,
    writing,
)
from fedmpt.data.progress import progress_bar, size_text
from fedmpt.types import InputError


@dataclass(frozen=True)
class Block:
    """A line of the log: the images before row ``stop`` are done, from where the line before it ended.

    ``crc32`` is of the bytes of their patches and of their pooled features, ``skipped`` are those without any.
    """

    stop: int
    crc32: tuple[int, int]
    skipped: tuple[SkippedRow, ...]


def read_log(path: Path) -> tuple[StoreFacts | None, list[tuple[Block, int]]]:
    """What an unfinished store is of, and its blocks with the size of the log up to there.

    Ends before the first line that is not whole. Whether the rows are as the log says is another question.
    """
    facts: StoreFacts | None = None
    blocks: list[tuple[Block, int]] = []
    size = 0
    with (
        contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError),
        path.open("rb") as file,
    ):
        for line in file:
            if not line.endswith(b"\n"):
                break
            size += len(line)
            words = json.loads(line)
            if facts is None:
                facts = facts_from_json(words)
            else:
                patches, pooled = words["crc32"]
                skipped = tuple(SkippedRow(**row) for row in words["skipped"])
                blocks.append((Block(words["stop"], (patches, pooled), skipped), size))
    return facts, blocks


def log_line(words: StoreFacts | Block) -> bytes:
    """As `read_log` reads it."""
    return (json.dumps(dataclasses.asdict(words)) + "\n").encode()


class RowFile:
    """An ``.npy`` file of which rows are written in order; ``checksum`` is CRC-32 of those since it was last reset."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        self.checksum = 0
        self.file, self.header = file, header.getvalue()
        self._row_bytes = dtype.itemsize * int(np.prod(shape[1:]))

    def write(self, rows: Sequence[int], values: Shaped[np.ndarray, "B *rest"]) -> None:
        for row, row_values in zip(rows, values, strict=True):
            content = row_values.tobytes()
            assert len(content) == self._row_bytes
            self.file.seek(self._start(row))
            self.file.write(content)
            self.checksum = zlib.crc32(content, self.checksum)

    def checksum_of(self, rows: Sequence[int]) -> int:
        """Of rows in the file, in this order."""
        checksum = 0
        for row in rows:
            self.file.seek(self._start(row))
            checksum = zlib.crc32(self.file.read(self._row_bytes), checksum)
        return checksum

    def cut(self, row: int) -> None:
        """Forget what follows, so that rows which are never written read as zeros."""
        self.file.flush()
        self.file.truncate(self._start(row))

    def _start(self, row: int) -> int:
        return len(self.header) + row * self._row_bytes


class StoreWriter:
    """Writes a store into a folder that nobody else writes to, block by block in the order of the images.

    ``plan`` is what store.json will say, with sizes of 0 that the first features tell. A block whose `end_block` has
    returned is not lost when the process ends, however it does: the log has a line for each, written after its rows
    and with their checksums, since a machine that loses power may keep the log and lose rows. Rows never written read
    as zeros.

    Plain writes, no memory map: on a full disk those fail with an error, where a map kills the process.
    """

    def __init__(self, folder: Path, plan: StoreFacts, *, on_size: Callable[[str], None]) -> None:
        self.num_done = 0
        self.skipped: list[SkippedRow] = []
        self._folder, self._facts, self._on_size = folder, plan, on_size
        self._files = contextlib.ExitStack()
        self._arrays: tuple[RowFile, ...] = ()
        self._log: IO[bytes] | None = None
        self._unlogged: list[SkippedRow] = []

    def resume(self, *, progress: bool) -> None:
        """Take up what an interrupted build left in the folder, as far as it is whole, and remove the rest.

        Raises:
            InputError: if the disk is too small for what is missing, or refuses.
        """
        log = self._folder / BUILD_LOG
        with writing(self._folder):
            facts, blocks = read_log(log)
            num_bytes = 0
            if facts and blocks and self._open_existing(facts):
                num_bytes = self._check_rows(blocks, progress=progress)
            if not self.num_done:  # Start from nothing.
                self._files.close()
                self._arrays = ()
                for path in self._folder.iterdir():
                    path.unlink()
                return
            for array in self._arrays:
                array.cut(self.num_done)
            os.truncate(log, num_bytes)
            self._log = self._files.enter_context(log.open("ab"))
        self._check_disk()

    def write(
        self, rows: Sequence[int], patches: Shaped[np.ndarray, "B M D"], pooled: Shaped[np.ndarray, "B D"]
    ) -> None:
        """Features of the images ``rows`` of this block, in their order and in the store's number format.

        Raises:
            InputError: if they are of another size than those before, or the disk is too small or refuses.
        """
        if not self._arrays:
            self._facts = dataclasses.replace(self._facts, num_patches=patches.shape[1], width=patches.shape[2])
            self._check_disk()
            with writing(self._folder):
                self._open_arrays("w+b")
                for array in self._arrays:
                    array.file.write(array.header)
        expected = (self._facts.num_patches, self._facts.width)
        if patches.shape[1:] != expected:
            raise InputError(
                f"encode_image gave patches of shape {expected} first and {patches.shape[1:]} later; the number of "
                "patches and their width must be the same for all images"
            )
        assert not rows or self.num_done <= min(rows)
        with writing(self._folder):
            for array, values in zip(self._arrays, (patches, pooled), strict=True):
                array.write(rows, values)

    def end_block(self, stop: int, skipped: Sequence[SkippedRow]) -> None:
        """The images before row ``stop`` are written, or have no features and are listed here or were before.

        Raises:
            InputError: if the disk refuses.
        """
        self.num_done = stop
        self.skipped += skipped
        self._unlogged += skipped
        if not self._arrays:
            return  # The first block with features brings these along.
        patches, pooled = self._arrays
        with writing(self._folder):
            for array in self._arrays:
                array.file.flush()  # To the system, which keeps it when the process is killed.
            if self._log is None:
                self._log = self._files.enter_context((self._folder / BUILD_LOG).open("wb"))
                self._log.write(log_line(self._facts))
            self._log.write(log_line(Block(stop, (patches.checksum, pooled.checksum), tuple(self._unlogged))))
            self._log.flush()
        patches.checksum = pooled.checksum = 0
        self._unlogged.clear()

    def finish(self) -> None:
        """Bring everything to the disk, store.json last.

        Raises:
            InputError: if the disk refuses.
        """
        assert self._arrays
        assert self.num_done == self._facts.rows
        facts = dataclasses.replace(self._facts, skipped=tuple(self.skipped))
        with writing(self._folder):
            for array in self._arrays:
                array.cut(facts.rows)
                os.fsync(array.file.fileno())
            with (self._folder / "store.json").open("w", encoding="utf-8") as description:
                json.dump(dataclasses.asdict(facts), description, indent=2)
                description.flush()
                os.fsync(description.fileno())
        self.close()

    def close(self) -> None:
        """Close the files, finished or not."""
        with contextlib.suppress(OSError):  # On a full disk the last, unfinished block.
            self._files.close()

    def _open_existing(self, facts: StoreFacts) -> bool:
        """Open the arrays of a build, if it is of the same store; false if it is not, or they are not its arrays."""
        plan = dataclasses.replace(self._facts, num_patches=facts.num_patches, width=facts.width)
        if dataclasses.replace(facts, made_for=plan.made_for) != plan:
            return False
        self._facts = facts
        try:
            self._open_arrays("r+b")
        except FileNotFoundError:
            return False
        return all(array.file.read(len(array.header)) == array.header for array in self._arrays)

    def _open_arrays(self, mode: str) -> None:
        facts = self._facts
        shapes = {"patches.npy": (facts.rows, facts.num_patches, facts.width), "pooled.npy": (facts.rows, facts.width)}
        self._arrays = tuple(
            RowFile(self._files.enter_context((self._folder / name).open(mode)), shape, NUMBER_FORMATS[facts.dtype])
            for name, shape in shapes.items()
        )

    def _check_rows(self, blocks: Sequence[tuple[Block, int]], *, progress: bool) -> int:
        """Count blocks as done up to the first whose rows are not what was written; the size of the log until there."""
        size = 0
        with progress_bar("checking features that are there", blocks[-1][0].stop, enabled=progress) as advance:
            for block, num_bytes in blocks:
                skipped = {entry.row for entry in block.skipped}
                rows = [row for row in range(self.num_done, block.stop) if row not in skipped]
                if block.crc32 != tuple(array.checksum_of(rows) for array in self._arrays):
                    break
                advance(block.stop - self.num_done)
                self.num_done, size = block.stop, num_bytes
                self.skipped += block.skipped
        return size

    def _check_disk(self) -> None:
        facts, num_done = self._facts, self.num_done if self._arrays else 0
        needed_bytes = (facts.rows - num_done) * facts.row_bytes
        with writing(self._folder):
            free_bytes = shutil.disk_usage(self._folder).free
        if needed_bytes > free_bytes:
            smaller = ", or store float16" if facts.dtype == "float32" else ""
            raise InputError(
                f"{self._folder.parent}: the features take {size_text(needed_bytes)} and {size_text(free_bytes)} are "
                f"free; make room, or put the cache on another disk{smaller}"
            )
        there = f"{num_done:,} of {facts.rows:,} are there, the others" if num_done else f"{facts.rows:,} images"
        self._on_size(f"{there} take {size_text(needed_bytes)} in {facts.dtype}; {size_text(free_bytes)} are free")
