"""Where a federation stands, in one file that its coordinator writes and ``fedmpt federation status`` reads."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmpt.files import read_json, write_json
from fedmpt.types import InputError

STATUS = "status.json"
EVENTS = "events.jsonl"


@dataclass
class SiteStatus:
    """One site. ``state`` is ``never`` here, ``here``, ``away`` or ``outside``, with the ``reason`` for the last two.

    Times are seconds since 1970. ``round`` is the last one that its update counted in, ``seconds`` how long that took.
    ``has_model`` says whether the final model has arrived there.
    """

    state: str = "never"
    since: float | None = None
    reason: str = ""
    round: int = 0
    loss: float | None = None
    seconds: float | None = None
    images: int | None = None
    test_images: int | None = None
    digest: str = ""
    has_model: bool = False


@dataclass
class Status:
    """All of a federation. ``state`` is ``gathering``, ``waiting``, ``training``, ``scoring``, ``finished`` or
    ``stopped``."""

    state: str = "gathering"
    note: str = ""
    round: int = 0
    rounds: int = 0
    loss: float | None = None
    mAP: float | None = None
    seconds: float | None = None
    pid: int = field(default_factory=os.getpid)
    updated: float = 0.0
    sites: dict[str, SiteStatus] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, sites: Sequence[str]) -> Status:
        """As the coordinator in ``folder`` last wrote it; of a federation that never ran, nobody was there."""
        path = folder / STATUS
        if not path.exists():
            return cls(
                sites={site: SiteStatus() for site in sites}, state="stopped", note="it has not been started yet"
            )
        words = read_json(path)
        try:
            return cls(**{**words, "sites": {name: SiteStatus(**site) for name, site in words["sites"].items()}})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} cannot be used ({error!r}); start the federation again, which writes it"
            ) from error

    def write(self, folder: Path) -> None:
        self.updated = time.time()
        write_json(folder / STATUS, self.to_json())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
