"""Work that takes long: threads a little ahead of who needs it, and how far it is."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int], None]
"""Takes the number of items, or bytes, that were just done."""

LINE_EVERY_S = 30.0

# Decoding is what takes time beside the tower; beyond this many threads Python itself is the limit.
NUM_WORKERS = min(8, os.cpu_count() or 1)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int, num_workers: int = NUM_WORKERS
) -> Generator[Result, None, None]:
    """``function`` of each item, in order, computed by ``num_workers`` threads at most ``ahead`` items early.

    Unlike ``Executor.map`` it never holds more than ``ahead`` results, so memory does not grow with the data set.
    Close the iterator (``contextlib.closing``) when leaving early.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, thread_name_prefix="fedmpt-data") as pool:
        try:
            for item in items:
                if len(pending) >= ahead:
                    yield pending.popleft().result()
                pending.append(pool.submit(function, item))
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def progress_bar(
    what: str, total: int, *, enabled: bool = True, is_long: bool = False, num_done: int = 0, in_bytes: bool = False
) -> Iterator[Advance]:
    """A function to call with the number just done: a bar with the time left if stderr is a terminal.

    Elsewhere there is a line every `LINE_EVERY_S`, and work that ``is_long`` is announced. ``num_done`` of the
    ``total`` were done before; they say nothing about the time left. A negative number takes work back.
    """
    if not (enabled and sys.stderr.isatty()):
        if enabled and is_long:
            print(f"{what} ({total}{f', {num_done} are there' if num_done else ''})", file=sys.stderr)
        yield _lines(what, total, num_done, in_bytes=in_bytes) if enabled else lambda num: None
        return
    from rich import progress as rich  # Imported here: only a person at a terminal needs it.
    from rich.console import Console

    amounts = (rich.DownloadColumn(), rich.TransferSpeedColumn()) if in_bytes else (rich.MofNCompleteColumn(),)
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), *amounts)
    console = Console(stderr=True)
    with rich.Progress(*columns, rich.TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=num_done)
        yield lambda num: bar.update(task, advance=num)


def _lines(what: str, total: int, num_done: int, *, in_bytes: bool) -> Advance:
    from rich.filesize import decimal  # Imported here: reading lists needs none of it.

    began = said = time.monotonic()
    now = num_done
    show = decimal if in_bytes else "{:,}".format

    def advance(num: int) -> None:
        nonlocal now, said
        now += num
        moment = time.monotonic()
        if moment - said < LINE_EVERY_S or now >= total:
            return
        said = moment
        rate = (now - num_done) / (moment - began)
        left = f"{timedelta(seconds=round((total - now) / rate))} left" if rate > 0 else "nothing new so far"
        print(f"{what}: {show(now)} of {show(total)}, {left}", file=sys.stderr)

    return advance
