"""A site is shut out while a federation runs: the others go on, in the same job."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flare_processes import free_port

from fedmpt.federated.flare.authority import shut_out
from fedmpt.federated.flare.founding import set_up
from fedmpt.federated.flare.link import Link

pytestmark = pytest.mark.slow

WORKER = """
import os
from pathlib import Path
from fedmpt.federated.flare.sockets import serve
serve(Path(os.environ["FEDMPT_WORKER_SOCKET"]), lambda content: content[::-1])
"""
SITE = """
import sys
from pathlib import Path
from fedmpt.federated.flare.supervise import supervise
worker = [sys.executable, "-c", sys.argv[2]]
sys.exit(supervise(Path(sys.argv[1]), worker=worker, note=lambda text: None))
"""


@contextmanager
def site(kit: Path) -> Iterator[None]:
    command = [sys.executable, "-c", SITE, str(kit), WORKER]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_until_connected(link: Link, sites: set[str]) -> None:
    deadline = time.monotonic() + 60
    while link.connected().keys() != sites:
        assert time.monotonic() < deadline, (link.connected(), sites)
        time.sleep(0.2)


def answers(link: Link, contents: dict[str, bytes]) -> dict[str, bytes | None]:
    return {answer.site: answer.content for answer in link.ask(contents, timeout=60, limit=100)}


def test_the_others_go_on(tmp_path: Path) -> None:
    plan = {"name": "fed", "sites": ["a", "b"]}
    set_up(tmp_path, plan, address=("localhost", free_port()), days=10, root_days=20, trial=True)
    coordinator, sites = tmp_path / "coordinator", tmp_path / "sites"
    with Link(coordinator, note=lambda text: None) as link, site(sites / "a"), site(sites / "b"):
        wait_until_connected(link, {"a", "b"})
        assert answers(link, {"a": b"123", "b": b"456"}) == {"a": b"321", "b": b"654"}
        shut_out("b", coordinator)
        wait_until_connected(link, {"a"})
        assert answers(link, {"a": b"123", "b": b"456"}) == {"a": b"321", "b": None}
