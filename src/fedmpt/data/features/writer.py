"""Writing a feature store, so that a build that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Shaped

from fedmpt.data.features.ahead import progress_bar
from fedmpt.data.features.array_files import RowFile
from fedmpt.data.features.files import BUILD_LOG, NUMBER_FORMATS, SkippedRow, StoreFacts, size_text, writing
from fedmpt.data.features.log import Block, log_line, read_log
from fedmpt.types import InputError


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
            lines = list(read_log(log)) if log.is_file() else []
            if len(lines) < 2 or not self._open_existing(lines[0][0]):
                self._clear()
                return
            num_bytes = self._check_rows(lines, progress=progress)
            if not self.num_done:
                self._clear()
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
            self._create(*patches.shape[1:])
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
        first, second = (array.checksum for array in self._arrays)
        block = Block(stop, (first, second), tuple(self._unlogged))
        with writing(self._folder):
            for array in self._arrays:
                array.flush()
            if self._log is None:
                self._log = self._files.enter_context((self._folder / BUILD_LOG).open("wb"))
                self._log.write(log_line(self._facts))
            self._log.write(log_line(block))
            self._log.flush()
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
                array.finish(facts.rows)
            with (self._folder / "store.json").open("w", encoding="utf-8") as description:
                json.dump(dataclasses.asdict(facts), description, indent=2)
                description.flush()
                os.fsync(description.fileno())
        self.close()

    def close(self) -> None:
        """Close the files, finished or not."""
        with contextlib.suppress(OSError):  # On a full disk the last, unfinished block.
            self._files.close()

    def _create(self, num_patches: int, width: int) -> None:
        self._facts = dataclasses.replace(self._facts, num_patches=num_patches, width=width)
        self._check_disk()
        with writing(self._folder):
            self._open_arrays("w+b")
            for array in self._arrays:
                array.write_header()

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
        return all(array.has_header() for array in self._arrays)

    def _open_arrays(self, mode: str) -> None:
        facts = self._facts
        dtype = NUMBER_FORMATS[facts.dtype]
        shapes = {"patches.npy": (facts.rows, facts.num_patches, facts.width), "pooled.npy": (facts.rows, facts.width)}
        self._arrays = tuple(
            RowFile(self._files.enter_context((self._folder / name).open(mode)), shape, dtype)
            for name, shape in shapes.items()
        )

    def _check_rows(self, lines: Sequence[tuple[StoreFacts, Block | None, int]], *, progress: bool) -> int:
        """Count blocks as done up to the first whose rows are not what was written; the size of the log until there."""
        size = 0
        total = max(block.stop for _, block, _ in lines if block)
        with progress_bar("checking features that are there", total, enabled=progress) as advance:
            for _, block, num_bytes in lines:
                if block is None:
                    continue
                skipped = {entry.row for entry in block.skipped}
                rows = [row for row in range(self.num_done, block.stop) if row not in skipped]
                if block.crc32 != tuple(array.checksum_of(rows) for array in self._arrays):
                    break
                advance(block.stop - self.num_done)
                self.num_done, size = block.stop, num_bytes
                self.skipped += block.skipped
        return size

    def _clear(self) -> None:
        """Start from nothing."""
        self._files.close()
        self._arrays = ()
        for path in self._folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

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
