"""A store of features as large as COCO's, read as training and evaluation read it, and through a plain memory map.

Writes rows of random features through the store's writer, as many as COCO2014 has training images unless told
otherwise, checks them as those of an interrupted build are, and reads them from a cold disk cache: in shuffled batches
of 32 and in order by 64. Every way runs in a process of its own, with its private memory limited to --memory-gb. The
two ways take turns, and take turns in being first. Prints a table, writes JSON, and deletes the store.

    python benchmarks/speed/feature_store.py [--rows 8000] [--folder DIR] [--out FILE]

That limit leaves the disk cache out. As on a machine that has no more memory at all, where systemd allows it:

    systemd-run --user --scope -p MemoryMax=2G python benchmarks/speed/feature_store.py
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from torch import Tensor

from fedmpt.data.features.files import StoreFacts, read_store
from fedmpt.data.features.store import FeatureSet
from fedmpt.data.features.writer import StoreWriter
from fedmpt.files import publish
from fedmpt.types import Split

ROWS, NUM_PATCHES, WIDTH, NUM_CLASSES = 82_783, 196, 512, 80
KEY = "0" * 64
PATTERNS = {"shuffled by 32": 32, "in order by 64": 64}
WAYS = ("store", "memory map")
SPARE_BYTES = 10**9


@dataclass(frozen=True)
class Measurement:
    """Images and bytes a second; peak memory of the process in MiB, private and with shared pages of files."""

    name: str
    images_per_s: float
    mb_per_s: float
    private_mib: float
    total_mib: float


def write(folder: Path, rows: int) -> list[Measurement]:
    """Write all rows, and check them as a build does that goes on."""
    plan = StoreFacts(KEY, "random", rows, 0, 0, "float16", ())
    part = folder / "part"
    part.mkdir()
    watch = Watch("writing", rows)
    writer = StoreWriter(part, plan, say=lambda text: print(text, file=sys.stderr))
    writer.resume(progress=False)
    noise = np.random.default_rng(0).standard_normal((32, NUM_PATCHES, WIDTH)).astype(np.float16)
    for start in range(0, rows, 32):
        some = range(start, min(start + 32, rows))
        patches = noise[: len(some)]
        patches[:, 0, 0], patches[:, 0, 1] = np.divmod(np.array(some), 1024)
        writer.write(some.stop, [patches, patches[:, 0]])
        watch.look()
    for name in ("patches.npy", "pooled.npy"):  # Part of writing, and the disk cache cannot be emptied before.
        _with_file(part / name, os.fsync)
    written = watch.stop()
    writer.close()
    forget(part)
    watch = Watch("checking", rows)
    writer = StoreWriter(part, plan, say=lambda text: None)
    writer.resume(progress=False)
    checked = watch.stop()
    assert writer.num_done == rows
    writer.finish()
    publish(part, folder / KEY)
    return [written, checked]


def read(folder: Path, rows: int, way: str, pattern: str) -> Measurement:
    """All rows once, as batches in fp32; the features of each image begin with its number."""
    store = read_store(folder / KEY)
    assert store is not None
    forget(folder / KEY)
    labels = torch.zeros(rows, NUM_CLASSES, dtype=torch.int8)
    split = Split("train", tuple(Path(f"{number:012d}.jpg") for number in range(rows)), labels)
    features = FeatureSet(store, split, torch.arange(rows), labels)
    plain = np.load(folder / KEY / "patches.npy", mmap_mode="r"), np.load(folder / KEY / "pooled.npy", mmap_mode="r")

    def through_store(some: Tensor) -> tuple[Tensor, Tensor]:
        batch = features.batch(some)
        return batch.patches, batch.pooled

    def through_map(some: Tensor) -> tuple[Tensor, Tensor]:
        patches, pooled = (torch.from_numpy(np.asarray(array[some.numpy()])).float() for array in plain)
        return patches, pooled

    get = through_store if way == "store" else through_map
    watch = Watch(f"{way}, {pattern}", rows)
    for some in _batches(rows, pattern):
        patches, pooled = get(some)
        found = patches[:, 0, :2]
        assert torch.equal(found[:, 0] * 1024 + found[:, 1], some.float())
        assert torch.equal(pooled, patches[:, 0])
        watch.look()
    return watch.stop()


def _batches(rows: int, pattern: str) -> Iterator[Tensor]:
    order = torch.arange(rows)
    if pattern.startswith("shuffled"):
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    yield from order.split(PATTERNS[pattern])


class Watch:
    """Time and memory from its making to `stop`; `look` from time to time."""

    def __init__(self, name: str, num_images: int) -> None:
        self._name, self._num_images = name, num_images
        self._private = self._looks = 0
        Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
        self._began = time.perf_counter()

    def look(self) -> None:
        self._looks += 1
        if self._looks % 50 == 1:
            self._private = max(self._private, _memory("RssAnon"))

    def stop(self) -> Measurement:
        images_per_s = self._num_images / (time.perf_counter() - self._began)
        self._looks = 0
        self.look()
        mb_per_s = images_per_s * (NUM_PATCHES + 1) * WIDTH * 2 / 1e6
        return Measurement(self._name, images_per_s, mb_per_s, self._private / 2**10, _memory("VmHWM") / 2**10)


def _memory(word: str) -> int:
    """A line of Linux's account of this process, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{word}:"):
            return int(line.split()[1])
    raise SystemExit("memory is measured on Linux only")


def forget(folder: Path) -> None:
    """Take the files of a folder out of the system's disk cache."""
    for path in folder.glob("*.npy"):
        _with_file(path, lambda handle: os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED))


def _with_file(path: Path, use: Callable[[int], object]) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        use(handle)
    finally:
        os.close(handle)


def limit_memory(num_bytes: int) -> None:
    """What is over this is refused: private memory, not shared pages of files. One thread, as clients train."""
    resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, num_bytes))
    torch.set_num_threads(1)


def in_own_process(memory_bytes: int, function: Callable[..., Any], *words: object) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, limit_memory, (memory_bytes,)) as pool:
        return pool.submit(function, *words).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="images; COCO2014 has 82,783 to train on")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where there is room")
    parser.add_argument("--memory-gb", type=float, default=2.0, help="limit of private memory")
    parser.add_argument("--runs", type=int, default=4, help="times that everything is read each way")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    options = parser.parse_args()
    needed_bytes = options.rows * (NUM_PATCHES + 1) * WIDTH * 2 + SPARE_BYTES
    free_bytes = shutil.disk_usage(options.folder).free
    if needed_bytes > free_bytes:
        parser.error(f"{decimal(needed_bytes)} are needed and {decimal(free_bytes)} are free; give fewer --rows")
    memory_bytes = int(options.memory_gb * 1e9)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        written = in_own_process(memory_bytes, write, folder, options.rows)
        # Who is first finds less in the caches beyond this system's own.
        runs = [
            in_own_process(memory_bytes, read, folder, options.rows, way, pattern)
            for turn, pattern in product(range(options.runs), PATTERNS)
            for way in WAYS[:: -1 if turn % 2 else 1]
        ]
    report(written, runs, options)


def summary(runs: list[Measurement]) -> Measurement:
    """The median of the speed and the most of the memory."""
    images_per_s, mb_per_s = (statistics.median(getattr(run, w) for run in runs) for w in ("images_per_s", "mb_per_s"))
    private, total = (max(getattr(run, word) for run in runs) for word in ("private_mib", "total_mib"))
    return Measurement(runs[0].name, images_per_s, mb_per_s, private, total)


def report(written: list[Measurement], runs: list[Measurement], options: argparse.Namespace) -> None:
    names = [f"{way}, {pattern}" for pattern, way in product(PATTERNS, WAYS)]
    medians = {name: summary([run for run in runs if run.name == name]) for name in names}
    table = Table(title=f"{options.rows:,} images of {NUM_PATCHES} x {WIDTH} in float16, one thread, cold disk cache")
    table.add_column("")
    for column in ("images/s", "MB/s", "private MiB", "total MiB"):
        table.add_column(column, justify="right")
    for row in (*written, *medians.values()):
        cells = (row.images_per_s, row.mb_per_s, row.private_mib, row.total_mib)
        table.add_row(row.name, *(f"{cell:,.0f}" for cell in cells))
    console = Console()
    console.print(table)
    ratios = {}
    for pattern in PATTERNS:
        store, plain = (medians[f"{way}, {pattern}"] for way in WAYS)
        ratios[pattern] = {
            "speed": store.images_per_s / plain.images_per_s,
            "total_memory": store.total_mib / plain.total_mib,
        }
        words = " and ".join(f"{value:.2f} times the {name}" for name, value in ratios[pattern].items())
        console.print(f"{pattern}: the store has {words} of the memory map".replace("_", " "))
    if options.out:
        facts = {
            "rows": options.rows,
            "memory_limit_gb": options.memory_gb,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "ratios": ratios,
            "written": list(map(asdict, written)),
            "runs": list(map(asdict, runs)),
        }
        options.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
