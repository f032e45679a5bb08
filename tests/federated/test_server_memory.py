"""Rounds with each kind of aggregation: what the server remembers is all that carries over, and is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import assert_same
from synthetic import separable
from toy_method import CLASSES, WIDTH, Toy, run_rounds, toy

from fedmpt.data.features.store import FeatureSet
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.rounds import Federation, Round, cohort_size, draw_cohort
from fedmpt.types import InputError

FEDERATION = Federation(rounds=4, learning_rate=0.2, eval_every=2, participation=0.8)
TRAINING = LocalTraining(batch_size=4)
Run = Callable[..., list[Round]]

KINDS = {
    "clipped": Aggregation(clip_norm=0.05),
    "trimmed mean": Aggregation(aggregator="trimmed-mean", trim=0.25),
    "median, momentum": Aggregation(aggregator="median", server="momentum"),
    "krum": Aggregation(aggregator="krum", num_selected=2),
    "momentum": Aggregation(server="momentum"),
    "adam, clipped": Aggregation(server="adam", clip_norm=0.5),
}


@pytest.fixture
def run() -> Run:
    """Eight clients, six in a round."""
    many = [separable(5 + client, num_classes=CLASSES, width=WIDTH, seed=client) for client in range(8)]

    def rounds_of(aggregation: Aggregation, **options: Any) -> list[Round]:
        arguments: dict[str, Any] = {"federation": FEDERATION, "training": TRAINING, "seed": 3}
        return list(run_rounds(toy(), many, many[0], aggregation=aggregation, **arguments | options))

    return rounds_of


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_taken_up_again_gives_the_same_numbers(run: Run, tmp_path: Path, kind: str) -> None:
    whole = run(KINDS[kind])
    save_checkpoint(tmp_path, whole[1].progress, {})
    stored = load_checkpoint(tmp_path).progress
    assert_same(stored, whole[1].progress)
    assert bool(stored.memory) == (KINDS[kind].server != "none")
    for start in (whole[1].progress, stored):
        rest = run(KINDS[kind], start=start)
        assert [done.index for done in rest] == [3, 4]
        for one, other in zip(whole[2:], rest, strict=True):
            assert_same(one.progress, other.progress)
            assert (one.loss, one.scores) == (other.loss, other.scores)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_another_run_than_the_mean_and_it_learns(run: Run, kind: str) -> None:
    mean, other = run(Aggregation()), run(KINDS[kind])
    assert not torch.equal(mean[-1].progress.state["weight"], other[-1].progress.state["weight"])
    assert other[-1].loss < other[0].loss


@pytest.mark.parametrize("server", ["momentum", "adam"])
def test_forgetting_the_memory_would_be_noticed(run: Run, server: Any) -> None:
    whole = run(Aggregation(server=server))
    nothing = {name: torch.zeros_like(tensor) for name, tensor in whole[1].progress.memory.items()}
    forgetful = run(Aggregation(server=server), start=replace(whole[1].progress, memory=nothing))
    assert not torch.equal(forgetful[-1].progress.state["weight"], whole[-1].progress.state["weight"])


def test_rounds_that_are_too_small_are_refused_before_any_training() -> None:
    few = [separable(6, num_classes=CLASSES, width=WIDTH, seed=seed) for seed in range(5)]
    method = toy()
    federation = replace(FEDERATION, participation=0.8)
    with pytest.raises(InputError, match="needs at least 5 clients in a round, there are 4"):
        next(
            run_rounds(method, few, few[0], federation=federation, training=TRAINING, seed=0, aggregation=KINDS["krum"])
        )
    assert not method.seen


@pytest.mark.parametrize(("clients", "participation"), [(20, 0.33), (3, 0.01), (7, 1.0), (5, 0.5)])
def test_the_size_of_a_cohort_is_known_before_it_is_drawn(clients: int, participation: float) -> None:
    drawn = draw_cohort(clients, participation, seed=1, round_index=2)
    assert len(drawn) == cohort_size(clients, participation)


class ByImages(Toy):
    weighting = "data"


def test_the_loop_takes_the_methods_weighting_unless_one_is_given(clients: list[FeatureSet]) -> None:
    def after_a_round(method_class: type[Toy], weighting: Any) -> torch.Tensor:
        method = method_class(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator().manual_seed(0))
        federation = Federation(rounds=1, weighting=weighting)
        (done,) = run_rounds(method, clients, clients[0], federation=federation, training=TRAINING, seed=3)
        return done.progress.state["weight"]

    assert torch.equal(after_a_round(ByImages, None), after_a_round(Toy, "data"))
    assert torch.equal(after_a_round(ByImages, "uniform"), after_a_round(Toy, None))
    assert not torch.equal(after_a_round(Toy, "data"), after_a_round(Toy, None))
