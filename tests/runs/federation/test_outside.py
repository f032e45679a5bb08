"""Sites that wait outside: their engineers are told why, and the others train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites

from fedmpt.federated.flare.messages import Message, pack
from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import preset
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.run import Watcher


class Place:
    """Three sites in folders of their own. ``heard`` is what each site's engineer reads, without the first lines."""

    def __init__(self, root: Path, clip: Path) -> None:
        self.root = root
        self.data = write_sites(root / "data")
        federation = Federation(rounds=1, learning_rate=0.1)
        config = replace(preset("default", "promptfl", "sites"), backbone=str(clip), federation=federation)
        self.plan = plan_of(config)
        self.heard: dict[str, list[str]] = {}

    def spell(self, site: str, names: Mapping[str, str]) -> None:
        """Have a site write names of classes in another way."""
        path = self.data / site / "labels.csv"
        text = path.read_text()
        for name, other in names.items():
            text = text.replace(name, other)
        path.write_text(text)

    def link(self, plan: Plan | None = None) -> FakeLink:
        self.heard = {site: [] for site in CLASSES}
        handles = {
            site: site_handle(
                plan or self.plan,
                site,
                self.data / site,
                kit=self.root / site,
                cache=self.root / "cache",
                note=self.heard[site].append,
            )
            for site in CLASSES
        }
        for notes in self.heard.values():
            notes.clear()
        return FakeLink.of(handles)

    def run(self, link: FakeLink) -> list[str]:
        """What the coordinator's engineer reads."""
        said: list[str] = []
        folder = self.root / "coordinator"
        folder.mkdir(exist_ok=True)
        options = Options(cache=self.root / "cache", show_progress=False)
        run_federation(self.plan, link, folder=folder, options=options, watcher=Watcher(), note=said.append)
        return said


@pytest.fixture
def place(tmp_path: Path, tiny_clip_folder: Path) -> Place:
    return Place(tmp_path, tiny_clip_folder)


def outside(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if "waits outside" in line]


def test_its_engineer_reads_why_a_site_waits_outside(place: Place) -> None:
    other = replace(place.plan, run=replace(place.plan.run, seed=5))
    link = place.link()
    link.handles["birch"] = place.link(other).handles["birch"]
    said = place.run(link)
    differs = "their options differ: seed is 0 at the coordinator and 5 in the kit of birch"
    assert outside(said) == [f"site birch waits outside: {differs}"]
    assert place.heard["birch"] == [
        f"waits outside: {differs} (whoever mends it here starts join again; the coordinator compares anew every 30 s)"
    ]


def test_words_of_a_coordinator_change_no_terminal(place: Place) -> None:
    handle = place.link().handles["ash"]
    handle(pack(Message("outside", {"reason": "\x1b[2Jone\ntwo" + 10_000 * "x"})))
    (line,) = place.heard["ash"]
    assert line.startswith("waits outside: ?[2Jone two")
    assert len(line) < 1200
