"""How asking a language model shows itself in the terminal: a bar with what is left, and why it waits."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedmpt.llm.asking import Usage
from fedmpt.llm.model import Request


class TerminalAsking:
    """Answers that came, out of the ``total`` that are planned, on the given console. Use as a context manager.

    Where nobody watches, only what went wrong is printed.
    """

    def __init__(self, console: Console, *, total: int) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.fields[label]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("asking", total=total, label="asking")

    def __enter__(self) -> TerminalAsking:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def answered(self, request: Request, *, cached: bool) -> None:
        self._bar.update(self._task, advance=1, label=f"{request.label or 'asking'}{' (kept)' if cached else ''}")

    def waiting(self, request: Request, reason: str, seconds: float) -> None:
        self._print(f"{request.label}: {reason}; trying again in {seconds:.0f} s")

    def unusable(self, request: Request, reason: str) -> None:
        self._print(f"{request.label}: left out: {reason}")

    def _print(self, line: str) -> None:
        # What a server says is shown as it is: never as markup of ours.
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_usage(usage: Usage, console: Console) -> None:
    tokens = f", {usage.prompt_tokens:,} + {usage.answer_tokens:,} tokens" if usage.answer_tokens else ""
    kept = f"; {usage.cached:,} answers were kept from before" if usage.cached else ""
    console.print(f"asked {usage.asked:,} times{tokens}{kept}", markup=False)
