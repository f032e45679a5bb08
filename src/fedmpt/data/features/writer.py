"""Writing a feature store, so that a build that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped
from rich.filesize import decimal

from fedmpt.data.features.files import BUILD_LOG, FORMAT, NUMBER_FORMATS, Skipped, StoreFacts, writing
from fedmpt.data.progress import progress_bar
from fedmpt.types import InputError

Block = dict[str, Any]
"""A line of the log: the images before row ``stop`` are done, from where the line before it ended.

``crc32`` is of the bytes of their patches and of their pooled features, ``skipped`` are those without any.
"""


def read_log(folder: Path) -> tuple[StoreFacts | None, list[Block]]:
    """What the unfinished store in ``folder`` is of, and its blocks, up to the first line that is not whole."""
    lines = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in (folder / BUILD_LOG).read_bytes().split(b"\n")[:-1]:
            lines.append(json.loads(line))
    with contextlib.suppress(TypeError):  # Of another version.
        if lines:
            return StoreFacts(**lines[0]), lines[1:]
    return None, []


class RowFile:
    """An ``.npy`` file of which rows are written in order. Those never written read as zeros."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
        self.file, self._first, self._row_bytes = file, file.tell(), dtype.itemsize * math.prod(shape[1:])

    def write(self, rows: Sequence[int], values: Shaped[np.ndarray, "B *rest"]) -> int:
        """Hand rows to the system, which keeps them when the process is killed; CRC-32 of their bytes."""
        for row, value in zip(rows, values, strict=True):
            self.file.seek(self._first + row * self._row_bytes)
            self.file.write(value.tobytes())
        self.file.flush()
        return zlib.crc32(values.tobytes())

    def checksum(self, rows: Sequence[int]) -> int:
        """CRC-32 of rows in the file, in this order."""
        checksum = 0
        for row in rows:
            self.file.seek(self._first + row * self._row_bytes)
            checksum = zlib.crc32(self.file.read(self._row_bytes), checksum)
        return checksum

    def end(self, row: int) -> None:
        """Let the file end before ``row``: what follows is forgotten, what is missing reads as zeros."""
        self.file.flush()
        self.file.truncate(self._first + row * self._row_bytes)


class StoreWriter:
    """Writes a store into a folder that nobody else writes to, block by block in the order of the images.

    ``plan`` is what store.json will say, with sizes of 0 that the first features tell. A block that `write` has
    returned from is not lost when the process ends, however it does: the log has a line for each, written after its
    rows and with their checksums, since a machine that loses power may keep the log and lose rows.

    Plain writes, no memory map: on a full disk those fail with an error, where a map kills the process. All methods
    raise InputError if the disk is too small, or refuses.
    """

    def __init__(self, folder: Path, plan: StoreFacts, *, say: Callable[[str], None]) -> None:
        self.num_done = 0
        self.skipped: list[Skipped] = []
        self._folder, self._log, self._facts, self._say = folder, folder / BUILD_LOG, plan, say
        self._files = contextlib.ExitStack()
        self._arrays: list[RowFile] = []

    def resume(self, *, progress: bool) -> None:
        """Take up what an interrupted build left in the folder, as far as it is whole, and remove the rest."""
        with writing(self._folder):
            facts, blocks = read_log(self._folder)
            num_whole = 0
            if facts and blocks and (facts.key, facts.format) == (self._facts.key, FORMAT):
                self._open(facts.num_patches, facts.width)
                with progress_bar("checking features that are there", blocks[-1]["stop"], enabled=progress) as advance:
                    for block in blocks:
                        rows = self._rows(block["stop"], block["skipped"])
                        if block["crc32"] != [array.checksum(rows) for array in self._arrays]:
                            break
                        advance(block["stop"] - self.num_done)
                        self.num_done = block["stop"]
                        self.skipped += block["skipped"]
                        num_whole += 1
            if num_whole == 0:  # Start from nothing.
                self.close()
                self._arrays = []
                for path in self._folder.iterdir():
                    path.unlink()
                return
            for array in self._arrays:
                array.end(self.num_done)
            lines = self._log.read_bytes().split(b"\n")[: 1 + num_whole]
            os.truncate(self._log, sum(len(line) + 1 for line in lines))
            self._check_disk()

    def write(
        self, stop: int, features: Sequence[Shaped[np.ndarray, "B ..."]] = (), skipped: Sequence[Skipped] = ()
    ) -> None:
        """A block: the images from the block before to row ``stop``, some of them ``skipped``.

        ``features`` are patches [B, M, D] and pooled features [B, D] of the others, in their order and in the store's
        number format; none if all are skipped.
        """
        rows = self._rows(stop, skipped)
        self.num_done = stop
        self.skipped += skipped
        with writing(self._folder):
            if features and not self._arrays:
                self._open(*features[0].shape[1:])
                self._check_disk()
            if not self._arrays:
                return  # The first block with features brings these along.
            expected = (self._facts.num_patches, self._facts.width)
            if features and features[0].shape[1:] != expected:
                raise InputError(
                    f"encode_image gave patches of shape {expected} first and {features[0].shape[1:]} later; the "
                    "number of patches and their width must be the same for all images"
                )
            checksums = [array.write(rows, values) for array, values in zip(self._arrays, features, strict=False)]
            is_first = not self._log.exists()
            noted = self.skipped if is_first else skipped
            block = {"stop": stop, "crc32": checksums or [0, 0], "skipped": noted}
            lines = [asdict(self._facts), block] if is_first else [block]
            with self._log.open("ab") as log:
                log.write("".join(json.dumps(line) + "\n" for line in lines).encode())

    def finish(self) -> None:
        """Bring everything to the disk, store.json last."""
        assert self.num_done == self._facts.rows
        with writing(self._folder):
            for array in self._arrays:
                array.end(self._facts.rows)
                os.fsync(array.file.fileno())
            with (self._folder / "store.json").open("w", encoding="utf-8") as description:
                json.dump(asdict(replace(self._facts, skipped=self.skipped)), description, indent=2)
                description.flush()
                os.fsync(description.fileno())
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # On a full disk the last, unfinished block.
            self._files.close()

    def _open(self, num_patches: int, width: int) -> None:
        self._facts = replace(self._facts, num_patches=num_patches, width=width)
        for name, shape in self._facts.shapes.items():
            (self._folder / name).touch()
            file = self._files.enter_context((self._folder / name).open("r+b"))
            self._arrays.append(RowFile(file, shape, NUMBER_FORMATS[self._facts.dtype]))

    def _rows(self, stop: int, skipped: Sequence[Skipped]) -> list[int]:
        """Rows of the images of the next block that have features."""
        left_out = {entry["row"] for entry in skipped}
        return [row for row in range(self.num_done, stop) if row not in left_out]

    def _check_disk(self) -> None:
        facts, num_done = self._facts, self.num_done if self._log.exists() else 0
        needed_bytes, free_bytes = (facts.rows - num_done) * facts.row_bytes, shutil.disk_usage(self._folder).free
        needed, free = decimal(needed_bytes), decimal(free_bytes)
        if needed_bytes > free_bytes:
            raise InputError(
                f"{self._folder.parent}: the features take {needed} and {free} are free; make room, or put the cache "
                f"on another disk{', or store float16' if facts.dtype == 'float32' else ''}"
            )
        there = f"{num_done:,} of {facts.rows:,} are there, the others" if num_done else f"{facts.rows:,} images"
        self._say(f"{there} take {needed} in {facts.dtype}; {free} are free")
