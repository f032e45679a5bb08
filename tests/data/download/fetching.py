"""A client of the faulty server, and the one file there is."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_server import FaultyServer
from rich.console import Console
from tiny_archives import VOC_PATH, archive_of

from fedmpt.data.download.archives import Archive
from fedmpt.data.download.fetch import Patience, fetch_archive
from fedmpt.data.download.report import Report
from fedmpt.types import InputError

CONTENT = random.Random(0).randbytes(200_000)
ARCHIVE = archive_of(CONTENT)
PATH = VOC_PATH + ARCHIVE.file_name
HALF = 100_000

Serve = Callable[..., FaultyServer]


class Client:
    """Fetches into a folder, and keeps what was said and how long was waited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waits: list[float] = []
        self.console = Console(record=True, quiet=True, width=1000)
        self.patience = Patience(timeout_s=5.0, sleep=self.waits.append)

    def fetch(self, server: FaultyServer, archive: Archive = ARCHIVE) -> Path:
        report = Report(self.console)
        return fetch_archive(archive, self.folder, mirror=server.url, patience=self.patience, report=report)

    def assert_fetched(self, server: FaultyServer) -> None:
        path = self.fetch(server)
        assert path.read_bytes() == CONTENT
        assert os.listdir(self.folder) == [ARCHIVE.file_name]

    def assert_refused(self, server: FaultyServer, message: str, archive: Archive = ARCHIVE) -> None:
        with pytest.raises(InputError, match=message):
            self.fetch(server, archive)
        assert not (self.folder / ARCHIVE.file_name).exists()

    @property
    def part(self) -> Path:
        return self.folder / f"{ARCHIVE.file_name}.part"
