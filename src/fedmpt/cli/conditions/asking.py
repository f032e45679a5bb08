"""Asking a language model as commands do: from their options to an asker, shown in the terminal, and interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedmpt.cli.cache import cache_folder
from fedmpt.conditions.document import TEXT, is_text, shortened
from fedmpt.conditions.pipeline.planning import counted
from fedmpt.llm.asking import Asker, Usage, Watcher
from fedmpt.llm.model import LanguageModel, Request
from fedmpt.llm.options import LLMOptions
from fedmpt.runs.records import check_writable
from fedmpt.types import InputError


def stderr() -> Console:
    """What a server or a file says is shown as it is: never as markup of ours."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def check_out(out: Path, name: str | None, inputs: Sequence[Path | None]) -> None:
    """Raises InputError if the result cannot go to ``out``, which may be none of the inputs, or not by this name."""
    check_writable(out, kind="file")
    if name is not None and not is_text(name):
        raise InputError(f"--name is {shortened(name)}; expected {TEXT}")
    if out.resolve() in [path.resolve() for path in inputs if path is not None]:
        raise InputError(f"--out {out} is a file that is read; give another one")


@contextmanager
def asking(
    model: LanguageModel, options: LLMOptions, *, total: int, max_requests: int, cache: Path | None
) -> Iterator[Asker]:
    """Somebody to ask, with a bar for ``total`` answers that are planned; what it took is said in the end.

    Answers are kept in the folder ``llm`` of the cache.
    """
    console, folder = stderr(), cache_folder(cache) / "llm"
    with TerminalWatcher(console, total=total) as watcher:
        asker = Asker(model, options, cache=folder, max_requests=max_requests, watcher=watcher)
        try:
            yield asker
        finally:
            watcher.stop()
            print_usage(asker.usage, console)


@contextmanager
def saying_how_to_go_on(command: Sequence[str], *, is_fresh: bool) -> Iterator[None]:
    """On Ctrl-C, the words of the command stand in what is raised on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = "--fresh asks everything anew, so start again with" if is_fresh else "answers are kept, go on with"
        raise KeyboardInterrupt(f"; {kept}: {shlex.join(command)}") from stop


class TerminalWatcher(Progress, Watcher):
    """A bar of answers that came, out of the ``total`` that are planned. Repairs come on top of the plan.

    Where nobody watches, only what went wrong is printed.
    """

    def __init__(self, console: Console, *, total: int) -> None:
        label, gone, left = (TextColumn(text, markup=False) for text in ("{task.description}", "gone,", "left"))
        columns = (label, BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), gone, TimeRemainingColumn(), left)
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self.add_task("asking", total=total)

    def answered(self, request: Request, *, cached: bool) -> None:
        (bar,) = self.tasks
        completed = bar.completed + 1
        total = max((bar.total or 0) + (", repair " in request.label), completed)
        label = f"{request.label or 'asking'}{' (kept)' if cached else ''}"
        self.update(self._bar, completed=completed, total=total, description=label)

    def unusable(self, request: Request, reason: str) -> None:
        self.console.print(f"{request.label}: {reason}")


def print_usage(usage: Usage, console: Console) -> None:
    """What asking took; nothing where nothing came."""
    if usage.asked or usage.cached:
        told = f" ({usage.prompt_tokens:,} tokens read, {usage.answer_tokens:,} written)" if usage.answer_tokens else ""
        kept = f"; {usage.cached:,} kept from before" if usage.cached else ""
        console.print(f"asked for {counted(usage.asked, 'answer')}{told}{kept}")
