"""A federation of real processes on this machine, and what befalls it: the training goes on, and says what happened.

The tests share a federation that runs for as long as they need. Each leaves it as it found it: three sites take part.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from federation_bed import FakeLink, site_handle, write_sites
from real_federation import CLIENT, FOREIGN, JOB, SERVER, WORKER, RealFederation, until

from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.files import write_json
from fedmpt.runs.federation.run import Options, load_plan, run_federation
from fedmpt.runs.federation.worker import WorkerOptions
from fedmpt.runs.run import Watcher

pytestmark = pytest.mark.slow
SITES = ("ash", "birch", "cedar", "dill", "elm")
"""The last two do not fit."""
SLOW_BACKBONE = """
import time
from pathlib import Path
from fedmpt.backbone import load_backbone

def slow():
    time.sleep(11)
    while not Path({go!r}).exists():
        time.sleep(0.1)
    return load_backbone({clip!r})
"""
"""NVFlare gives a job 10 seconds in places to come together."""
DEADLINE = 8.0


@pytest.fixture(scope="module")
def running(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFederation]:
    """Two sites train; cedar is on its way, with a model that takes long to load. Two do not fit."""
    root = tmp_path_factory.mktemp("faults")
    classes = root / "classes.txt"
    classes.write_text("cat\ncup\ndog\ntable\n")
    options = ("--classes", classes, "--method", "promptfl", "--rounds", 5000, "--eval-every", 5000)
    rules = ("--deadline", DEADLINE, "--gather", 3, "--patience", 120)
    data = write_sites(root / "data")
    with RealFederation(root / "real", *options, *rules, sites=SITES, data=data, clip=tiny_clip_folder) as found:
        plugin = root / "slow.py"
        plugin.write_text(SLOW_BACKBONE.format(go=str(root / "real" / "go"), clip=str(tiny_clip_folder)))
        spoil(found)
        for site in SITES:
            found.join(site, *(("--backbone", f"{plugin}:slow") if site == "cedar" else ()))
        found.start()
        yield found


def spoil(found: RealFederation) -> None:
    """What makes dill and elm unfit."""
    for site, change in (("dill", {}), ("elm", {"class_names": None})):
        path = found.kit(site) / "invitation.json"
        words = json.loads(path.read_text())
        words["plan"] |= change
        if site == "dill":
            words["plan"]["run"]["training"]["local_epochs"] = 3
        write_json(path, words)
        shutil.copytree(found.data / "ash", found.data / site)
    labels = found.data / "elm" / "labels.csv"
    labels.write_text(labels.read_text().replace("cat", "spoon"))


def test_a_site_that_prepares_for_long_takes_part_late(running: RealFederation) -> None:
    running.counts(0, 1)
    (running.root / "go").touch()
    running.hears("^site cedar takes part$")
    running.counts(0, 1, 2)
    assert running.cohorts()[0] == [0, 1]
    assert running.status()["sites"]["cedar"]["state"] == "here"


def test_sites_that_do_not_fit_wait_outside(running: RealFederation) -> None:
    """One has another option in its kit, one names a class that the federation has not."""
    expected = "training.local_epochs is 1 at the coordinator and 3 in the kit of dill"
    assert expected in running.hears("^site dill waits outside: ")
    assert "spoon" in running.hears("^site elm waits outside: ")
    states = running.status()["sites"]
    assert [states[site]["state"] for site in SITES] == ["here", "here", "here", "outside", "outside"]
    until(lambda: f"waits outside: its options differ: {expected}" in running.sites["dill"].said, "a word at dill")
    until(lambda: "waits outside: its labels: class 'spoon'" in running.sites["elm"].said, "a word at elm")
    for site in ("dill", "elm"):
        assert running.sites.pop(site).stop() == 130


@pytest.mark.parametrize("part", [WORKER, CLIENT, JOB])
def test_a_process_of_a_site_is_killed(running: RealFederation, part: str) -> None:
    """NVFlare's job is one for all sites: where a site's process of it dies, all are asked again, and none need miss a
    round."""
    birch = running.sites["birch"]
    events = len(running.events())
    killed = birch.part(part)
    killed.kill()
    if part != JOB:
        running.hears("^round [0-9]+: site birch is left out: ", after=events)
        running.hears("^site birch takes part$", after=events)
        assert "has stopped (signal 9); it is started again in" in birch.said
    until(lambda: birch.part(part).pid != killed.pid, f"another {part}")
    running.counts(0, 1, 2, rounds=2)


def test_a_whole_site_is_killed_and_joins_again(running: RealFederation) -> None:
    events = len(running.events())
    running.sites["birch"].kill()
    running.counts(0, 2)
    assert running.sites["birch"].survivors() == []
    running.join("birch")
    running.hears("^site birch takes part$", after=events)
    running.counts(0, 1, 2)


def test_a_late_answer_counts_for_no_other_round(running: RealFederation) -> None:
    """That it does not is seen when all rounds are trained again, in the last test."""
    worker, events = running.sites["birch"].part(WORKER), len(running.events())
    worker.suspend()
    left_out = running.hears("site birch is left out: ", after=events)
    assert f"no answer within {DEADLINE:g} s" in left_out
    until(lambda: "no answer within" in running.status()["sites"]["birch"]["reason"], "a word in the status")
    worker.resume()
    running.hears("^site birch takes part$", after=events)
    running.counts(0, 1, 2)


def test_the_engines_server_is_killed_alone(running: RealFederation) -> None:
    assert running.started is not None
    rounds = len(running.rounds())
    running.started.part(SERVER).kill()
    start = running.started
    until(lambda: "NVFlare's server has stopped; it is started again" in start.said, "a word of it")
    running.counts(0, 1, 2, rounds=2)
    assert len(running.rounds()) > rounds


HOSTILE = """
import json, os, sys
from pathlib import Path
from fedmpt.federated.flare.messages import unpack
from fedmpt.federated.flare.sockets import serve
from fedmpt.runs.federation.worker import WorkerOptions, answering, ready, said

honest = answering(ready(WorkerOptions(**json.loads(sys.argv[1])), note=said(True)))
def answer(content):
    is_round = unpack(content, source="test").kind == "train"
    return bytes(500_000_000) if is_round else honest(content)
serve(Path(os.environ["FEDMPT_WORKER_SOCKET"]), answer)
"""
JOINER = """
import sys
from pathlib import Path
from fedmpt.federated.flare.supervise import supervise
sys.exit(supervise(Path(sys.argv[1]), worker=sys.argv[2:], note=print))
"""


def test_a_site_that_answers_half_a_gigabyte_is_left_out(running: RealFederation) -> None:
    assert running.started is not None
    before = sum(one.memory_info().rss for one in running.started.family())
    events = len(running.events())
    assert running.sites["birch"].stop() == 130
    kit, data = running.kit("birch"), f"folder:{running.data / 'birch'}"
    options = WorkerOptions(kit=str(kit), data=data, cache=str(running.root / "cache")).command()[-1]
    words = (sys.executable, "-c", JOINER, kit, sys.executable, "-c", HOSTILE, options)
    hostile = running.begin(words, log="hostile")
    running.hears("site birch is left out: .* 50000000[01] bytes, and [0-9]+ are allowed", after=events)
    running.counts(0, 2, rounds=2)
    assert sum(one.memory_info().rss for one in running.started.family()) < before + 200e6
    assert hostile.stop() == 130
    assert hostile.survivors() == []


def test_everybody_stops_by_ctrl_c(running: RealFederation) -> None:
    assert running.started is not None
    assert running.started.stop() == 130
    command = f"fedmpt federation start {running.coordinator}"
    assert running.started.said.splitlines()[-1].endswith(
        f"interrupted; complete rounds are stored, continue with: {command}"
    )
    assert running.status()["state"] == "stopped"
    assert running.started.survivors() == []
    for site in running.sites.values():
        assert site.stop() == 130
        assert site.said.endswith("interrupted; the same command takes part again\n")
        assert site.survivors() == []
    for log in running.root.glob("*.log"):
        assert FOREIGN.search(log.read_text()) is None, log.read_text()


def test_what_was_trained_is_what_sites_train_that_are_away_in_those_rounds(
    running: RealFederation, tmp_path: Path
) -> None:
    """All rounds once more in one process, each with the sites that counted: the same bytes."""
    cohorts = running.cohorts()
    plan = load_plan(running.coordinator)
    handles = {
        site: site_handle(plan, site, running.data / site, kit=tmp_path / site, cache=running.root / "cache")
        for site in SITES[:3]
    }
    link = FakeLink.of(handles)

    def as_it_was(site: str) -> Callable[[str, int, bytes], bytes | str]:
        def fault(kind: str, index: int, answer: bytes) -> bytes | str:
            if kind == "train" and index > len(cohorts):
                raise KeyboardInterrupt
            is_away = kind == "train" and plan.sites.index(site) not in cohorts[index - 1]
            return "away" if is_away else answer

        return fault

    link.faults = {site: as_it_was(site) for site in handles}
    (tmp_path / "coordinator").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_federation(
            plan,
            link,
            folder=tmp_path / "coordinator",
            options=Options(cache=running.root / "cache", show_progress=False),
            watcher=Watcher(),
            note=lambda text: None,
        )
    folders = [folder / "run" / "checkpoint" for folder in (running.coordinator, tmp_path / "coordinator")]
    assert load_checkpoint(folders[0]).progress.rounds_done == len(cohorts)
    states = [{path.name: path.read_bytes() for path in folder.glob("state-*.safetensors")} for folder in folders]
    assert states[0] == states[1] != {}
