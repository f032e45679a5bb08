"""Which round is kept where sites come and go: never one for who was there to score it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites

from fedmpt.evaluation.calibration import mean_average_precision
from fedmpt.evaluation.final import Prediction
from fedmpt.evaluation.histograms import NUM_BINS
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import preset
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.run import Watcher

OTHERS = ["birch", "cedar"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sites(tmp_path_factory.mktemp("fair") / "data")


@pytest.fixture
def plan(tiny_clip_folder: Path) -> Plan:
    federation = Federation(rounds=4, eval_every=1, learning_rate=0.1, keep="best", held_out=0.3)
    config = replace(preset("default", "promptfl", "sites"), federation=federation, prediction=Prediction(mix=0.8))
    return plan_of(replace(config, backbone=str(tiny_clip_folder)))


def histograms(num_found: int, *, images: int = 10) -> torch.Tensor:
    """Of a class of which ``num_found`` tenths of the present labels have higher scores than all absent ones."""
    counts = torch.zeros(2, 4, NUM_BINS, dtype=torch.int64)
    counts[0, 0, 200] = 10 * images
    counts[1, 0, 300], counts[1, 0, 100] = num_found * images, (10 - num_found) * images
    return counts


@dataclass
class HeldOut:
    """Sites whose models find as many tenths of the held-out labels as is said: others by round, ash always the same.

    ``scored`` are the rounds whose models each site scored. At the event ``leaves`` ash goes.
    """

    link: FakeLink
    by_round: tuple[int, ...]
    of_ash: int
    scored: dict[str, list[int]] = field(default_factory=lambda: {site: [] for site in CLASSES})
    states: list[bytes] = field(default_factory=list)
    leaves: Callable[[Message, list[int]], bool] = lambda message, scored: message.words.get("round") == 3

    def __post_init__(self) -> None:
        for site in CLASSES:
            self.link.handles[site] = self.answering(site, self.link.handles[site])

    def answering(self, site: str, usual: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def answer(content: bytes) -> bytes:
            message = unpack(content, source="test")
            if self.leaves(message, self.scored["cedar"]):
                self.link.since.pop("ash", None)
            if message.kind == "enter":  # With as many held-out images as its histograms are of.
                entered = unpack(usual(content), source="test")
                return pack(replace(entered, words={**entered.words, "held_out_images": 10_000}))
            if message.words.get("split") != "held_out":
                return usual(content)
            state = b"".join(tensor.numpy().tobytes() for _, tensor in sorted(message.tensors.items()))
            if state not in self.states:
                self.states.append(state)
            number = self.states.index(state)
            self.scored[site].append(number + 1)
            found = histograms(self.of_ash, images=100) if site == "ash" else histograms(self.by_round[number])
            return pack(Message("scores", {}, {"histograms": found}))

        return answer


def sites(plan: Plan, data: Path, folder: Path) -> FakeLink:
    return FakeLink.of(
        {site: site_handle(plan, site, data / site, kit=folder / site, cache=folder / "cache") for site in CLASSES}
    )


def run(plan: Plan, link: FakeLink, folder: Path) -> dict[str, Any]:
    (folder / "coordinator").mkdir(exist_ok=True)
    options = Options(cache=folder / "cache", show_progress=False)
    return run_federation(
        plan, link, folder=folder / "coordinator", options=options, watcher=Watcher(), note=lambda text: None
    )


def lines_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "coordinator" / "run" / "rounds.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("of_ash", "by_round", "kept", "scored"),
    [
        # With easy images gone, later rounds look worse than they are. Round 3 is best when round 4 comes.
        (10, (2, 3, 4, 5), 4, [1, 2, 3, 2, 4]),
        # With hard images gone, later rounds look better than they are.
        (0, (5, 4, 3, 2), 1, [1, 2, 3, 1, 4]),
    ],
    ids=["easy", "hard"],
)
def test_rounds_are_compared_on_the_images_of_the_same_sites(
    plan: Plan, data: Path, tmp_path: Path, of_ash: int, by_round: tuple[int, ...], kept: int, scored: list[int]
) -> None:
    held_out = HeldOut(sites(plan, data, tmp_path), by_round, of_ash)
    results = run(plan, held_out.link, tmp_path)
    lines = lines_of(tmp_path)
    assert [line.get("scored_by") for line in lines] == [None, None, OTHERS, OTHERS]
    naive = max(lines, key=lambda line: line["held_out_mAP"])["round"]
    assert naive != kept == results["kept_round"]
    assert held_out.scored == {"ash": [1, 2], "birch": scored, "cedar": scored}


def test_a_site_that_goes_while_the_best_round_is_scored_anew_counts_for_neither(
    plan: Plan, data: Path, tmp_path: Path
) -> None:
    """birch leaves before round 3, and ash when round 2 is asked for once more: cedar alone can compare."""
    link = sites(plan, data, tmp_path)
    held_out = HeldOut(link, (2, 3, 4, 5), 10, leaves=lambda message, scored: scored == [1, 2, 3])
    usual = link.handles["cedar"]

    def goes(content: bytes) -> bytes:
        if unpack(content, source="test").words.get("round") == 3:
            link.since.pop("birch", None)
        return usual(content)

    link.handles["cedar"] = goes
    plan = replace(plan, rules=replace(plan.rules, min_sites=1))
    results = run(plan, link, tmp_path)
    assert held_out.scored["cedar"] == [1, 2, 3, 2, 4]
    assert results["kept_round"] == 4
    found = [line["held_out_mAP"] for line in lines_of(tmp_path)]
    assert found[2:] == [mean_average_precision(histograms(number)) for number in (4, 5)], "of cedar alone"


def test_no_round_is_scored_anew_where_the_last_one_is_kept(plan: Plan, data: Path, tmp_path: Path) -> None:
    federation = replace(plan.run.federation, keep="last")
    plan = replace(plan, run=replace(plan.run, federation=federation))
    held_out = HeldOut(sites(plan, data, tmp_path), (2, 3, 4, 5), 10)
    assert run(plan, held_out.link, tmp_path)["kept_round"] == 4
    assert held_out.scored == {"ash": [1, 2], "birch": [1, 2, 3, 4], "cedar": [1, 2, 3, 4]}


def test_a_coordinator_that_starts_again_scores_the_best_round_once_more(
    plan: Plan, data: Path, tmp_path: Path
) -> None:
    def stops(message: Message, scored: list[int]) -> bool:
        if message.words.get("round") == 3 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        return False

    stopped: list[bool] = []
    held_out = HeldOut(sites(plan, data, tmp_path), (2, 5, 4, 3), 0, leaves=stops)
    with pytest.raises(KeyboardInterrupt):
        run(plan, held_out.link, tmp_path)
    folder = tmp_path / "coordinator" / "run" / "checkpoint"
    before = load_checkpoint(folder).progress.best
    results = run(plan, held_out.link, tmp_path)
    assert held_out.scored["ash"] == [1, 2, 3, 2, 4]
    after = load_checkpoint(folder).progress.best
    assert before is not None
    assert after is not None
    assert (after.index, after.mAP) == (before.index, before.mAP) == (results["kept_round"], before.mAP)
    assert not any("scored_by" in line for line in lines_of(tmp_path))
