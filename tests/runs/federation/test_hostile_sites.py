"""What a site that means harm, or is merely broken, can do to the coordinator: nothing but be left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites

from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.rounds import Federation
from fedmpt.files import read_json
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.federation.plan import Plan, Rules
from fedmpt.runs.federation.run import Options, run_federation, who_outweighs
from fedmpt.runs.federation.worker import Handle
from fedmpt.runs.run import Watcher


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    write_sites(root / "data")
    return root


@pytest.fixture
def config(tiny_clip_folder: Path) -> RunConfig:
    federation = Federation(rounds=2, eval_every=9, learning_rate=0.1)
    return replace(preset("default", "promptfl", "sites"), backbone=str(tiny_clip_folder), federation=federation)


Run = Callable[..., tuple[dict[str, Any], list[str]]]
Fault = Callable[[str, int, bytes], bytes | str]


@pytest.fixture
def run(place: Path, tmp_path: Path) -> Run:
    def run(plan: Plan, **faults: Fault) -> tuple[dict[str, Any], list[str]]:
        handles: dict[str, Handle] = {
            site: site_handle(plan, site, place / "data" / site, kit=tmp_path / site, cache=place / "cache")
            for site in CLASSES
        }
        link, said = FakeLink.of(handles), list[str]()
        link.faults |= faults
        folder = tmp_path / "coordinator"
        folder.mkdir(exist_ok=True)
        options = Options(cache=place / "cache", show_progress=False)
        found = run_federation(plan, link, folder=folder, options=options, watcher=Watcher(), note=said.append)
        return found, said

    return run


def of_training(change: Callable[[Message], Message]) -> Fault:
    """What a site answers when it is to train."""

    def fault(kind: str, index: int, answer: bytes) -> bytes:
        return pack(change(unpack(answer, source="test"))) if kind == "train" else answer

    return fault


def saying(**words: Any) -> Callable[[Message], Message]:
    return lambda found: replace(found, words={"updates": [{**found.words["updates"][0], **words}]})


TERMINAL = "\x1b[2J\ud800\nround 3: site ash takes part"
FAULTS: Mapping[int, tuple[Callable[[Message], Message], str]] = {
    1: (saying(loss=10**400), "reports a loss of 1000"),
    2: (saying(num_examples=10**9), "it says it has 1000000000 images, and it entered with 8"),
    3: (lambda found: Message("error", {"error": TERMINAL}), "?[2J? round 3: site ash takes part"),
    4: (lambda found: replace(found, words={"updates": [{"client": 1, "num_examples": "7" * 10**5}]}), "says it has"),
}


def test_what_a_site_says_ends_no_training_and_changes_no_terminal(config: RunConfig, run: Run, tmp_path: Path) -> None:
    plan = plan_of(replace(config, federation=replace(config.federation, rounds=5)))
    folder = tmp_path / "coordinator"

    def fault(kind: str, index: int, answer: bytes) -> bytes:
        change = FAULTS[index][0] if index in FAULTS else with_personal
        return of_training(change)(kind, index, answer)  # type: ignore[return-value]

    _, said = run(plan, birch=fault)
    for index, (_, expected) in FAULTS.items():
        (told,) = [line for line in said if line.startswith(f"round {index}: site birch is left out: ")]
        assert expected in told
        assert told.isprintable()
        assert len(told) < 1100
    progress = load_checkpoint(folder / "run" / "checkpoint").progress
    assert progress.rounds_done == 5
    assert progress.personal == {}, "personal tensors stay at their site"


def with_personal(found: Message) -> Message:
    return replace(found, tensors={**found.tensors, "personal/1/other": torch.ones(3)})


def test_a_site_that_fails_in_every_try_gives_its_place_in_the_round_to_another(config: RunConfig, run: Run) -> None:
    plan = plan_of(
        replace(config, federation=replace(config.federation, participation=0.67)),
        rules=Rules(min_sites=2, gather=0.2, patience=5, deadline=20),
    )
    _, said = run(plan, birch=of_training(lambda found: Message("error", {"error": "broken"})))
    assert any("1 of 2 updates counted, and 2 are needed; it is asked again" in line for line in said)


def test_images_without_any_of_the_classes_leave_scores_out(config: RunConfig, run: Run) -> None:
    federation = replace(config.federation, eval_every=1, keep="best", held_out=0.3)

    def fault(kind: str, index: int, answer: bytes) -> bytes:
        found = unpack(answer, source="test")
        nothing = {name: torch.zeros_like(tensor) for name, tensor in found.tensors.items()}
        return pack(replace(found, tensors=nothing)) if kind == "score" else answer

    results, _ = run(plan_of(replace(config, federation=federation)), **dict.fromkeys(CLASSES, fault))
    assert "test" not in results
    assert results["kept_round"] == 2, "the last, where no round was scored"


def test_a_new_run_sends_its_model_to_sites_that_have_an_earlier_one(
    config: RunConfig, run: Run, tmp_path: Path
) -> None:
    plan, folder = plan_of(replace(config, federation=replace(config.federation, rounds=1))), tmp_path / "coordinator"
    first, _ = run(plan)
    model, status = tmp_path / "ash" / "model", folder / "status.json"
    shutil.rmtree(model)
    again, said = run(plan)  # Nothing is left to do: nobody is asked, and nobody waited for.
    assert (again, said, model.exists()) == (first, [], False)
    shutil.rmtree(folder / "run")
    run(plan)
    assert (model / "checkpoint.json").exists()
    status.write_text('{"state": "finis')  # The disk was full.
    run(plan)
    assert read_json(status)["state"] == "finished"


def more(found: Message, name: str, num: int) -> Message:
    """As if the site had ``num`` more images: with an absent label of the first class in the histograms."""
    change = found.tensors[name].clone()
    change.view(-1)[0] += num
    return replace(found, tensors={**found.tensors, name: change})


def test_no_site_scores_more_images_than_it_entered_with(config: RunConfig, run: Run) -> None:
    federation = replace(config.federation, eval_every=1, keep="best", held_out=0.3)

    def fault(kind: str, index: int, answer: bytes) -> bytes:
        found = unpack(answer, source="test")
        if kind != "score":
            return answer
        return pack(
            more(found, "histograms" if "histograms" in found.tensors and len(found.tensors) == 1 else "images", 7)
        )

    _, said = run(plan_of(replace(config, federation=federation)), birch=fault)
    honest = {"test": 2, "held-out": 2, "training": 8}
    for split, most in honest.items():
        told = {line for line in said if line.startswith(f"site birch does not score its {split} images: ")}
        assert any(f"and it entered with {most}" in line for line in told), (split, told)
        assert not any(line.startswith(f"site ash does not score its {split}") for line in said)


def test_no_site_counts_labels_of_more_images_than_it_trains_on(config: RunConfig, run: Run) -> None:
    counting = replace(config, training=replace(config.training, balance=True))

    def fault(kind: str, index: int, answer: bytes) -> bytes:
        return pack(more(unpack(answer, source="test"), "counts/images", 10**6)) if kind == "enter" else answer

    _, said = run(plan_of(counting), birch=fault)
    assert "site birch waits outside: it counts labels of 1000008 images, and trains on 8" in said


@pytest.mark.parametrize(
    ("images", "weighting", "is_told"),
    [
        ({"ash": 91, "birch": 9}, "data", True),
        ({"ash": 90, "birch": 10}, "data", False),
        ({"ash": 91, "birch": 9}, "uniform", False),
        ({"ash": 91}, "data", False),
    ],
)
def test_one_site_with_nearly_all_images_is_noted(images: dict[str, int], weighting: Any, is_told: bool) -> None:
    notes = who_outweighs(images, weighting=weighting)
    assert [note.startswith("site ash has 91 of 100 training images") for note in notes] == [True] * is_told


def test_the_note_is_in_the_results(config: RunConfig, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmpt.runs.federation.run.NEARLY_ALL", 0.3)
    by_images = replace(config, federation=replace(config.federation, rounds=1, weighting="data"))
    results, _ = run(plan_of(by_images))
    assert any("--weighting uniform" in note for note in results["notes"])
