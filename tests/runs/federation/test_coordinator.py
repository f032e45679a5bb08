"""A federation of sites against the same run in one process; no processes, no engine: messages only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_bed import CLASSES, FakeLink, plan_of, site_handle, write_sites

from fedmpt.evaluation.final import Prediction
from fedmpt.federated.checkpoint import load_checkpoint
from fedmpt.federated.flare.messages import Message, pack, unpack
from fedmpt.federated.rounds import Federation
from fedmpt.runs.config import RunConfig, preset
from fedmpt.runs.federation.plan import Plan, Rules
from fedmpt.runs.federation.run import Options, run_federation
from fedmpt.runs.run import Watcher, train
from fedmpt.types import InputError


@dataclass
class Bed:
    data: Path
    backbone: Path
    cache: Path

    def config(self, method: str, **options: Any) -> RunConfig:
        federation = Federation(rounds=3, eval_every=2, learning_rate=0.1, **options)
        return replace(
            preset("default", method, f"clients:{self.data}"), backbone=str(self.backbone), federation=federation
        )

    def link(self, plan: Plan, folder: Path) -> FakeLink:
        return FakeLink.of(
            {
                site: site_handle(plan, site, self.data / site, kit=folder / "sites" / site, cache=self.cache)
                for site in CLASSES
            }
        )

    def run(self, plan: Plan, link: FakeLink, folder: Path) -> tuple[dict[str, Any], list[str]]:
        said: list[str] = []
        (folder / "coordinator").mkdir(parents=True, exist_ok=True)
        options = Options(cache=self.cache, show_progress=False)
        results = run_federation(
            plan, link, folder=folder / "coordinator", options=options, watcher=Watcher(), note=said.append
        )
        return results, said


@pytest.fixture(scope="module")
def bed(tiny_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bed:
    root = tmp_path_factory.mktemp("federation")
    return Bed(write_sites(root / "data"), tiny_clip_folder, root / "cache")


def state_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "checkpoint").glob("state-*.safetensors")}


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def sites_plan(config: RunConfig, **options: Any) -> Plan:
    return plan_of(replace(config, data="sites"), **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("promptfl", {}),
        ("fedmpt", {}),
        ("fedpgp", {}),
        ("promptfl", {"wire": "float16"}),
        ("fedotp", {"keep": "best", "held_out": 0.3}),
        ("promptfl", {"participation": 0.67}),
    ],
)
def test_a_federation_ends_with_the_same_bytes_as_one_process(
    bed: Bed, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    config = bed.config(method, **options)
    train(config, out=tmp_path / "one", cache=bed.cache, show_progress=False)
    plan = sites_plan(config)
    bed.run(plan, bed.link(plan, tmp_path), tmp_path)
    one, many = tmp_path / "one", tmp_path / "coordinator" / "run"
    assert state_files(one) == state_files(many) != {}
    for mine, theirs in zip(rounds_of(one), rounds_of(many), strict=True):
        assert (mine["clients"], mine["loss"]) == (theirs["clients"], theirs["loss"])
    assert (one / "checkpoint/calibration.json").read_text() == (many / "checkpoint/calibration.json").read_text()


@pytest.fixture
def small(bed: Bed) -> Plan:
    return sites_plan(bed.config("promptfl"))


def changed(message: Message, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Message:
    return Message(message.kind, message.words, {name: change(name, one) for name, one in message.tensors.items()})


FAULTS: Mapping[str, tuple[Callable[[Message], Message | bytes | str], str]] = {
    "not a number": (lambda m: changed(m, lambda _, t: t * float("nan")), "not finite"),
    "wrong shape": (lambda m: changed(m, lambda _, t: torch.stack([t, t])), "has shape"),
    "another number format": (lambda m: changed(m, lambda _, t: t.double()), "float64"),
    "another tensor": (lambda m: Message(m.kind, m.words, {"state/1/other": torch.zeros(2)}), "missing"),
    "a million times too long": (lambda m: changed(m, lambda _, t: t * 1e6), "far beyond"),
    "no message": (lambda m: b"hello", "no message"),
    "too large": (lambda m: Message(m.kind, m.words, {"x": torch.zeros(3_000_000)}), "bytes, more than"),
    "for another client": (
        lambda m: Message(m.kind, {"updates": [{**m.words["updates"][0], "client": 0}]}, m.tensors),
        "does not answer for the clients",
    ),
    "a loss of infinity": (
        lambda m: Message(m.kind, {"updates": [{**m.words["updates"][0], "loss": "inf"}]}, m.tensors),
        "loss of 'inf'",
    ),
    "images below zero": (
        lambda m: Message(m.kind, {"updates": [{**m.words["updates"][0], "num_examples": -5}]}, m.tensors),
        "-5 images",
    ),
    "late": (lambda m: "no answer within 20 s", "no answer within"),
}


def test_a_bad_update_leaves_out_its_site_for_that_round(bed: Bed, tmp_path: Path) -> None:
    """A fault a round, in one training, which goes on as if the site had been away in those rounds."""
    rounds = dict(enumerate(FAULTS, start=2))
    config = bed.config("promptfl")
    plan = sites_plan(replace(config, federation=replace(config.federation, rounds=len(rounds) + 2, eval_every=99)))
    link = bed.link(plan, tmp_path)

    def fault(kind: str, index: int, answer: bytes) -> bytes | str:
        if kind != "train" or index not in rounds:
            return answer
        found = FAULTS[rounds[index]][0](unpack(answer, source="test"))
        return pack(found) if isinstance(found, Message) else found

    link.faults["birch"] = fault
    _, said = bed.run(plan, link, tmp_path)
    lines = rounds_of(tmp_path / "coordinator/run")
    assert [line["clients"] for line in lines] == [
        [0, 2] if index in rounds else [0, 1, 2] for index in range(1, len(lines) + 1)
    ]
    for index, name in rounds.items():
        (told,) = [line for line in said if line.startswith(f"round {index}: site birch is left out: ")]
        assert FAULTS[name][1] in told


def test_a_round_with_too_few_updates_is_asked_again(bed: Bed, small: Plan, tmp_path: Path) -> None:
    link, lost = bed.link(small, tmp_path), [("ash", 2), ("cedar", 2), ("ash", 3), ("cedar", 3)]
    for site in ("ash", "cedar"):

        def once(kind: str, index: int, answer: bytes, site: str = site) -> bytes | str:
            if kind == "train" and (site, index) in lost:
                lost.remove((site, index))
                return "no answer"
            return answer

        link.faults[site] = once
    whole, _ = bed.run(small, bed.link(small, tmp_path / "whole"), tmp_path / "whole")
    results, said = bed.run(small, link, tmp_path)
    again = [line for line in said if "asked again" in line]
    what = "1 of 3 updates counted, and 2 are needed; it is asked again in 1 s"
    assert again == [f"round 2: {what}", f"round 3: {what}"], "the second pause is no longer: a round was complete"
    assert results["test"] == whole["test"]
    assert state_files(tmp_path / "coordinator/run") == state_files(tmp_path / "whole/coordinator/run")


def test_a_stopped_coordinator_goes_on_to_the_same_bytes(bed: Bed, tmp_path: Path) -> None:
    """Also where the sites have trained the round that the coordinator did not store: their tensors are of a round."""
    plan = sites_plan(bed.config("fedpgp"))
    bed.run(plan, bed.link(plan, tmp_path / "whole"), tmp_path / "whole")
    link = bed.link(plan, tmp_path)

    def stop(kind: str, index: int, answer: bytes) -> bytes:
        if kind == "train" and index == 2:
            raise KeyboardInterrupt
        return answer

    link.faults["ash"] = stop  # The last of the three to answer: the others have trained by then.
    with pytest.raises(KeyboardInterrupt):
        bed.run(plan, link, tmp_path)
    assert load_checkpoint(tmp_path / "coordinator/run/checkpoint").progress.rounds_done == 1
    bed.run(plan, bed.link(plan, tmp_path), tmp_path)
    assert state_files(tmp_path / "coordinator/run") == state_files(tmp_path / "whole/coordinator/run")
    for site in CLASSES:
        mine, theirs = (root / "sites" / site / "personal" for root in (tmp_path, tmp_path / "whole"))
        assert {f.name: f.read_bytes() for f in mine.iterdir()} == {f.name: f.read_bytes() for f in theirs.iterdir()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"backbone": "0" * 64}, "backbone is '0000"),
        ({"versions": {"fedmpt": "0.0.9"}}, "versions.fedmpt is '0.0.9' at cedar"),
        ({"class_names": ["cat", "cat"]}, "its labels: a class is named twice"),
        ({"class_names": "cat"}, "no list of short texts"),
        ({"class_names": ["Cat"]}, "'Cat' (1 site) is 'cat' (2 sites)"),
        ({"images": -1}, "says -1 for images"),
    ],
)
def test_a_site_that_does_not_fit_waits_outside(
    bed: Bed, small: Plan, tmp_path: Path, words: dict[str, Any], expected: str
) -> None:
    link = bed.link(small, tmp_path)

    def other(kind: str, index: int, answer: bytes) -> bytes:
        message = unpack(answer, source="test")
        return pack(replace(message, words={**message.words, **words})) if kind == "describe" else answer

    link.faults["cedar"] = other
    _, said = bed.run(small, link, tmp_path)
    assert any(line.startswith("site cedar waits outside: it") and expected in line for line in said)
    assert [line["clients"] for line in rounds_of(tmp_path / "coordinator/run")] == [[0, 1]] * 3


def test_a_site_with_another_method_in_its_kit_refuses(bed: Bed, small: Plan, tmp_path: Path) -> None:
    other = sites_plan(bed.config("poscoop"))
    link = bed.link(small, tmp_path)
    link.handles["birch"] = bed.link(other, tmp_path / "other").handles["birch"]
    _, said = bed.run(small, link, tmp_path)
    assert any("site birch waits outside" in line and "method.name" in line for line in said)
    assert ("birch", "train") not in link.asked


def test_too_few_sites_for_too_long_ends_with_a_message(bed: Bed, small: Plan, tmp_path: Path) -> None:
    plan = replace(small, rules=Rules(min_sites=3, gather=0.1, patience=0.5, deadline=5))
    link = bed.link(plan, tmp_path)
    del link.since["cedar"]
    with pytest.raises(InputError, match=r"2 of 3 sites are there; the same command goes on later"):
        bed.run(plan, link, tmp_path)


def test_a_late_site_takes_part_from_the_next_round_on(bed: Bed, small: Plan, tmp_path: Path) -> None:
    link = bed.link(small, tmp_path)
    del link.since["cedar"]

    def arrives(kind: str, index: int, answer: bytes) -> bytes:
        if index == 2:
            link.since["cedar"] = 2.0
        return answer

    link.faults["ash"] = arrives
    plan = replace(small, class_names=("cat", "cup", "dog", "table"))
    bed.run(plan, link, tmp_path)
    lines = (tmp_path / "coordinator/run/rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["clients"] for line in lines] == [[0, 1], [0, 1], [0, 1, 2]]


def test_the_class_list_is_what_all_sites_name_and_others_classes_are_unknown(
    bed: Bed, small: Plan, tmp_path: Path
) -> None:
    _, said = bed.run(small, bed.link(small, tmp_path), tmp_path)
    assert "4 classes, all that the sites' labels name: cat, cup, dog, table" in said


def test_every_site_has_the_final_model_with_its_own_tensors(bed: Bed, tmp_path: Path) -> None:
    from fedmpt.inference.tagger import load

    plan = sites_plan(bed.config("fedpgp"))
    bed.run(plan, bed.link(plan, tmp_path), tmp_path)
    config = bed.config("fedpgp")
    train(config, out=tmp_path / "one", cache=bed.cache, show_progress=False)
    own = load_checkpoint(tmp_path / "one/checkpoint").progress.personal
    image = bed.data / "birch" / "3.png"
    found = []
    for number, site in enumerate(CLASSES):
        tagger = load(tmp_path / "sites" / site / "model")
        state = tagger.method.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in own[number].items())
        found.append([label.probability for label in next(iter(tagger.tag([image])))[1]])
    assert found[0] != found[1]


@pytest.mark.parametrize(("method", "strength"), [("promptfl", 2.0), ("fedpgp", 0.0)])
def test_one_process_scores_by_sums_with_the_same_numbers(
    bed: Bed, tmp_path: Path, method: str, strength: float
) -> None:
    config = replace(bed.config(method, scoring="summed"), prediction=Prediction(soft_ties=strength))
    one = train(config, out=tmp_path / "one", cache=bed.cache, show_progress=False)
    plan = sites_plan(config)
    many, _ = bed.run(plan, bed.link(plan, tmp_path), tmp_path)
    assert one.keys() - {"clients", "time"} == many.keys() - {"clients", "time"}
    for key in ("test", "test_calibrated", "sites", "test_personal"):
        assert one.get(key) == many.get(key), key
    for mine, theirs in zip(rounds_of(tmp_path / "one"), rounds_of(tmp_path / "coordinator/run"), strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}
    pooled = train(
        replace(bed.config(method), prediction=config.prediction),
        out=tmp_path / "pooled",
        cache=bed.cache,
        show_progress=False,
    )
    for metric in ("CF1", "OF1", "CF1_PR"):
        assert one["test"][metric] == pytest.approx(pooled["test"][metric], abs=1e-9)
        assert one["test_calibrated"][metric] == pytest.approx(pooled["test_calibrated"][metric], abs=1e-9)
