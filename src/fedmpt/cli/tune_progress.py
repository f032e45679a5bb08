"""How tuning shows itself in the terminal: a live line of the run that goes on, and a line for each that has ended."""

from __future__ import annotations

from rich.console import Console

from fedmpt.federated.rounds import Round
from fedmpt.runs.config import RunConfig
from fedmpt.runs.prepare import Prepared
from fedmpt.runs.tune import Trial, TuneWatcher


class TuneProgress(TuneWatcher):
    """On the given console. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("preparing")
        self._label, self._num_rounds = "", 0
        self._notes: set[str] = set()

    def __enter__(self) -> TuneProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def trial_started(self, number: int, most: int, label: str) -> None:
        self._label = f"run {number} of at most {most}: {label}"
        self._status.update(self._label)
        self._status.start()

    def started(self, config: RunConfig, prepared: Prepared, *, rounds_done: int) -> None:
        self._num_rounds = config.federation.rounds
        skipped = [
            f"left out, cannot be read: {path}" for part in (prepared.train, prepared.test) for path in part.skipped
        ]
        for line in (*(f"note: {note}" for note in prepared.data.notes), *skipped):
            if line not in self._notes:  # All runs have the same.
                self._notes.add(line)
                self._print(line)

    def round_done(self, done: Round) -> None:
        self._status.update(f"{self._label}; round {done.index} of {self._num_rounds} done")

    def trial_done(self, trial: Trial) -> None:
        found = "training diverged"
        if trial.mAP is not None and trial.balanced_mAP is not None:
            found = f"mAP {trial.mAP:.1f}, balanced mAP {trial.balanced_mAP:.1f}"
        self._print(f"{self._label}: {found}")

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
