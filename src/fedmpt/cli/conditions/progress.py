"""How asking a language model shows itself in the terminal: a bar with what is left, and why it waits."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fedmpt.llm.asking import Usage
from fedmpt.llm.model import Request


class TerminalAsking:
    """Answers that came, out of the ``total`` that are planned, on the given console. Use as a context manager.

    Repairs come on top of the plan. Where nobody watches, only what went wrong is printed.
    """

    def __init__(self, console: Console, *, total: int) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.fields[label]}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("asking", total=total, label="asking")
        self._total = total
        self._answered = 0
        self._told: dict[str, float] = {}
        """Reasons to wait that were printed, with the seconds."""

    def __enter__(self) -> TerminalAsking:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def answered(self, request: Request, *, cached: bool) -> None:
        self._answered += 1
        self._total = max(self._total + (", repair " in request.label), self._answered)
        label = f"{request.label or 'asking'}{' (kept)' if cached else ''}"
        self._bar.update(self._task, completed=self._answered, total=self._total, label=label)

    def waiting(self, request: Request, reason: str, seconds: float) -> None:
        # Requests that are under way together fail together: once is enough, until the wait gets longer.
        if seconds > 1.4 * self._told.get(reason, 0.0):
            self._told[reason] = seconds
            self._print(f"{request.label}: {reason}; trying again in {seconds:.0f} s")

    def unusable(self, request: Request, reason: str) -> None:
        self._print(f"{request.label}: {reason}")

    def _print(self, line: str) -> None:
        # What a server says is shown as it is: never as markup of ours.
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_usage(usage: Usage, console: Console) -> None:
    """What asking took; nothing where nothing came."""
    if not usage.asked and not usage.cached:
        return
    tokens = f" ({usage.prompt_tokens:,} tokens read, {usage.answer_tokens:,} written)" if usage.answer_tokens else ""
    kept = f"; {usage.cached:,} kept from before" if usage.cached else ""
    console.print(f"asked for {counted(usage.asked, 'answer')}{tokens}{kept}", markup=False)


def counted(number: int, what: str) -> str:
    """``"1 answer"``, ``"2,000 answers"``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
