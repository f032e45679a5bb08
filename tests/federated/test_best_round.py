"""The best round on held-out images: which it is, what is kept of it, and that a run can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import assert_same, assert_same_state, change_index
from toy_method import CLASSES, WIDTH, Toy, run_rounds, toy

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.calibration import mean_average_precision, score_histograms
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.rounds import Best, Federation, Progress, Round
from fedmpt.state import set_state
from fedmpt.types import InputError

FEDERATION = Federation(rounds=6, learning_rate=0.2, eval_every=2)
HELD_OUT_ROWS = torch.tensor([0, 2, 3, 7, 8])


class Falling(Toy):
    """Is trained away from what is right, so its first rounds are its best."""

    def loss(self, batch: Any, text: Any = None) -> Any:
        return -super().loss(batch, text).clamp(max=3)


def falling() -> Falling:
    return Falling(CLASSES, WIDTH, personal_offset=True, generator=torch.Generator().manual_seed(0))


def rounds_of(method: Toy, clients: Sequence[FeatureSet], test: FeatureSet, **options: Any) -> list[Round]:
    arguments: dict[str, Any] = {"federation": FEDERATION, "training": LocalTraining(batch_size=4), "seed": 3}
    arguments["held_out"] = test.subset(HELD_OUT_ROWS)
    return list(run_rounds(method, clients, test, **arguments | options))


def test_held_out_images_are_scored_in_evaluated_rounds(clients: list[FeatureSet], test_set: FeatureSet) -> None:
    rounds = rounds_of(toy(), clients, test_set)
    assert [done.index for done in rounds if done.held_out_mAP is not None] == [2, 4, 6]
    method, held_out = toy(seed=1), test_set.subset(HELD_OUT_ROWS)
    for done in rounds[1::2]:
        set_state(method, done.progress.state)
        parts = [held_out.subset(rows) for rows in torch.arange(5).split(2)]
        sent = [score_histograms(probabilities(method, part), part.labels) for part in parts]
        assert done.held_out_mAP == mean_average_precision(torch.stack(sent).sum(0))


@pytest.mark.parametrize("make", [lambda: toy(personal=True), falling], ids=["rising", "falling"])
def test_the_best_round_keeps_what_it_had(
    make: Callable[[], Toy], clients: list[FeatureSet], test_set: FeatureSet
) -> None:
    rounds = rounds_of(make(), clients, test_set)
    assert rounds[0].progress.best is None, "nothing is evaluated yet"
    for done in rounds[1:]:
        scored = [(one.held_out_mAP, -one.index) for one in rounds[: done.index] if one.held_out_mAP is not None]
        score, index = max(scored)
        best, then = done.progress.best, rounds[-index - 1].progress
        assert best is not None
        assert_same_best(best, Best(-index, score, then.state, then.personal))


def test_what_gets_worse_has_its_best_round_first(clients: list[FeatureSet], test_set: FeatureSet) -> None:
    last = rounds_of(falling(), clients, test_set)[-1].progress
    assert last.best is not None
    assert last.best.index == 2
    assert last.kept(replace(FEDERATION, keep="best")) is last.best
    assert last.kept(FEDERATION) is last
    unscored = replace(last, best=None)
    assert unscored.kept(replace(FEDERATION, keep="best")) is unscored


def test_without_held_out_images_there_is_no_best_round(clients: list[FeatureSet], test_set: FeatureSet) -> None:
    last = rounds_of(toy(), clients, test_set, held_out=None)[-1]
    assert last.held_out_mAP is None
    assert last.progress.best is None
    assert_same_state(last.progress.state, rounds_of(toy(), clients, test_set)[-1].progress.state)


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 5])
def test_a_run_taken_up_again_has_the_same_best_round(
    clients: list[FeatureSet], test_set: FeatureSet, tmp_path: Path, stopped_after: int
) -> None:
    whole = rounds_of(falling(), clients, test_set)
    save_checkpoint(tmp_path, whole[stopped_after - 1].progress, {})
    rest = rounds_of(falling(), clients, test_set, start=load_checkpoint(tmp_path).progress)
    assert [done.held_out_mAP for done in rest] == [done.held_out_mAP for done in whole[stopped_after:]]
    expected, found = whole[-1].progress, rest[-1].progress
    assert_same(found, expected)
    assert_same_best(found.best, expected.best)


def assert_same_best(one: Best | None, other: Best | None) -> None:
    assert one is not None
    assert other is not None
    assert (one.index, one.mAP) == (other.index, other.mAP)
    assert_same(Progress(0, one.state, one.personal), Progress(0, other.state, other.personal))


def some_progress(rounds_done: int, best: int) -> Progress:
    kept = Best(best, 67.9, {"weight": torch.full((2, 2), float(best))}, {5: {"offset": torch.tensor([float(best)])}})
    return Progress(rounds_done, {"weight": torch.full((2, 2), 9.0)}, {5: {"offset": torch.zeros(1)}}, best=kept)


def test_a_checkpoint_has_the_best_round_beside_the_last(tmp_path: Path) -> None:
    for progress in (some_progress(4, 2), some_progress(6, 2), some_progress(8, 8)):
        save_checkpoint(tmp_path, progress, {})
        found = load_checkpoint(tmp_path).progress
        assert_same(found, progress)
        assert_same_best(found.best, progress.best)
        assert len(list(tmp_path.iterdir())) == 4, "of an earlier best round nothing is left"


def test_a_checkpoint_of_format_2_has_no_best_round(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, replace(some_progress(4, 2), best=None), {})
    change_index(tmp_path, lambda index: {**{key: index[key] for key in index if key != "best"}, "format": 2})
    assert load_checkpoint(tmp_path).progress.best is None


@pytest.mark.parametrize("damage", [7, {"round": 2}, {"round": 2, "mAP": 1}, {"round": 2, "mAP": 1, "tensors": 5}])
def test_a_damaged_best_round(tmp_path: Path, damage: object) -> None:
    save_checkpoint(tmp_path, some_progress(4, 2), {})
    change_index(tmp_path, lambda index: index.update(best=damage))
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_a_missing_or_cut_file_of_the_best_round(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some_progress(4, 2), {})
    (path,) = tmp_path.glob("best-*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=f"{path.name} is truncated or changed"):
        load_checkpoint(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name} is missing from the checkpoint"):
        load_checkpoint(tmp_path)
