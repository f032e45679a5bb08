"""Work done by threads a little ahead of who needs it, and the bar that shows how far it is."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int, ahead: int
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
            for future in pending:
                future.cancel()


@contextlib.contextmanager
def progress_bar(
    description: str, total: int, *, enabled: bool, is_long: bool = False, num_done: int = 0
) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of items just done: a bar with the time left if stderr is a terminal.

    Elsewhere work that ``is_long`` is announced by a line, so that nobody takes it for hanging. ``num_done`` of the
    ``total`` were done before; they say nothing about the time left.
    """
    if not (enabled and sys.stderr.isatty()):
        if enabled and is_long:
            print(f"{description} ({total}{f', {num_done} are there' if num_done else ''})", file=sys.stderr)
        yield lambda num_done: None
        return
    # Imported here: only a person at a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total, completed=num_done)
        yield lambda num_done: bar.advance(task, num_done)
