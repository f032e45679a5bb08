"""Clients that annotate some classes each, and what training makes of unknown labels, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command, Outcome, Place, assert_refused, read_results, read_rounds

SCENES = "scenes:num_train=60,num_test=60"
MISSING = ("--partial-labels", "missing-classes", "--classes-per-client", 9)
Train = Callable[..., Outcome]


@pytest.fixture
def train(place: Place, run: Command, tmp_path: Path) -> Train:
    """Trains class vectors at three clients, with more options; the run is in a folder of this name."""

    def with_options(name: str, *words: object) -> Outcome:
        start = ("train", "--data", SCENES, "--backbone", "scenes-clip", "--setting", "iid", "--clients", 3)
        method = () if "--method" in words else ("--method", "class-vectors")
        return run(*start, *method, "--rounds", 3, "--cache", place.cache, "--out", tmp_path / name, *words)

    return with_options


@pytest.mark.parametrize("options", [("--pseudo-labels", 0.6), ("--global-consistency", 5)])
def test_options_for_unknown_labels_change_training_where_there_are_some(
    train: Train, tmp_path: Path, options: tuple[object, ...]
) -> None:
    assert train("all").code == train("missing", *MISSING).code == 0
    changed = train("changed", *MISSING, *options)
    assert changed.code == 0, changed.err
    every, plain, other = (
        [line["loss"] for line in read_rounds(tmp_path / name)] for name in ("all", "missing", "changed")
    )
    assert every[0] > 2 * plain[0], "two thirds of the labels carry no loss"
    assert other[2] != plain[2]
    assert read_results(tmp_path / "missing")["test"]["mAP"] != read_results(tmp_path / "all")["test"]["mAP"]
    assert_refused(
        train("idle", *options), f"{options[0]} .* has no effect: no training label is unknown; leave it out"
    )
    assert_refused(
        train("nothing", "--method", "zero-shot", *MISSING, *options), f"{options[0]} has no effect: zero-shot"
    )


def test_more_classes_than_the_data_have(train: Train) -> None:
    found = train("a", "--partial-labels", "missing-classes", "--classes-per-client", 99)
    assert_refused(found, "--classes-per-client 99 of 28 classes; give 1 to 28")
