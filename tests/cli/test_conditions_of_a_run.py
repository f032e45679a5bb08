"""Conditions from a file become part of a run: its checkpoint needs no file, and --resume notices another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, Place, assert_refused, read_results, snapshot

from fedmpt.conditions.record import Condition, ConditionSet, find_conditions, names_hash, write_conditions
from fedmpt.methods.fedmpt import FedMPTConfig

NAMES = ("dog", "the pose")


def write(path: Path, *names: str) -> Path:
    write_conditions(path, ConditionSet("own", tuple(map(Condition, names)), {}))
    return path


def read_record(out: Path) -> dict[str, Any]:
    return json.loads((out / "checkpoint/checkpoint.json").read_text())["record"]


def write_record(out: Path, **changed: Any) -> None:
    path = out / "checkpoint/checkpoint.json"
    words = json.loads(path.read_text())
    words["record"].update(changed)
    path.write_text(json.dumps(words))


def evaluate_words(place: Place, out: Path) -> list[Any]:
    return ["evaluate", "--checkpoint", out / "checkpoint", "--data", f"voc:{place.voc}", "--cache", place.cache]


def test_a_checkpoint_needs_no_file(run: Command, place: Place, tmp_path: Path) -> None:
    file, out = write(tmp_path / "own.json", *NAMES), tmp_path / "run"
    trained = run(*place.train_words(out, "--conditions", file, rounds=1))
    assert trained.code == 0, trained.err
    file.unlink()
    for stored in (json.loads((out / "config.json").read_text()), read_record(out)["config"]):
        assert stored["method"]["conditions"] == list(NAMES)
        assert stored["method"]["conditions_hash"] == names_hash(NAMES)
    assert read_record(out)["sources"] == read_results(out)["sources"] == {"conditions": names_hash(NAMES)}
    assert run(*evaluate_words(place, out)).code == 0


def test_plain_names_are_recorded_too(finished: Path) -> None:
    assert read_record(finished)["sources"] == {"conditions": find_conditions("generic").content_hash}
    assert read_results(finished)["sources"] == read_record(finished)["sources"]


@pytest.mark.parametrize("sources", [{}, None])
def test_checkpoints_of_before_conditions_were_recorded_are_loaded(
    run: Command, place: Place, trained: Path, sources: dict[str, str] | None
) -> None:
    write_record(trained, sources={} if sources is None else sources)
    if sources is None:
        path = trained / "checkpoint/checkpoint.json"
        words = json.loads(path.read_text())
        del words["record"]["sources"], words["record"]["config"]["method"]["conditions_hash"]
        path.write_text(json.dumps(words))
    assert run(*evaluate_words(place, trained)).code == 0


def test_names_edited_in_a_checkpoint_are_noticed(run: Command, place: Place, trained: Path) -> None:
    config = read_record(trained)["config"]
    config["method"]["conditions"][0] = "the o"
    write_record(trained, config=config)
    assert_refused(run(*evaluate_words(place, trained)), "'conditions' is not what the run was trained with")


def test_a_method_that_has_changed_since_is_noticed(
    run: Command, place: Place, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes with tensors that meant something else gets no wrong numbers, neither here nor where it goes on."""
    assert read_record(trained)["revision"] == 1
    monkeypatch.setattr(FedMPTConfig, "revision", 2)
    refused = "the tensors of fedmpt mean something else in this version of fedmpt; train again"
    assert_refused(run(*evaluate_words(place, trained)), refused)
    (trained / "results.json").unlink()
    assert_refused(run("train", "--out", trained, "--resume", "--cache", place.cache), refused)


def test_a_run_goes_on_with_the_same_file_and_refuses_another(run: Command, place: Place, tmp_path: Path) -> None:
    file, out = write(tmp_path / "own.json", *NAMES), tmp_path / "run"
    assert run(*place.train_words(out, "--conditions", file, rounds=1)).code == 0
    (out / "results.json").unlink()
    before = snapshot(out)
    resumed = ["train", "--out", out, "--resume", "--cache", place.cache, "--conditions"]
    write(file, "dog", "pose")
    assert_refused(
        run(*resumed, file), f"not the {names_hash(NAMES)} of --conditions-hash or of the run to be continued"
    )
    assert_refused(
        run(*resumed, "dog"), f"not the {names_hash(NAMES)} of --conditions-hash or of the run to be continued"
    )
    file.unlink()
    assert_refused(run(*resumed, file), "no such file and no shipped set")
    assert snapshot(out) == before
    assert run(*resumed, write(file, *NAMES)).code == 0
    (out / "results.json").unlink()
    assert run(*resumed, *NAMES).code == 0


def test_a_run_of_plain_names_refuses_other_names(run: Command, place: Place, trained: Path) -> None:
    (trained / "results.json").unlink()
    words = ["train", "--out", trained, "--resume", "--cache", place.cache]
    refused = run(*words, "--conditions", "dog", "pose")
    assert_refused(refused, r"method\.conditions was \['spatial layout', ")
    assert "now ['dog', 'pose']" in " ".join(refused.err.split())
    assert run(*words).code == 0


def test_a_file_that_is_not_there_is_found_before_anything_is_written(
    run: Command, place: Place, tmp_path: Path
) -> None:
    refused = run(*place.train_words(tmp_path / "run", "--conditions", "none.json", rounds=1))
    assert_refused(refused, "conditions 'none.json': no such file and no shipped set; the sets are generic")
    assert not (tmp_path / "run").exists()
