"""How a run shows itself in the terminal: a live bar, or one line a round where nobody watches."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fedmpt.federated.rounds import Round, cohort_size
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Ready
from fedmpt.runs.run import Watcher
from fedmpt.state import Update, get_state, num_parameters


class TerminalWatcher(Watcher):
    """Rounds, clients, loss, mAP and time left, on the given console. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("round {task.fields[round]}"),
            BarColumn(),
            TextColumn("client {task.fields[client]}  loss {task.fields[loss]}  mAP {task.fields[mAP]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._num_rounds = self._cohort_size = self._in_cohort = 0

    def __enter__(self) -> TerminalWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, config: RunConfig, ready: Ready, *, rounds_done: int) -> None:
        trainable, num_rounds = num_parameters(get_state(ready.method)), config.federation.rounds
        rounds = f"{num_rounds} round{'' if num_rounds == 1 else 's'}" if trainable else "nothing to train"
        self._print(f"{config.method.name}: {trainable:,} trained parameters, {rounds}")
        num_clients, held_out = len(ready.client_names), ready.num_held_out
        train = sum(ready.client_images) + held_out
        aside = f", {held_out} of the training images held out" if held_out else ""
        self._print(f"{num_clients} clients, {train} training and {ready.num_test} test images{aside}")
        for note in ready.notes:
            self._print(f"note: {note}")
        for path in ready.skipped:
            self._print(f"left out, cannot be read: {path}")
        if rounds_done:
            self._print(f"continuing after round {rounds_done}")
        if not trainable:
            return
        self._num_rounds, self._cohort_size = num_rounds, cohort_size(num_clients, config.federation.participation)
        self._task = self._bar.add_task(
            "rounds",
            total=num_rounds * self._cohort_size,
            completed=rounds_done * self._cohort_size,
            round=f"{min(rounds_done + 1, num_rounds)}/{num_rounds}",
            client=f"0/{self._cohort_size}",
            loss="-",
            mAP="-",
        )
        # Not earlier: features have a bar of their own, and two at once wipe each other out.
        self._bar.start()

    def _print(self, line: str) -> None:
        # Never wrapped: a path cut in two cannot be copied.
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def noted(self, note: str) -> None:
        self._print(f"note: {note}")

    def client_done(self, update: Update) -> None:
        assert self._task is not None
        self._in_cohort += 1
        place = f"{self._in_cohort}/{self._cohort_size}"
        self._bar.update(self._task, advance=1, client=place, loss=f"{update.loss:.3f}")

    def round_done(self, done: Round) -> None:
        assert self._task is not None
        self._in_cohort = 0
        if done.index < self._num_rounds:
            self._bar.update(self._task, round=f"{done.index + 1}/{self._num_rounds}", client=f"0/{self._cohort_size}")
        scored = ""
        if done.scores is not None:
            self._bar.update(self._task, mAP=f"{done.scores.mAP:.1f}")
            scored = f"  mAP {done.scores.mAP:5.2f}  CF1 {done.scores.CF1:5.2f}  OF1 {done.scores.OF1:5.2f}"
        if done.held_out_mAP is not None:
            scored += f"  held-out mAP {done.held_out_mAP:5.2f}"
        if done.epsilon is not None:
            scored += f"  epsilon {done.epsilon:.2f}"
        self._print(
            f"round {done.index:>3}/{self._num_rounds}  {len(done.clients)} clients  loss {done.loss:.4f}"
            f"{scored}  {done.seconds:.1f} s"
        )
