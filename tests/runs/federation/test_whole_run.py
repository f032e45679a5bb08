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
ROUNDS = 3
BAD_HOURS = Path(__file__).parents[2] / "support" / "bad_hours.py"


@pytest.fixture(scope="module")
def joined(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFederation]:
    """Three sites that have joined, each behind a line of 64 kB/s and 300 ms. The coordinator is not started."""
    root = tmp_path_factory.mktemp("whole")
    data = write_sites(root / "data")
    words = f"--method promptfl --rounds {ROUNDS} --eval-every {ROUNDS} --learning-rate 0.1 --gather 120"
    with RealFederation(root / "real", *words.split(), sites=tuple(CLASSES), data=data, clip=tiny_clip_folder) as found:
        line = Line(found.port, rate=64_000, delay=0.3)
        for site in CLASSES:
            path = found.kit(site) / "startup" / "fed_client.json"
            kit = json.loads(path.read_text())
            kit["servers"][0]["service"]["target"] = f"localhost:{line.port}"
            write_json(path, kit)
            found.join(site)
        yield found
        line.close()


@pytest.fixture(scope="module")
def undisturbed(joined: RealFederation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `fedmpt train` on the same folders."""
    config = replace(load_plan(joined.coordinator).run, data=f"clients:{joined.data}")
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(config, out=out, cache=joined.root / "cache", show_progress=False)
    return out


def checkpoint(run: Path) -> dict[str, bytes]:
    """What a run has trained and fitted."""
    folder = run / "checkpoint"
    paths = [*folder.glob("state-*.safetensors"), folder / "calibration.json"]
    return {path.name: path.read_bytes() for path in paths}


def can_mount() -> bool:
    """Whether a process can have a disk of its own here."""
    words = ("unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return shutil.which("unshare") is not None and subprocess.run(words, capture_output=True).returncode == 0


def test_a_slow_line_a_full_disk_and_a_killed_coordinator_change_no_byte(
    joined: RealFederation, undisturbed: Path, tmp_path: Path
) -> None:
    """Three times the same command: the disk is full after a round, it is killed after the next, it finishes."""
    command = (*FEDMPT, "federation", "start", joined.coordinator)
    has_disk, copy = can_mount(), tmp_path / "copy"
    before = ("env", "DISK=1", "unshare", "-Urm") if has_disk else ()
    words = (*before, sys.executable, BAD_HOURS, joined.coordinator, copy, *command)
    running = joined.begin(words, log="start")
    until(lambda: running.family() and running.process.poll() is not None, "its end", seconds=400)
    assert running.said.splitlines()[-1] == f"exit codes {'2 ' if has_disk else ''}-9 0 left"
    assert ("No space left on device" in running.said) == has_disk
    assert FOREIGN.search(running.said) is None, running.said
    rounds = [json.loads(line) for line in (copy / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [(line["round"], line["clients"]) for line in rounds] == [(n + 1, [0, 1, 2]) for n in range(ROUNDS)]
    assert checkpoint(copy / "run") == checkpoint(undisturbed) != {}
    assert json.loads((copy / "status.json").read_text())["state"] == "finished"
    assert running.survivors() == []
    for site in CLASSES:
        model = (path.read_bytes() for path in (joined.kit(site) / "model").glob("state-*.safetensors"))
        assert list(model) == [path.read_bytes() for path in (copy / "run/checkpoint").glob("state-*.safetensors")]
