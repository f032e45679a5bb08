"""Rounds with noise: what they cost each client, where a budget ends them, and that a resumed run goes on counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import assert_same
from synthetic import separable
from toy_method import CLASSES, WIDTH, run_rounds, toy

from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.client import LocalTraining
from fedmpt.federated.privacy import Privacy, gaussian_epsilon
from fedmpt.federated.rounds import Federation, Round

SOME = Federation(rounds=6, learning_rate=0.2, eval_every=4, participation=0.5)
CLIP = 0.1


def rounds_of(privacy: Privacy, federation: Federation = SOME, **options: Any) -> list[Round]:
    """Of eight clients."""
    clients = [separable(5 + client, num_classes=CLASSES, width=WIDTH, seed=client) for client in range(8)]
    given: dict[str, Any] = {"training": LocalTraining(batch_size=4), "aggregation": Aggregation(clip_norm=CLIP)}
    return list(
        run_rounds(toy(), clients, clients[0], federation=federation, privacy=privacy, seed=3, **given | options)
    )


def test_epsilon_counts_the_rounds_that_a_client_took_part_in() -> None:
    took_part = Counter[int]()
    for done in rounds_of(Privacy(dp_noise=2.0, dp_delta=1e-4)):
        took_part.update(done.clients)
        assert done.progress.participations == took_part
        most = max(took_part.values())
        assert done.epsilon == gaussian_epsilon(2.0, rounds=most, delta=1e-4)
    assert 3 < most < 6, "else this cohort would show nothing"


def test_without_privacy_nothing_is_counted() -> None:
    last = rounds_of(Privacy())[-1]
    assert last.epsilon is None
    assert last.progress.participations == {}


@pytest.mark.parametrize("at", ["server", "sites"])
def test_noise_is_there_and_a_seed_draws_it_again(at: Any) -> None:
    private = Privacy(dp_noise=1.0, dp_at=at)
    one, again, exact = (rounds_of(options)[-1].progress for options in (private, private, Privacy()))
    assert_same(one, again)
    # Six rounds with 0.1 / 4 of noise on each value.
    difference = one.state["weight"] - exact.state["weight"]
    assert difference.std().item() == pytest.approx(6**0.5 * 0.1 / 4, rel=0.5)


def test_a_budget_ends_training_before_the_round_that_would_exceed_it() -> None:
    everyone = Federation(rounds=6, learning_rate=0.2, eval_every=4)
    # With noise 1, dp_accounting has 4.38 after one round and 17.86 after ten, see test_privacy.py.
    for budget, expected in ((4.38, 1), (4.37, 0), (17.9, 6)):
        assert len(rounds_of(Privacy(dp_noise=1.0, dp_budget=budget), everyone)) == expected
    enough_for_three = gaussian_epsilon(1.0, rounds=3, delta=1e-5)
    rounds = rounds_of(Privacy(dp_noise=1.0, dp_budget=enough_for_three), everyone)
    assert [done.index for done in rounds] == [1, 2, 3]
    assert rounds[-1].epsilon == enough_for_three
    # The last round there is, is evaluated, as the last of all rounds is.
    assert [done.scores is not None for done in rounds] == [False, False, True]


def test_a_budget_is_of_the_client_that_is_drawn_most_often() -> None:
    whole = rounds_of(Privacy(dp_noise=1.0))
    budget = gaussian_epsilon(1.0, rounds=2, delta=1e-5)
    rounds = rounds_of(Privacy(dp_noise=1.0, dp_budget=budget))
    took_part = Counter[int]()
    for done in whole:
        took_part.update(done.clients)
        if max(took_part.values()) > 2:
            break
    assert len(rounds) == done.index - 1 > 2


@pytest.mark.parametrize("at", ["server", "sites"])
def test_a_run_that_is_taken_up_again_goes_on_counting(tmp_path: Path, at: Any) -> None:
    budget = gaussian_epsilon(1.0, rounds=3, delta=1e-5)
    private = Privacy(dp_noise=1.0, dp_at=at, dp_budget=budget)
    whole = rounds_of(private)
    assert 2 < len(whole) < 6
    save_checkpoint(tmp_path, whole[1].progress, {})
    stored = load_checkpoint(tmp_path).progress
    assert stored.participations == whole[1].progress.participations
    for one, other in zip(whole[2:], rounds_of(private, start=stored), strict=True):
        assert_same(one.progress, other.progress)
        assert one.progress.participations == other.progress.participations
        assert one.epsilon == other.epsilon
    save_checkpoint(tmp_path, whole[-1].progress, {})
    assert rounds_of(private, start=load_checkpoint(tmp_path).progress) == []


def test_what_clients_send_has_their_shares_of_the_noise() -> None:
    """Twice the noise adds the same numbers once more, and every client has its own."""
    sent: dict[float, list[torch.Tensor]] = {1.0: [], 2.0: []}
    for noise, found in sent.items():
        private = Privacy(dp_noise=noise, dp_at="sites")
        one_round = Federation(rounds=1, learning_rate=0.2)
        rounds_of(private, one_round, on_update=lambda update, found=found: found.append(update.state["weight"]))
    shares = torch.stack([twice - once for once, twice in zip(*sent.values(), strict=True)])
    assert shares.shape[0] == 8
    # Of eight clients, each adds 0.1 / sqrt(8) to each of 15 values.
    assert shares.std().item() == pytest.approx(0.1 / 8**0.5, rel=0.3)
    correlations = torch.corrcoef(shares.flatten(1)) - torch.eye(8)
    assert correlations.abs().max() < 0.9
