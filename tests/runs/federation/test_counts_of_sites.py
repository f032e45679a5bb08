"""The sites' counts of labels: they are sent while they are needed, and stay as the run began with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation_bed import CLASSES, Place

from fedmpt.conditions.labels.counts import read_counts
from fedmpt.evaluation.final import Prediction
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.flare.messages import unpack
from fedmpt.runs import run as runs
from fedmpt.runs.federation import membership


@pytest.fixture
def place(tmp_path: Path, tiny_clip_folder: Path) -> Place:
    """Two rounds with balanced labels, and soft ties in the end."""
    place = Place(tmp_path, tiny_clip_folder)
    run = place.plan.run
    run = replace(run, training=replace(run.training, balance=True), federation=replace(run.federation, rounds=2))
    run = replace(run, prediction=Prediction(soft_ties=1.0))
    place.plan = replace(place.plan, run=run, class_names=("cat", "cup", "dog", "table"))
    return place


def test_counts_of_labels_leave_a_site_where_they_are_still_needed(place: Place) -> None:
    """Not where a site comes later, nor where the run goes on."""
    link, entered = place.link(), list[tuple[str, bool]]()

    def seen(site: str) -> Callable[[str, int, bytes], bytes]:
        def look(kind: str, index: int, answer: bytes) -> bytes:
            if kind == "enter":
                entered.append((site, bool(unpack(answer, source="test").tensors)))
            if kind == "train" and index == 1:
                link.since["cedar"] = 2.0
            if kind == "train" and index == 2 and "cedar" in link.since and not is_again:
                raise KeyboardInterrupt
            return answer

        return look

    link.faults = {site: seen(site) for site in CLASSES}
    del link.since["cedar"]
    is_again = False
    with pytest.raises(KeyboardInterrupt):
        place.run(link)
    assert sorted(entered) == [("ash", True), ("birch", True), ("cedar", False)]
    entered.clear()
    is_again = True
    place.run(link)
    assert sorted(entered) == [("ash", False), ("birch", False), ("cedar", False)]


def test_a_run_begins_with_sites_that_know_the_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are lost when the sums come to them, and enter again."""
    monkeypatch.setattr(membership, "RETRY", 0.0)
    monkeypatch.setattr(membership, "POLL", 0.01)
    link, lost = place.link(), set[str]()

    def goes(site: str) -> Callable[[str, int, bytes], bytes | str]:
        def answer(kind: str, index: int, answer: bytes) -> bytes | str:
            if kind != "counts" or site in lost:
                return answer
            lost.add(site)
            return "no answer"

        return answer

    link.faults = {site: goes(site) for site in CLASSES}
    place.run(link)
    assert lost == set(CLASSES)


def test_a_site_that_keeps_its_counts_comes_in_once_those_of_the_others_are_summed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "RETRY", 0.0)
    (place.root / "birch").mkdir()
    (place.root / "birch" / "policy.json").write_text('{"send_counts": false}')
    said = "\n".join(place.run(place.link()))
    assert "birch waits outside: it keeps its counts of labels to itself (send_counts in its policy.json), so" in said
    assert said.endswith("site birch takes part")
    counts = read_counts(place.root / "coordinator" / "run" / "checkpoint" / "counts.json").counts
    assert counts.num_images == 2 * 8
    assert sum("trained" in line for line in place.heard["birch"]) == 2


def killed(monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> None:
    """The coordinator's process ends when it stores its first checkpoint, before that or just after."""

    def save(*words: Any) -> None:
        if stored:
            save_checkpoint(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save_checkpoint", save)


@pytest.mark.parametrize("stored", [True, False])
def test_a_run_goes_on_with_the_counts_of_its_checkpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """Where the first round is stored, these are the counts that it was trained with; else those of a new beginning."""
    folder, link = place.root / "coordinator" / "run" / "checkpoint", place.link()
    killed(monkeypatch, stored=stored)
    with pytest.raises(KeyboardInterrupt):
        place.run(link)
    monkeypatch.undo()
    del link.since["cedar"]
    place.run(link)
    assert load_checkpoint(folder).progress.rounds_done == 2
    images = read_counts(folder / "counts.json").counts.num_images
    assert images == 3 * 8 if stored else images == 2 * 8
    delivered = read_counts(place.root / "ash" / "model" / "counts.json")
    assert delivered.counts.num_images == images


def test_a_sites_model_has_the_counts_of_its_own_run(place: Place) -> None:
    place.run(link := place.link())
    (place.root / "coordinator").rename(place.root / "earlier")
    del link.since["cedar"]
    place.run(link)
    assert read_counts(place.root / "ash" / "model" / "counts.json").counts.num_images == 2 * 8
