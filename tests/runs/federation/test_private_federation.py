"""Noise between machines: nobody can draw it again, the server's or the sites', and a site sends one update once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites
from torch import Tensor

from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.federated.flare.messages import unpack
from fedmpt.federated.privacy import Privacy, gaussian_epsilon
from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import preset
from fedmpt.runs.federation.plan import Plan
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.run import Watcher

CLIP = 0.01
ROUNDS = 2
Sent = dict[tuple[str, int], list[Mapping[str, Tensor]]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("private")
    write_sites(root / "data")
    return root


def plan(backbone: Path, privacy: Privacy) -> Plan:
    config = replace(
        preset("default", "promptfl", "sites"),
        backbone=str(backbone),
        federation=Federation(rounds=ROUNDS, learning_rate=1e-5),  # So that what differs is noise.
        aggregation=Aggregation(clip_norm=CLIP),
        privacy=privacy,
    )
    return plan_of(config)


def run(
    place: Path, made: Plan, folder: Path, *, lost: int = 0, killed: int = 0
) -> tuple[Tensor, dict[str, Any], Sent]:
    """The context in the end, the results, and what every site sent in each round. The first ``lost`` updates of ash
    and cedar get lost on their way; a kill comes where the sites score the round ``killed``."""
    handles = {
        site: site_handle(made, site, place / "data" / site, kit=folder / "sites" / site, cache=place / "cache")
        for site in CLASSES
    }
    link, sent = FakeLink.of(handles), Sent()
    for site in CLASSES:

        def seen(kind: str, index: int, answer: bytes, site: str = site) -> bytes | str:
            if kind == "score" and (site, killed) in sent:
                raise KeyboardInterrupt
            if kind != "train":
                return answer
            sent.setdefault((site, index), []).append(unpack(answer, source="test").tensors)
            return "no answer" if site != "birch" and len(sent[site, index]) <= lost and index == 1 else answer

        link.faults[site] = seen
    (folder / "coordinator").mkdir(parents=True, exist_ok=True)
    options = Options(cache=place / "cache", show_progress=False)
    results = run_federation(
        made, link, folder=folder / "coordinator", options=options, watcher=Watcher(), note=lambda text: None
    )
    state = load_checkpoint(folder / "coordinator/run/checkpoint").progress.state
    return state["context"], results, sent


def test_the_servers_noise_cannot_be_drawn_again(place: Path, tiny_clip_folder: Path, tmp_path: Path) -> None:
    private = plan(tiny_clip_folder, Privacy(dp_noise=2.0))
    one, results, _ = run(place, private, tmp_path / "one")
    other, _, _ = run(place, private, tmp_path / "other")
    # Two rounds of noise 2 * 0.01 / 3 on each of two runs.
    assert (one - other).std().item() == pytest.approx(2 * 2 * CLIP / 3, rel=0.2)
    lines = [json.loads(line) for line in (tmp_path / "one/coordinator/run/rounds.jsonl").read_text().splitlines()]
    expected = [gaussian_epsilon(2.0, rounds=index, delta=1e-5) for index in (1, 2)]
    assert [line["epsilon"] for line in lines] == expected
    assert results["privacy"]["epsilon"] == expected[-1]
    assert any("loss, numbers of images" in note for note in results["notes"])
    assert not any("simulates" in note for note in results["notes"])


def test_sites_send_noised_updates_and_each_of_them_once(place: Path, tiny_clip_folder: Path, tmp_path: Path) -> None:
    noised = plan(tiny_clip_folder, Privacy(dp_noise=2.0, dp_at="sites"))
    _, results, sent = run(place, noised, tmp_path, lost=1)
    contexts = []
    for number, site in enumerate(sorted(CLASSES)):
        first, *again = sent[site, 1]
        assert len(again) == len(sent[site, 2]) == 1
        assert all(torch.equal(tensor, again[0][name]) for name, tensor in first.items())
        contexts.append(first[f"state/{number}/context"])
    # With at least two sites in a round, each adds 2 * 0.01 / sqrt(2).
    expected = gaussian_epsilon(2.0 / math.sqrt(2), rounds=2, delta=1e-5)
    assert results["privacy"]["epsilon_server"] == expected
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (contexts[one] - contexts[other]).std().item() == pytest.approx(2 * CLIP, rel=0.2)


def test_a_noised_state_that_was_scored_counts_even_if_its_round_is_not_stored(
    place: Path, tiny_clip_folder: Path, tmp_path: Path
) -> None:
    """Killed twice while the sites score: in round 1, before there is a checkpoint, and in round 2."""
    budget = Privacy(dp_noise=2.0).epsilon(4)
    made = plan(tiny_clip_folder, Privacy(dp_noise=2.0, dp_budget=budget))
    made = replace(made, run=replace(made.run, federation=replace(made.run.federation, rounds=9, eval_every=1)))
    for killed in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(place, made, tmp_path, killed=killed)
    _, results, _ = run(place, made, tmp_path)
    # Noise was drawn twice for round 1, and twice for round 2; a third round's would be the fifth.
    lines = [json.loads(line) for line in (tmp_path / "coordinator/run/rounds.jsonl").read_text().splitlines()]
    expected = [gaussian_epsilon(2.0, rounds=drawn, delta=1e-5) for drawn in (2, 4)]
    assert [line["epsilon"] for line in lines] == expected
    assert results["privacy"]["epsilon"] == expected[-1]
    assert any("ended the training after 2 of 9 rounds" in note for note in results["notes"])
