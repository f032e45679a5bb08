"""A small federation of folders, and a link to its sites that needs no processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.federation.plan import Plan, Rules
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.federation.worker import Handle, WorkerOptions, answering, prepare_site
from fedmpt.runs.run import Watcher

CLASSES = {"ash": ("cat", "dog", "table"), "birch": ("cat", "table"), "cedar": ("dog", "cup", "table")}
"""Sites with the classes that their labels name."""


def write_sites(root: Path, *, images: int = 10, seed: int = 0) -> Path:
    """A folder with one folder a site, as ``clients:`` reads it: noisy pictures and a table."""
    draw = np.random.default_rng(seed)
    for site, classes in CLASSES.items():
        folder = root / site
        folder.mkdir(parents=True)
        lines = ["image,labels,split"]
        for number in range(images):
            Image.fromarray(draw.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
            shown = [
                name for place, name in enumerate(classes) if number % len(classes) == place or draw.random() < 0.4
            ]
            lines.append(f"{number}.png,{'|'.join(shown)},{'test' if number % 4 == 3 else 'train'}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def plan_of(run: RunConfig, *, rules: Rules | None = None, sites: Sequence[str] = tuple(CLASSES)) -> Plan:
    return Plan(
        name="bed",
        sites=tuple(sites),
        address="localhost:8102",
        run=run,
        rules=rules or Rules(min_sites=2, gather=0.2, patience=20, deadline=20),
    )


def site_handle(
    plan: Plan, site: str, data: Path, *, kit: Path, cache: Path, note: Callable[[str], None] = lambda text: None
) -> Handle:
    """What answers messages at a site, loaded as its worker loads it. ``note`` hears what its engineer does."""
    kit.mkdir(parents=True, exist_ok=True)
    options = WorkerOptions(kit=str(kit), data=f"folder:{data}", cache=str(cache), quiet=True)
    return prepare_site(options, site, plan, note=note).handle


@dataclass
class Answered:
    site: str
    content: bytes | None
    error: str = ""


@dataclass
class FakeLink:
    """Sites of this process. ``since`` holds those that are connected; ``faults`` changes what a site answers.

    A fault takes the kind of the message, its round (0 where it has none) and the site's answer.
    """

    handles: dict[str, Callable[[bytes], bytes]]
    since: dict[str, float] = field(default_factory=dict)
    faults: dict[str, Callable[[str, int, bytes], bytes | str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, handles: Mapping[str, Handle]) -> FakeLink:
        return cls({site: answering(handle) for site, handle in handles.items()}, dict.fromkeys(handles, 1.0))

    def connected(self) -> Mapping[str, float]:
        return dict(self.since)

    def ask(self, contents: Mapping[str, bytes], *, timeout: float, limit: int) -> Iterator[Any]:
        from fedmpt.federated.flare.messages import unpack

        # Not in the order of names: what the sites lead to must not depend on who answers first.
        for site in sorted(contents, reverse=True):
            message = unpack(contents[site], source="test")
            self.asked.append((site, message.kind))
            if site not in self.since:
                yield Answered(site, None, "it is not connected")
                continue
            answer: bytes | str = self.handles[site](contents[site])
            if site in self.faults:
                answer = self.faults[site](message.kind, int(message.words.get("round", 0)), answer)
            if isinstance(answer, str):
                yield Answered(site, None, answer)
            elif len(answer) > limit:
                yield Answered(site, None, f"its answer has {len(answer)} bytes, more than {limit}")
            else:
                yield Answered(site, answer)


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
