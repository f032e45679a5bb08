"""The log of a feature store that is being built: what is done so far, a line for each block of images."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmpt.data.features.files import SkippedRow, StoreFacts, facts_from_json


@dataclass(frozen=True)
class Block:
    """A line of the log: the images before row ``stop`` are done, from where the line before it ended.

    ``crc32`` is of the bytes of their patches and of their pooled features, ``skipped`` are those without any.
    """

    stop: int
    crc32: tuple[int, int]
    skipped: tuple[SkippedRow, ...]


def read_log(path: Path) -> Iterator[tuple[StoreFacts, Block | None, int]]:
    """The log of an unfinished store, line by line: what is built, a block (None on the first line), bytes so far.

    Ends before the first line that is not whole. Whether the rows are as the log says is another question.
    """
    facts, stop, num_bytes = None, 0, 0
    with path.open("rb") as file:
        for line in file:
            block = None
            try:
                words = json.loads(line)
                if facts is None:
                    facts = facts_from_json(words)
                else:
                    block = _block_from_json(words)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                return
            if not line.endswith(b"\n") or (block and not stop < block.stop <= facts.rows):
                return
            stop = block.stop if block else 0
            num_bytes += len(line)
            yield facts, block, num_bytes


def _block_from_json(words: dict[str, Any]) -> Block:
    stop, (patches, pooled) = words["stop"], words["crc32"]
    if not all(type(number) is int for number in (stop, patches, pooled)):
        raise ValueError("no numbers")
    return Block(stop, (patches, pooled), tuple(SkippedRow(**row) for row in words["skipped"]))


def log_line(words: StoreFacts | Block) -> bytes:
    """As `read_log` reads it."""
    return (json.dumps(dataclasses.asdict(words)) + "\n").encode()
