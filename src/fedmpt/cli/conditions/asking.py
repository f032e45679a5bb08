"""Asking a language model as commands do: from their options to an asker, shown in the terminal, and interrupted."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedmpt.cli.cache import cache_folder
from fedmpt.conditions.document import check_text
from fedmpt.llm.asking import Asker
from fedmpt.llm.model import LanguageModel, Request
from fedmpt.llm.options import LLMOptions
from fedmpt.runs.records import check_writable
from fedmpt.types import InputError


def stderr() -> Console:
    """What a server or a file says is shown as it is: never as markup of ours."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def checked_name(out: Path, name: str | None, inputs: Sequence[Path | None]) -> str:
    """The name of the result; an InputError if that cannot be, or the result cannot go to ``out``."""
    check_writable(out, kind="file")
    name = out.stem if name is None else name
    check_text("--name", name)
    if out.resolve() in [path.resolve() for path in inputs if path is not None]:
        raise InputError(f"--out {out} is a file that is read; give another one")
    return name


@contextmanager
def asking(
    model: LanguageModel, options: LLMOptions, *, total: int, max_requests: int, cache: Path | None
) -> Iterator[Asker]:
    """Somebody to ask, with a bar for ``total`` answers that are planned; what it took is said in the end.

    Answers are kept in the folder ``llm`` of the cache.
    """
    console, columns = stderr(), (TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("asking", total=total)

        def tell(request: Request, is_kept: bool, problem: str) -> None:
            if problem:
                console.print(f"{request.label}: {problem}")
                return
            planned = (bar.tasks[0].total or 0) + (", repair " in request.label)  # Repairs come on top of the plan.
            bar.update(task, advance=1, total=planned, description=request.label + (" (kept)" if is_kept else ""))

        class Retries(logging.Handler):
            """The openai library retries silently, for minutes where a server is busy."""

            def emit(self, record: logging.LogRecord) -> None:
                if (said := record.getMessage()).startswith("Retrying request"):
                    console.print(f"{options.endpoint or 'the endpoint'} is busy or cannot be reached: {said}")

        log, retries = logging.getLogger("openai"), Retries()
        log.addHandler(retries)
        log.setLevel(logging.INFO)
        asker = Asker(model, options, cache=cache_folder(cache) / "llm", max_requests=max_requests, tell=tell)
        try:
            yield asker
        finally:
            log.removeHandler(retries)
            bar.stop()
            if (usage := asker.usage).asked or usage.cached:
                tokens = f" ({usage.prompt_tokens:,} tokens read, {usage.answer_tokens:,} written)"
                kept = f"; {usage.cached:,} kept from before" if usage.cached else ""
                answers = "1 answer" if usage.asked == 1 else f"{usage.asked:,} answers"
                console.print(f"asked for {answers}{tokens if usage.answer_tokens else ''}{kept}")


@contextmanager
def saying_how_to_go_on(command: Sequence[str], *, is_fresh: bool) -> Iterator[None]:
    """On Ctrl-C, the words of the command stand in what is raised on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        kept = "--fresh asks everything anew, so start again with" if is_fresh else "answers are kept, go on with"
        raise KeyboardInterrupt(f"; {kept}: {shlex.join(command)}") from stop
