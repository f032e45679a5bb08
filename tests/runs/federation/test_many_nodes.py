"""``fedmpt train --engine flare`` with real processes: the same bytes as in one process, whatever befalls a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flare_processes import free_port
from real_federation import FEDMPT, FOREIGN, Running, until

pytestmark = pytest.mark.slow
NODES = ("node-1", "node-2")
OPTIONS = "--data scenes:num_train=40,num_test=20 --method promptfl --setting iid --clients 5 --rounds 2"
PLUGIN = """
import sys, time
from pathlib import Path
from fedmpt.backbone import load_backbone
from fedmpt.runs.federation import nodes
from fedmpt.types import InputError

here, train = Path(__file__).parent, nodes.local_update

def hanging(*words, round_index, **options):
    if round_index == 2:
        (here / "hangs").touch()
        time.sleep(3600)
    return train(*words, round_index=round_index, **options)

def fine():
    return load_backbone("scenes-clip")

def hang():
    if "node-1" in sys.argv[-1]:
        nodes.local_update = hanging
    return fine()

def fail():
    if "node-" in sys.argv[-1]:
        raise InputError("the disk of this node is missing")
    return fine()
"""
"""The model, and what goes wrong in a node's worker, which is known by its kit."""


class Place:
    """Commands with one cache of features. All processes end with the tests."""

    def __init__(self, root: Path) -> None:
        self.root, self.plugin = root, root / "model.py"
        self.plugin.write_text(PLUGIN)
        self._env = {"FEDMPT_CACHE": str(root / "cache"), "HOME": str(root), "OMP_NUM_THREADS": "1"}
        self.all: list[Running] = []

    def begin(self, *words: object, log: str) -> Running:
        self.all.append(Running((*FEDMPT, *words), log=self.root / f"{log}.log", env=self._env))
        return self.all[-1]

    def train(self, out: str, *words: object, load: str = "fine") -> Running:
        model = ("--backbone", f"{self.plugin}:{load}")
        return self.begin("train", *OPTIONS.split(), *model, "--out", self.root / out, *words, log=out)

    def end_of(self, running: Running) -> int:
        until(lambda: running.family() and running.process.poll() is not None, "its end")
        assert FOREIGN.search(running.said) is None, running.said
        assert running.survivors() == []
        return running.process.wait()

    def bytes_of(self, out: str) -> dict[str, bytes]:
        folder = self.root / out
        paths = [*(folder / "checkpoint").glob("*.safetensors"), folder / "checkpoint" / "calibration.json"]
        return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With a run of one process, in ``plain``."""
    found = Place(tmp_path_factory.mktemp("nodes"))
    try:
        plain = found.train("plain")
        assert found.end_of(plain) == 0, plain.said
        yield found
    finally:
        for running in found.all:
            running.end()


def test_a_node_is_killed_in_a_round_and_the_other_trains_its_clients(place: Place) -> None:
    running = place.train("killed", "--engine", "flare", "--nodes", 2, load="hang")
    until((place.root / "hangs").exists, "node-1 in round 2")
    running.part("sites/node-1").kill()
    assert place.end_of(running) == 0, running.said
    assert "node-1 is away: round 2: " in running.said
    assert place.bytes_of("killed") == place.bytes_of("plain") != {}
    assert not (place.root / "killed" / ".nodes").exists()


def test_nodes_that_somebody_starts(place: Place) -> None:
    words = ("--engine", "flare", "--nodes", 2, "--address", f"localhost:{free_port()}")
    running = place.train("started", *words)
    until(lambda: "start a node on each machine: fedmpt federation join" in running.said, "what to start")
    kits = [place.root / "started" / ".nodes" / "sites" / node for node in NODES]
    nodes = [place.begin("federation", "join", kit, "--backbone", f"{place.plugin}:fine", log=kit.name) for kit in kits]
    assert place.end_of(running) == 0, running.said
    assert place.bytes_of("started") == place.bytes_of("plain")
    for node in nodes:
        assert "round 2: trained " in node.said
        assert node.stop() == 130
        assert node.survivors() == []


def test_nodes_that_cannot_start_end_the_run(place: Place) -> None:
    running = place.train("failed", "--engine", "flare", "--nodes", 2, load="fail")
    assert place.end_of(running) == 2
    assert running.said.count("the disk of this node is missing") == 2
    first, last = (line for line in running.said.splitlines() if "has ended (exit code 2)" in line)
    assert first.endswith("what it said stands above. The other nodes train its clients")
    assert last.startswith("fedmpt train: node-")
    assert "no node is left. Mend that, and give the command with --resume" in last
