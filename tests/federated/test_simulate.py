"""Rounds: what they depend on, what they keep, and that a run can be taken up again anywhere."""

from __future__ import annotations

import math
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import separable
from toy_method import CLASSES, WIDTH, Toy, run_rounds, toy

from fedmpt.data.features.store import FeatureSet
from fedmpt.evaluation.metrics import multilabel_scores
from fedmpt.evaluation.scoring import probabilities
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.client import LocalTraining, local_update
from fedmpt.federated.rounds import Federation, Progress, Round, draw_cohort, learning_rate_of
from fedmpt.seeding import generator
from fedmpt.state import Update, get_state, set_state
from fedmpt.types import InputError, State

FEDERATION = Federation(rounds=5, learning_rate=0.2, eval_every=2)
TRAINING = LocalTraining(batch_size=4)
Run = Callable[..., list[Round]]


@pytest.fixture
def run(clients: list[FeatureSet], test_set: FeatureSet) -> Run:
    def rounds_of(method: Toy, federation: Federation = FEDERATION, **options: Any) -> list[Round]:
        arguments: dict[str, Any] = {"training": TRAINING, "seed": 3}
        return list(run_rounds(method, clients, test_set, federation=federation, **arguments | options))

    return rounds_of


def same(one: Progress, other: Progress) -> bool:
    """Bit for bit, with the personal tensors."""
    return (
        one.rounds_done == other.rounds_done
        and same_state(one.state, other.state)
        and one.personal.keys() == other.personal.keys()
        and all(same_state(one.personal[client], other.personal[client]) for client in one.personal)
    )


def same_state(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_round_is_local_training_and_the_mean(run: Run, clients: list[FeatureSet]) -> None:
    method = toy()
    start = get_state(method)
    updates = [
        local_update(
            toy(seed=9),
            start,
            features,
            personal={},
            client=client,
            round_index=1,
            seed=3,
            learning_rate=0.2,
            training=TRAINING,
        ).update
        for client, features in enumerate(clients)
    ]
    for weighting, weights in (("uniform", (1, 1, 1)), ("data", (7, 10, 13))):
        set_state(method, start)
        first = run(method, replace(FEDERATION, rounds=1, weighting=weighting))[0]
        for name, tensor in first.progress.state.items():
            by_hand = sum(w * u.state[name].double() for w, u in zip(weights, updates, strict=True)) / sum(weights)
            torch.testing.assert_close(tensor, by_hand.float(), atol=1e-6, rtol=1e-6)
        assert first.loss == pytest.approx(sum(u.loss * u.num_examples for u in updates) / 30)
        assert (first.index, first.clients, first.learning_rate) == (1, (0, 1, 2), 0.2)


def test_loss_falls_and_scores_rise(run: Run) -> None:
    rounds = run(toy(), replace(FEDERATION, rounds=12, eval_every=1))
    assert rounds[-1].loss < 0.7 * rounds[0].loss
    assert rounds[0].scores is not None
    assert rounds[-1].scores is not None
    assert rounds[-1].scores.mAP > rounds[0].scores.mAP


def test_evaluated_every_so_many_rounds_and_last(run: Run) -> None:
    for every, expected in ((2, [2, 4, 5]), (1, [1, 2, 3, 4, 5]), (5, [5]), (100, [5])):
        rounds = run(toy(), replace(FEDERATION, eval_every=every))
        assert [done.index for done in rounds if done.scores is not None] == expected


def test_scores_are_those_of_the_rounds_state(run: Run, test_set: FeatureSet) -> None:
    last = run(toy())[-1]
    method = toy(seed=1)
    set_state(method, last.progress.state)
    assert last.scores == multilabel_scores(probabilities(method, test_set), test_set.labels)


def test_after_a_round_the_module_is_the_global_model_with_neutral_personal_tensors(
    clients: list[FeatureSet], test_set: FeatureSet
) -> None:
    method = toy(personal=True)
    for done in run_rounds(method, clients, test_set, federation=FEDERATION, training=TRAINING, seed=3):
        assert torch.equal(method.weight, done.progress.state["weight"])
        assert torch.equal(method.offset, torch.zeros(CLASSES))
        assert all(personal["offset"].abs().max() > 0 for personal in done.progress.personal.values())


def test_other_draws_do_not_matter(clients: list[FeatureSet], test_set: FeatureSet) -> None:
    """Neither global randomness nor that of other purposes and identities, before or between."""

    def draw_elsewhere(_: Update) -> None:
        torch.rand(17)
        for purpose in ("init", "shuffle", "cohort"):
            torch.rand(5, generator=generator(3, purpose, 1))

    federation = replace(FEDERATION, participation=0.7)
    options: dict[str, Any] = {"federation": federation, "training": TRAINING, "seed": 3}
    quiet = list(run_rounds(toy(), clients, test_set, **options))
    torch.manual_seed(77)
    loud = list(run_rounds(toy(), clients, test_set, on_update=draw_elsewhere, **options))
    assert all(same(one.progress, other.progress) for one, other in zip(quiet, loud, strict=True))
    assert [done.scores for done in quiet] == [done.scores for done in loud]


def test_a_seed_decides(run: Run) -> None:
    assert same(run(toy())[-1].progress, run(toy())[-1].progress)
    assert not same(run(toy())[-1].progress, run(toy(), seed=4)[-1].progress)


@pytest.mark.parametrize("personal", [False, True])
@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_taking_up_a_run_gives_the_same_numbers(run: Run, tmp_path: Path, personal: bool, stopped_after: int) -> None:
    federation = replace(FEDERATION, participation=0.7)
    whole = run(toy(personal=personal), federation)
    save_checkpoint(tmp_path, whole[stopped_after - 1].progress, {})
    for start in (whole[stopped_after - 1].progress, load_checkpoint(tmp_path).progress):
        rest = run(toy(personal=personal), federation, start=start)
        assert [done.index for done in rest] == list(range(stopped_after + 1, 6))
        for one, other in zip(whole[stopped_after:], rest, strict=True):
            assert same(one.progress, other.progress)
            assert (one.loss, one.clients, one.learning_rate) == (other.loss, other.clients, other.learning_rate)
            assert one.scores == other.scores


def test_a_finished_run_has_no_more_rounds(run: Run) -> None:
    assert run(toy(), start=run(toy())[-1].progress) == []


def test_a_rounds_progress_is_never_written_to(run: Run) -> None:
    """The caller may store it at leisure."""
    kept, method = [], toy(personal=True)
    arguments: dict[str, Any] = {"federation": FEDERATION, "training": TRAINING, "seed": 3}
    few = [separable(6, num_classes=CLASSES, width=WIDTH, seed=seed) for seed in range(3)]
    for done in run_rounds(method, few, few[0], **arguments):
        copied = {client: {"offset": state["offset"].clone()} for client, state in done.progress.personal.items()}
        state = {name: tensor.clone() for name, tensor in done.progress.state.items()}
        kept.append((done.progress, Progress(done.index, state, copied)))
    assert all(same(given, copied) for given, copied in kept)


def test_only_the_cohort_trains_and_others_keep_their_personal_tensors(run: Run) -> None:
    rounds = run(toy(personal=True), replace(FEDERATION, participation=0.34, rounds=6))
    before: dict[int, State] = {}
    for done in rounds:
        (client,) = done.clients
        personal = dict(done.progress.personal)
        assert not same_state(personal[client], before.get(client, {}))
        assert all(same_state(personal[other], before[other]) for other in before if other != client)
        before = personal
    assert set(before) == {client for done in rounds for client in done.clients}
    assert len(set(before)) > 1


def test_a_client_goes_on_from_its_own_personal_tensors(run: Run, clients: list[FeatureSet]) -> None:
    first, second = run(toy(personal=True))[:2]
    by_hand = local_update(
        toy(personal=True),
        first.progress.state,
        clients[1],
        personal=first.progress.personal[1],
        client=1,
        round_index=2,
        seed=3,
        learning_rate=second.learning_rate,
        training=TRAINING,
    )
    assert same_state(second.progress.personal[1], by_hand.personal)


@pytest.mark.parametrize(
    ("participation", "size"), [(1.0, 20), (0.5, 10), (0.1, 2), (0.05, 1), (0.001, 1), (0.33, 7), (0.99, 20)]
)
def test_participation(participation: float, size: int) -> None:
    cohorts = [draw_cohort(20, participation, seed=0, round_index=index) for index in range(1, 60)]
    for cohort in cohorts:
        assert len(cohort) == size
        assert list(cohort) == sorted(set(cohort))
        assert set(cohort) <= set(range(20))
    # Every client comes to take part, and cohorts differ where they can.
    assert set().union(*cohorts) == set(range(20)) if size > 1 else len(set(cohorts)) > 10
    assert len(set(cohorts)) > 1 or size == 20


def test_a_cohort_depends_on_seed_and_round_alone() -> None:
    first = draw_cohort(50, 0.5, seed=0, round_index=1)
    torch.manual_seed(5)
    assert draw_cohort(50, 0.5, seed=0, round_index=1) == first
    assert draw_cohort(50, 0.5, seed=1, round_index=1) != first
    assert draw_cohort(50, 0.5, seed=0, round_index=2) != first


def test_learning_rate_falls_along_a_cosine() -> None:
    federation = Federation(rounds=4, learning_rate=0.8)
    found = [learning_rate_of(index, federation) for index in (1, 2, 3, 4)]
    half = math.sqrt(0.5)
    assert found == pytest.approx([0.8, 0.4 * (1 + half), 0.4, 0.4 * (1 - half)])


def test_rounds_use_the_scheduled_learning_rate(run: Run) -> None:
    rounds = run(toy())
    assert [done.learning_rate for done in rounds] == [learning_rate_of(index, FEDERATION) for index in range(1, 6)]
    # Round 2 of 2 and round 1 of many start alike but step differently.
    start = rounds[0].progress
    long, short = (run(toy(), replace(FEDERATION, rounds=rounds), start=start)[0] for rounds in (20, 2))
    assert not same_state(long.progress.state, short.progress.state)


def test_updates_pass_by_in_the_order_of_clients(run: Run) -> None:
    seen: list[int] = []
    run(toy(), replace(FEDERATION, rounds=2), on_update=lambda update: seen.append(update.client))
    assert seen == [0, 1, 2, 0, 1, 2]


class Spoiled(Toy):
    """All steps but its first end in NaN."""

    def loss(self, batch: Any, text: Any = None) -> Any:
        factor = float("nan") if self.seen else 1.0
        return super().loss(batch, text) * factor


def test_a_client_that_diverges_is_named(run: Run) -> None:
    method = Spoiled(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())
    with pytest.raises(InputError, match="client 1, round 1: the loss is nan"):
        run(method, training=LocalTraining(batch_size=64))


def most_updates_alive(clients: Sequence[FeatureSet]) -> int:
    """While a round goes on, at the moments when an update arrives."""
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    counts = []

    def note(update: Update) -> None:
        alive.add(update.state["weight"])
        counts.append(len(alive.data))

    options: dict[str, Any] = {"federation": replace(FEDERATION, rounds=2), "training": TRAINING, "seed": 0}
    list(run_rounds(toy(), clients, clients[0], on_update=note, **options))
    assert len(counts) == 2 * len(clients)
    return max(counts)


def test_a_hundred_clients_hold_no_more_updates_than_ten() -> None:
    some = [separable(3, num_classes=CLASSES, width=WIDTH, seed=seed) for seed in range(10)]
    assert most_updates_alive(some * 10) == most_updates_alive(some) <= 2


PEAK = """
import resource, sys
import torch
from synthetic import separable
from toy_method import toy, run_rounds
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.rounds import Federation
torch.set_num_threads(1)
few = [separable(3, num_classes=3, width=100_000, num_patches=2, seed=0)]
clients, method = few * int(sys.argv[1]), toy(width=100_000)
options = {"federation": Federation(rounds=1), "training": LocalTraining(), "seed": 0}
for _ in run_rounds(method, clients, few[0], on_update=lambda update: method.seen.clear(), **options):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_clients() -> None:
    """States of 1.2 MB each: a thousand of them would show."""
    tests = Path(__file__).resolve().parents[1] / "support"
    few, many = (
        int(subprocess.run([sys.executable, "-c", PEAK, str(n)], cwd=tests, capture_output=True, check=True).stdout)
        for n in (10, 1000)
    )
    assert many - few < 20_000  # kB
