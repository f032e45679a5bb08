"""A federation of sites against the same run in one process; no processes, no engine: messages only."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites

from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.run import Watcher, train


@dataclass
class Bed:
    data: Path
    backbone: Path
    cache: Path

    def config(self, method: str, **options: Any) -> RunConfig:
        federation = Federation(rounds=3, eval_every=2, learning_rate=0.1, **options)
        return replace(
            preset("default", method, f"clients:{self.data}"), backbone=str(self.backbone), federation=federation
        )

    def link(self, plan: Plan, folder: Path) -> FakeLink:
        return FakeLink.of(
            {
                site: site_handle(plan, site, self.data / site, kit=folder / "sites" / site, cache=self.cache)
                for site in CLASSES
            }
        )

    def run(self, plan: Plan, link: FakeLink, folder: Path) -> tuple[dict[str, Any], list[str]]:
        said: list[str] = []
        (folder / "coordinator").mkdir(parents=True, exist_ok=True)
        options = Options(cache=self.cache, show_progress=False)
        results = run_federation(
            plan, link, folder=folder / "coordinator", options=options, watcher=Watcher(), note=said.append
        )
        return results, said


@pytest.fixture(scope="module")
def bed(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bed:
    root = tmp_path_factory.mktemp("federation")
    return Bed(write_sites(root / "data"), tiny_clip_folder, root / "cache")


def state_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "checkpoint").glob("state-*.safetensors")}


def sites_plan(config: RunConfig, **options: Any) -> Plan:
    return plan_of(replace(config, data="sites"), **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("promptfl", {}),
        ("fedmpt", {}),
        ("fedpgp", {}),
        ("promptfl", {"wire": "float16"}),
        ("fedotp", {"keep": "best", "held_out": 0.3}),
        ("promptfl", {"participation": 0.67}),
    ],
)
def test_a_federation_ends_with_the_same_bytes_as_one_process(
    bed: Bed, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    config = bed.config(method, **options)
    train(config, out=tmp_path / "one", cache=bed.cache, show_progress=False)
    plan = sites_plan(config)
    bed.run(plan, bed.link(plan, tmp_path), tmp_path)
    one, many = tmp_path / "one", tmp_path / "coordinator" / "run"
    assert state_files(one) == state_files(many) != {}
    lines = [[json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()] for run in (one, many)]
    for mine, theirs in zip(*lines, strict=True):
        assert (mine["clients"], mine["loss"]) == (theirs["clients"], theirs["loss"])
    assert (one / "checkpoint/calibration.json").read_text() == (many / "checkpoint/calibration.json").read_text()
