"""A federation of real processes from its first round to its results, over a bad line and in bad hours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from federation_bed import CLASSES, write_sites
from real_federation import FEDMPT, FOREIGN, RealFederation, until
from slow_line import Line

from fedmpt.files import write_json
from fedmpt.runs.federation.run import load_plan
from fedmpt.runs.run import train

pytestmark = pytest.mark.slow
ROUNDS = 4
FULL_DISK = Path(__file__).parents[2] / "support" / "full_disk.py"


@pytest.fixture(scope="module")
def joined(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealFederation, Line]]:
    """Three sites that have joined, each behind a line of 64 kB/s and 300 ms. The coordinator is not started."""
    root = tmp_path_factory.mktemp("whole")
    data = write_sites(root / "data")
    options = ("--method", "promptfl", "--rounds", ROUNDS, "--eval-every", 2, "--learning-rate", 0.1, "--gather", 120)
    with RealFederation(root / "real", *options, sites=tuple(CLASSES), data=data, clip=tiny_clip_folder) as found:
        line = Line(found.port, rate=64_000, delay=0.3)
        for site in CLASSES:
            path = found.kit(site) / "startup" / "fed_client.json"
            words = json.loads(path.read_text())
            words["servers"][0]["service"]["target"] = f"localhost:{line.port}"
            write_json(path, words)
            found.join(site)
        yield found, line
        line.close()


@pytest.fixture(scope="module")
def undisturbed(joined: tuple[RealFederation, Line], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `fedmpt train` on the same folders."""
    found, _ = joined
    config = replace(load_plan(found.coordinator).run, data=f"clients:{found.data}")
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(config, out=out, cache=found.root / "cache", show_progress=False)
    return out


def checkpoint(run: Path) -> dict[str, bytes]:
    """What a run has trained and fitted."""
    folder = run / "checkpoint"
    paths = [*folder.glob("state-*.safetensors"), folder / "calibration.json"]
    return {path.name: path.read_bytes() for path in paths}


def test_a_killed_coordinator_goes_on_over_a_slow_line_to_the_same_bytes(
    joined: tuple[RealFederation, Line], undisturbed: Path
) -> None:
    found, _ = joined
    started = found.start()
    until(lambda: found.rounds(), "the first round", seconds=120)
    started.kill()
    assert len(found.rounds()) < ROUNDS
    again = found.start()
    assert again.process.wait(150) == 0, again.said
    assert found.cohorts() == [[0, 1, 2]] * ROUNDS
    run = found.coordinator / "run"
    assert checkpoint(run) == checkpoint(undisturbed)
    assert found.status()["state"] == "finished"
    for site in CLASSES:
        mine = {path.name: path.read_bytes() for path in (found.kit(site) / "model").glob("state-*.safetensors")}
        assert mine == {path.name: path.read_bytes() for path in (run / "checkpoint").glob("state-*.safetensors")}
    assert FOREIGN.search(again.said) is None


def can_mount() -> bool:
    tried = subprocess.run(("unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"), capture_output=True)
    return tried.returncode == 0


@pytest.mark.skipif(shutil.which("unshare") is None or not can_mount(), reason="needs a disk of its own")
def test_a_full_disk_at_the_coordinator_ends_with_a_message_and_goes_on_after(
    joined: tuple[RealFederation, Line], undisturbed: Path, tmp_path: Path
) -> None:
    found, line = joined
    line.rate, line.delay = None, 0.0
    for name in ("run", "status.json", "events.jsonl"):
        path = found.coordinator / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    copy = tmp_path / "copy"
    command = (*FEDMPT, "federation", "start", found.coordinator)
    words = ("unshare", "-Urm", sys.executable, FULL_DISK, found.coordinator, copy, *command)
    tried = found.begin(words, log="full-disk")
    assert tried.process.wait(150) == 0, tried.said
    assert "No space left on device" in tried.said
    assert "exit codes 2 0 left" in tried.said
    assert tried.said.splitlines()[-1] == "exit codes 2 0 left"
    assert FOREIGN.search(tried.said) is None, tried.said
    assert checkpoint(copy) == checkpoint(undisturbed)
