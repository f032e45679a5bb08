"""What ``fedmpt federation join`` tells the site's worker. It loads no torch: it watches over the worker for weeks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What ``fedmpt federation join`` was given. ``backbone`` is None where it is as the plan says."""

    kit: str
    data: str | None
    cache: str
    backbone: str | None = None
    device: str = "cpu"
    skip_corrupt: bool = False
    quiet: bool = False

    def command(self) -> list[str]:
        """The command that starts a worker with these options."""
        return [sys.executable, "-m", "fedmpt.runs.federation.worker", json.dumps(asdict(self))]


def said(quiet: bool) -> Callable[[str], None]:
    """Prints lines for the site's engineer, with the time."""

    def note(text: str) -> None:
        if not quiet:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    return note
