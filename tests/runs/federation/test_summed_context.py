"""Context shift where nobody has all images: the same between machines and in one process, around the exact scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites

from fedmpt.evaluation.final import Prediction
from fedmpt.evaluation.histograms import NUM_BINS
from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.run import Watcher, train
from fedmpt.runs.summed import WITHOUT_COUNTS

NAMES, IMAGES = ("cat", "chair", "dog"), 90
MEASURED = ("exclusive", "cooccurring", "false_coactivation", "false_coactivation_balanced")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sites whose images show a cat on most chairs, and a dog anywhere."""
    root = tmp_path_factory.mktemp("context")
    write_sites(root / "data", images=IMAGES)
    draw = np.random.default_rng(0)
    for site in CLASSES:
        lines = ["image,cat,chair,dog,split"]
        for number in range(IMAGES):
            cat, dog = draw.random(2) < 0.4
            chair = draw.random() < (0.75 if cat else 0.25)
            lines.append(f"{number}.png,{cat:d},{chair:d},{dog:d},{'test' if number % 3 == 2 else 'train'}")
        (root / "data" / site / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def config(place: Path, tiny_clip_folder: Path) -> RunConfig:
    federation = Federation(rounds=1, learning_rate=0.1, scoring="summed")
    prediction = Prediction(soft_ties=0.5)
    return replace(
        preset("default", "promptfl", f"clients:{place / 'data'}"),
        backbone=str(tiny_clip_folder),
        federation=federation,
        prediction=prediction,
    )


def in_one_process(config: RunConfig, place: Path, out: Path) -> dict[str, Any]:
    return train(config, out=out, cache=place / "cache", show_progress=False)


def sites(config: RunConfig, place: Path, folder: Path) -> FakeLink:
    plan = plan_of(replace(config, data="sites"))
    return FakeLink.of(
        {
            site: site_handle(plan, site, place / "data" / site, kit=folder / site, cache=place / "cache")
            for site in CLASSES
        }
    )


def between_machines(config: RunConfig, place: Path, folder: Path, link: FakeLink) -> dict[str, Any]:
    folder = folder / "coordinator"
    folder.mkdir()
    options = Options(cache=place / "cache", show_progress=False)
    plan = plan_of(replace(config, data="sites"))
    return run_federation(plan, link, folder=folder, options=options, watcher=Watcher(), note=lambda text: None)


def recorded(link: FakeLink, site: str) -> list[tuple[Message, Message]]:
    """What ``site`` is asked from now on, with its answers."""
    found: list[tuple[Message, Message]] = []
    answering = link.handles[site]

    def handle(content: bytes) -> bytes:
        answer = answering(content)
        found.append((unpack(content, source="test"), unpack(answer, source="test")))
        return answer

    link.handles[site] = handle
    return found


def test_context_shift_is_the_same_between_machines_and_around_the_exact_one(
    config: RunConfig, place: Path, tmp_path: Path
) -> None:
    one = in_one_process(config, place, tmp_path / "one")["context_shift"]
    many = between_machines(config, place, tmp_path, sites(config, place, tmp_path))
    pooled_config = replace(config, federation=replace(config.federation, scoring="pooled"))
    pooled = in_one_process(pooled_config, place, tmp_path / "pooled")["context_shift"]
    assert list(one["per_pair"]) == ["cat -> chair"]
    assert many["context_shift"] == one
    assert WITHOUT_COUNTS not in many["notes"]
    assert one.keys() == {*pooled, "bounds"}
    for name in ("num_biased", "num_measurable"):
        assert one[name] == pooled[name]
    for name, value in pooled["per_pair"]["cat -> chair"].items():
        if name not in MEASURED:
            assert one["per_pair"]["cat -> chair"][name] == value, name
    for name in MEASURED:
        low, high = one["bounds"][name]
        assert low - 1e-9 <= pooled[name] <= high + 1e-9
        assert high - low < 30


def test_pairs_whose_tie_was_cut_are_those_of_the_data(config: RunConfig, place: Path, tmp_path: Path) -> None:
    cut = replace(config, data=f"{config.data},ties=0.5,ties_pairs=cat:chair", prediction=Prediction())
    one = in_one_process(cut, place, tmp_path / "one")
    pooled_config = replace(cut, federation=replace(cut.federation, scoring="pooled"))
    pooled = in_one_process(pooled_config, place, tmp_path / "pooled")
    assert WITHOUT_COUNTS not in one["notes"], "nobody has to count labels where the data name the pairs"
    assert list(one["context_shift"]["per_pair"]) == list(pooled["context_shift"]["per_pair"]) == ["cat -> chair"]
    assert one["context_shift"]["num_measurable"] == pooled["context_shift"]["num_measurable"]


def test_without_counts_of_labels_a_note_says_why_there_is_none(config: RunConfig, place: Path, tmp_path: Path) -> None:
    config = replace(config, prediction=Prediction())
    one = in_one_process(config, place, tmp_path / "one")
    link = sites(config, place, tmp_path)
    heard, ash = recorded(link, "ash"), link.handles["ash"]
    many = between_machines(config, place, tmp_path, link)
    for found in (one, many):
        assert "context_shift" not in found
        assert WITHOUT_COUNTS in found["notes"]
    asked = [message for message, _ in heard if message.words.get("split") == "test"][-1]
    answer = unpack(ash(pack(replace(asked, words={**asked.words, "pairs": [[0, 1]]}))), source="test")
    assert answer.tensors["images"] > 0
    assert answer.tensors["contexts"].sum() == 0, "who asks all the same learns nothing"


def test_pairs_are_asked_for_once_and_a_site_that_keeps_its_counts_tells_none(
    config: RunConfig, place: Path, tmp_path: Path
) -> None:
    """birch comes when the others' counts are summed, so that it can take part."""
    (tmp_path / "birch").mkdir()
    (tmp_path / "birch" / "policy.json").write_text('{"send_counts": false}')
    config = replace(config, federation=replace(config.federation, rounds=2, eval_every=1))
    link = sites(config, place, tmp_path)
    link.since.pop("birch")
    heard = {site: recorded(link, site) for site in ("ash", "birch")}

    def arrives(kind: str, index: int, answer: bytes) -> bytes:
        if kind == "train":
            link.since["birch"] = 2.0
        return answer

    link.faults["ash"] = arrives
    found = between_machines(config, place, tmp_path, link)
    contexts = {}
    for site, messages in heard.items():
        scored = [(asked, told) for asked, told in messages if asked.words.get("split") == "test"]
        assert [bool(asked.words["pairs"]) for asked, _ in scored] == [False] * (len(scored) - 1) + [True]
        contexts[site] = scored[-1][1].tensors["contexts"]
    assert contexts["ash"].shape == contexts["birch"].shape == (1, 3, NUM_BINS)
    assert contexts["ash"].sum() > 0
    assert contexts["birch"].sum() == 0
    (pair,) = found["context_shift"]["per_pair"].values()
    tables = [(place / "data" / site / "labels.csv").read_text().split() for site in ("ash", "cedar")]
    rows = [line.split(",") for table in tables for line in table]
    assert pair["num_cooccurring"] == sum(row[1:3] == ["1", "1"] and row[4] == "test" for row in rows)


WRONG: Mapping[str, Any] = {
    "no list": "cat",
    "no pairs": [1, 2],
    "a class with itself": [[1, 1]],
    "a class that is none": [[0, 3]],
    "below zero": [[0, -1]],
    "half a class": [[0, 0.5]],
    "three classes": [[0, 1, 2]],
    "too many": [[0, 1]] * 31,
}


@pytest.mark.parametrize("pairs", WRONG.values(), ids=WRONG)
def test_a_site_refuses_pairs_that_are_none(config: RunConfig, place: Path, tmp_path: Path, pairs: Any) -> None:
    ash = sites(config, place, tmp_path).handles["ash"]
    enter = Message("enter", {"class_names": list(NAMES), "rounds_done": 0})
    assert unpack(ash(pack(enter)), source="test").kind == "entered"
    message = Message("score", {"split": "test", "soft_ties": 0, "personal": 0, "pairs": pairs})
    answer = unpack(ash(pack(message)), source="test")
    assert answer.kind == "error"
    assert "the coordinator asks for " in answer.words["error"]


def test_contexts_that_cannot_be_leave_the_site_out(config: RunConfig, place: Path, tmp_path: Path) -> None:
    link = sites(config, place, tmp_path)

    def fault(kind: str, index: int, answer: bytes) -> bytes:
        found = unpack(answer, source="test")
        more = {name: tensor + 9 for name, tensor in found.tensors.items() if name == "contexts"}
        return pack(replace(found, tensors={**found.tensors, **more}))

    link.faults["cedar"] = fault
    found = between_machines(config, place, tmp_path, link)
    assert [site["name"] for site in found["sites"]] == ["ash", "birch"]
    assert found["context_shift"]["per_pair"].keys() == {"cat -> chair"}
