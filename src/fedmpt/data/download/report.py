"""What a download says while it runs: a bar in a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Show = Callable[[int], None]
"""Takes the number of bytes that are done, those of earlier tries included."""


def amount(num_bytes: float) -> str:
    """Bytes as people read them, in powers of 1000, as disks and servers count: ``460.0 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


class Report:
    """Lines and bars on a console. Where that is no terminal, a bar is a line every ``line_every_s`` seconds."""

    def __init__(
        self, console: Console, *, line_every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._line_every_s = line_every_s
        self._clock = clock

    def say(self, line: str) -> None:
        # Never wrapped: a path cut in two cannot be copied.
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, what: str, *, total: int, done: int = 0) -> Iterator[Show]:
        """A function to call with the bytes done so far of ``total``; ``done`` of them are there already."""
        if not self._console.is_terminal:
            yield self._lines(what, total, done)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done)
            last = done

            def show(now: int) -> None:
                nonlocal last
                if now < last:  # Begun anew: a rate over the step back would be negative.
                    progress.reset(task, total=total, completed=now)
                progress.update(task, completed=now)
                last = now

            yield show

    def _lines(self, what: str, total: int, done: int) -> Show:
        began = last_line = self._clock()
        first = done

        def show(now: int) -> None:
            nonlocal began, last_line, first
            if now < first:
                began, first = self._clock(), now
            if self._clock() - last_line < self._line_every_s or now >= total:
                return
            last_line = self._clock()
            rate = (now - first) / (last_line - began) if last_line > began else 0.0
            left = timedelta(seconds=round((total - now) / rate)) if rate else "unknown time"
            self.say(f"{what}: {amount(now)} of {amount(total)}, {amount(rate)}/s, {left} left")

        return show
