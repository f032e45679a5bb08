"""Class attributes are no part of a checkpoint's tensors: a file that changes behind a run's back is noticed."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import Command, Place, assert_refused, snapshot

from fedmpt.data.datasets.voc import CLASS_NAMES


def write_attributes(path: Path, word: str) -> Path:
    attributes = {name: [f"{word} {name} parts"] for name in CLASS_NAMES}
    path.write_text(json.dumps({"format": 1, "kind": "attributes", "attributes": attributes}))
    return path


def test_attributes_that_change_after_training_are_refused(run: Command, place: Place, tmp_path: Path) -> None:
    file, out = write_attributes(tmp_path / "own.json", "round"), tmp_path / "run"
    trained = run(*place.train_words(out, "--method", "fedmvp", "--attributes", file, rounds=1))
    assert trained.code == 0, trained.err
    record = json.loads((out / "checkpoint/checkpoint.json").read_text())["record"]
    assert list(record["sources"]) == [str(file)]
    words = ["evaluate", "--checkpoint", out / "checkpoint", "--data", f"voc:{place.voc}", "--cache", place.cache]
    assert run(*words).code == 0
    before = snapshot(out)
    write_attributes(file, "square")
    assert_refused(run(*words), "own.json' is not what the run was trained with")
    assert snapshot(out) == before
    write_attributes(file, "round")
    assert run(*words).code == 0
