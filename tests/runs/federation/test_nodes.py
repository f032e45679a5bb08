"""The clients of one data set on several nodes; no processes, no engine: messages only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from federation_bed import FakeLink, write_sites

from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.federation import nodes as nodes_module
from fedmpt.runs.federation.nodes import Node, Nodes, shares_of
from fedmpt.runs.federation.plan import Plan, Rules
from fedmpt.runs.federation.sites import Sites
from fedmpt.runs.federation.status import Status
from fedmpt.runs.prepare import Prepared
from fedmpt.runs.run import Updates, train
from fedmpt.types import InputError

NODES = ("node-1", "node-2", "node-3")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sites(tmp_path_factory.mktemp("nodes") / "data", images=12)


def config_of(data: Path, backbone: Path, method: str) -> RunConfig:
    """Five clients, for three nodes; each annotates two classes."""
    start = preset("default", method, f"clients:{data}")
    federation = Federation(rounds=2, learning_rate=0.1, wire="float16")
    config = replace(start, backbone=str(backbone), setting="iid", clients=5, federation=federation)
    return replace(config, partial_labels="missing-classes", classes_per_client=2)


class Cluster:
    """Nodes of this process, as `fedmpt.runs.run.train` takes them."""

    def __init__(
        self, config: RunConfig, folder: Path, cache: Path, *, other: RunConfig | None = None, gather: float = 0
    ) -> None:
        rules = Rules(min_sites=1, gather=gather, patience=300, deadline=5)
        self.plan = Plan(name="c", sites=NODES, address="localhost:1", run=config, rules=rules, is_simulation=True)
        configs = {node: other if other and node == "node-2" else config for node in NODES}
        nodes = {
            name: Node(replace(self.plan, run=run), cache=cache, note=lambda _: None, show_progress=False).handle
            for name, run in configs.items()
        }
        self.link, self.folder = FakeLink.of(nodes), folder
        self.expected = set(NODES)

    @contextmanager
    def workers(self, prepared: Prepared, out: Path) -> Iterator[Updates]:
        self.folder.mkdir(exist_ok=True)
        status = Status.read(self.folder, NODES)
        sites = Sites(self.plan, self.link, self.folder, status, lambda _: None)
        yield Nodes(sites, prepared, lambda: self.expected).updates


class Clock:
    """Time that passes only by sleeping; ``slept`` are the pauses."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return 1000 + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(nodes_module, "time", found)
    return found


@pytest.mark.parametrize("method", ["promptfl", "fedpgp"])
def test_nodes_end_with_the_same_bytes_as_one_process(
    data: Path, tiny_clip_folder: Path, tmp_path: Path, method: str
) -> None:
    config = config_of(data, tiny_clip_folder, method)
    cluster = Cluster(config, tmp_path / "nodes", tmp_path / "cache")

    def dies(kind: str, index: int, answer: bytes) -> bytes | str:
        if kind == "train":
            cluster.link.since.pop("node-2", None)  # Its clients go to the others, within the round.
            return "its job process stopped"
        return answer

    cluster.link.faults["node-2"] = dies
    for out, workers in (("one", None), ("many", cluster.workers)):
        train(config, out=tmp_path / out, cache=tmp_path / "cache", show_progress=False, workers=workers)
    assert ("node-2", "train") in cluster.link.asked
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / out / "checkpoint").iterdir()} for out in ("one", "many")
    ]
    assert files[0] == files[1]
    assert any(name.startswith("personal") for name in files[0]) == (method == "fedpgp")


def test_a_node_with_other_data_is_refused(data: Path, tiny_clip_folder: Path, tmp_path: Path) -> None:
    config = config_of(data, tiny_clip_folder, "promptfl")
    other = replace(config, clients=4)
    cluster = Cluster(config, tmp_path / "nodes", tmp_path / "cache", other=other)
    with pytest.raises(InputError, match=r"node node-2 does not fit: options.clients is 4 there and 5 here; data is"):
        train(config, out=tmp_path / "out", cache=tmp_path / "cache", show_progress=False, workers=cluster.workers)
    assert not (tmp_path / "out").exists()


def test_a_node_is_asked_for_no_more_than_one_message_can_hold() -> None:
    """Else no answer would ever come, and the same would be asked again without end."""
    clients, nodes = list(range(7)), ["a", "b"]
    assert shares_of(clients, nodes, most=9) == {"a": [0, 2, 4, 6], "b": [1, 3, 5]}
    assert shares_of(clients, nodes, most=2) == {"a": [0, 2], "b": [1, 3]}
    assert shares_of(clients, nodes, most=0) == {"a": [0], "b": [1]}


def test_nodes_that_answer_nothing_are_asked_less_and_less_and_then_the_run_ends(
    data: Path, tiny_clip_folder: Path, tmp_path: Path, clock: Clock
) -> None:
    config = config_of(data, tiny_clip_folder, "promptfl")
    cluster = Cluster(config, tmp_path / "nodes", tmp_path / "cache")

    def killed(kind: str, index: int, answer: bytes) -> bytes | str:
        return "its worker was killed" if kind == "train" else answer

    cluster.link.faults = dict.fromkeys(NODES, killed)
    message = r"no node has trained a client for 303 s \(node-1: round 1: its worker was killed.*with --resume"
    with pytest.raises(InputError, match=message):
        train(config, out=tmp_path / "out", cache=tmp_path / "cache", show_progress=False, workers=cluster.workers)
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_node_that_has_ended_is_not_waited_for(
    data: Path, tiny_clip_folder: Path, tmp_path: Path, clock: Clock
) -> None:
    config = config_of(data, tiny_clip_folder, "promptfl")
    cluster = Cluster(config, tmp_path / "nodes", tmp_path / "cache", gather=100)
    del cluster.link.since["node-3"]
    cluster.expected = {"node-1", "node-2"}
    train(config, out=tmp_path / "out", cache=tmp_path / "cache", show_progress=False, workers=cluster.workers)
    assert clock.slept == []
