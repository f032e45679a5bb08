"""Servers that end with the test, a client, and no proxy between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_server import Behaviour, FaultyServer
from fetching import CONTENT, PATH, Client, Serve


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that are stopped with the test."""
    running: list[FaultyServer] = []

    def start(*script: Behaviour, path: str = PATH) -> FaultyServer:
        running.append(FaultyServer({path: CONTENT}, *script).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    folder = tmp_path / "out"
    folder.mkdir()
    return Client(folder)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "parent" / "out"
    folder.mkdir(parents=True)
    return folder
