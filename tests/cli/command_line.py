"""The commands as tests call them: in this process, on a tiny CLIP and a tiny VOC."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedmpt.cli.main import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """A function that runs ``fedmpt`` with the given words; an exception beyond SystemExit is the test's failure."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def assert_refused(outcome: Outcome, message: str) -> None:
    """One line, of the command's own, on stderr, after announcements of long work; nothing on stdout."""
    assert outcome.code == 2
    assert outcome.out == ""
    *announced, last = outcome.err.splitlines()
    assert all(line.startswith("computing image features (") for line in announced), outcome.err
    assert re.match(rf"fedmpt (train|evaluate|calibrate|predict): .*{message}", last), outcome.err


@dataclass(frozen=True)
class Place:
    """Where the inputs of the commands lie. Features are computed once for all tests that share a place."""

    clip: Path
    voc: Path
    cache: Path

    def train_words(self, out: Path, *extra: object, t: str | None = "0.2", rounds: int = 2) -> list[str]:
        """``train`` for four clients (t * 20 classes), ``extra`` last, so that it may set an option once more."""
        words: list[object] = ["train", "--backbone", self.clip, "--data", f"voc:{self.voc}", "--cache", self.cache]
        words += ["--rounds", rounds, "--out", out, *(["--t", t] if t else []), *extra]
        return [str(word) for word in words]


def read_results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def read_rounds(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of all files below a folder; empty if it is not there."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
