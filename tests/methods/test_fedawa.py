"""FedAWA: the server's learned weights against finite differences, and clients that differ."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from b16 import trained_at_b16
from contract import CLASS_NAMES, build
from torch import Tensor

from fedmpt.federated.aggregate import aggregate
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.checkpoint import load_checkpoint, save_checkpoint
from fedmpt.federated.rounds import Progress
from fedmpt.methods.fedawa import FedAWA, FedAWAConfig, alignment_loss
from fedmpt.state import Update, get_state, mean_state
from fedmpt.types import Backbone, InputError, State

FAST = FedAWAConfig(weights_rate=0.05)


@pytest.fixture
def method(backbone: Backbone) -> FedAWA:
    found = build(FAST, backbone)
    assert isinstance(found, FedAWA)
    return found


def loss_by_hand(theta: np.ndarray, server: np.ndarray, clients: np.ndarray) -> float:
    """The paper's two terms, with the changes D_k as it writes them."""
    weights = np.exp(theta) / np.exp(theta).sum()
    changes = [client - server for client in clients]
    mean_change = sum(p * change for p, change in zip(weights, changes, strict=True))
    total = 0.0
    for p, change, client in zip(weights, changes, clients, strict=True):
        cosine = (server * client).sum() / math.sqrt((server**2).sum() * (client**2).sum())
        total += p * math.sqrt(((change - mean_change) ** 2).sum()) + p * (1 - cosine)
    return total


def test_loss_and_gradient_are_those_of_plain_loops_and_finite_differences() -> None:
    rng = np.random.default_rng(0)
    theta, server, clients = rng.normal(size=4), rng.normal(size=6), rng.normal(size=(4, 6))
    tensor = torch.from_numpy(theta).requires_grad_()
    loss = alignment_loss(tensor, torch.from_numpy(clients), torch.from_numpy(server))
    assert loss.item() == pytest.approx(loss_by_hand(theta, server, clients), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, tensor)
    for k in range(4):
        step = 1e-6 * np.eye(4)[k]
        difference = loss_by_hand(theta + step, server, clients) - loss_by_hand(theta - step, server, clients)
        assert gradient[k].item() == pytest.approx(difference / 2e-6, rel=1e-6, abs=1e-9)


def drawn(method: FedAWA, client: int, *, images: int = 10, away: float = 0.0) -> Update:
    """What a client near the start sends, or ``away`` from it in a direction of its own."""
    generator = torch.Generator().manual_seed(client)
    state = {
        name: tensor + (0.01 + away) * torch.randn(tensor.shape, generator=generator)
        for name, tensor in get_state(method).items()
    }
    return Update(client=client, state=state, num_examples=images, loss=1.0)


def rounds_of(method: FedAWA, cohorts: list[list[Update]], memory: State | None = None) -> tuple[State, State]:
    state: State = get_state(method)
    for cohort in cohorts:
        state, memory = aggregate(method, state, cohort, memory=memory)
    assert memory is not None
    return state, memory


def shares(memory: State) -> list[float]:
    return memory["method/theta"].softmax(0).tolist()


def test_weights_start_from_the_shares_of_the_data(backbone: Backbone) -> None:
    slow = build(replace(FAST, weights_rate=1e-9), backbone)
    updates = [drawn(slow, client, images=images) for client, images in enumerate((5, 20, 75))]
    for weighting, expected in ((None, (0.05, 0.2, 0.75)), ("data", (0.05, 0.2, 0.75)), ("uniform", (1 / 3,) * 3)):
        state, memory = aggregate(slow, get_state(slow), updates, weighting=weighting)
        assert shares(memory) == pytest.approx(expected, abs=1e-6)
        plain = mean_state(updates, weighting=weighting or "data")
        torch.testing.assert_close(dict(state), plain, atol=1e-6, rtol=1e-5)


def test_the_next_state_is_the_mean_by_the_weights_before_the_step(method: FedAWA) -> None:
    updates = [drawn(method, client, away=0.1 * client) for client in range(3)]
    state, memory = rounds_of(method, [updates])
    torch.testing.assert_close(dict(state), mean_state(updates, weighting="data"), atol=1e-6, rtol=1e-5)
    assert max(shares(memory)) - min(shares(memory)) > 0.01
    state, _ = rounds_of(method, [updates], memory)
    for name, tensor in state.items():
        by_hand = sum(p * u.state[name].double() for p, u in zip(shares(memory), updates, strict=True))
        torch.testing.assert_close(tensor, by_hand.float(), atol=1e-6, rtol=1e-6)


def test_a_new_adam_moves_every_theta_by_the_rate_against_its_gradient(method: FedAWA) -> None:
    cohort = [replace(drawn(method, k, away=0.05 * k), num_examples=k + 1) for k in range(3)]
    server = vector(get_state(method))
    memory: State | None = None
    expected = np.log([1.0, 2.0, 3.0])
    state: State = get_state(method)
    for _ in range(3):
        server, clients = vector(state), np.stack([vector(update.state) for update in cohort])
        state, memory = aggregate(method, state, cohort, memory=memory)
        steps = 1e-6 * np.eye(3)
        slopes = [
            loss_by_hand(expected + s, server, clients) - loss_by_hand(expected - s, server, clients) for s in steps
        ]
        expected = expected - FAST.weights_rate * np.sign(slopes)
        assert memory["method/theta"].numpy() == pytest.approx(expected, abs=1e-5)


def vector(state: State) -> np.ndarray:
    return np.concatenate([state[name].double().numpy().ravel() for name in sorted(state)])


def test_equal_clients_keep_equal_weights(method: FedAWA) -> None:
    same = [replace(drawn(method, 0), client=client) for client in range(4)]
    state, memory = rounds_of(method, [same] * 5)
    assert shares(memory) == pytest.approx([0.25] * 4, abs=1e-9)
    torch.testing.assert_close(dict(state), dict(same[0].state))


def test_an_outlier_loses_weight_from_round_to_round(method: FedAWA) -> None:
    cohort = [drawn(method, client, away=0.5 if client == 2 else 0.0) for client in range(4)]
    before, memory = 0.25, None
    for _ in range(6):
        _, memory = rounds_of(method, [cohort], memory)
        now = shares(memory)
        assert now[2] < before - 0.005
        assert min(now[:2] + now[3:]) > 0.25
        before = now[2]


def test_clients_that_do_not_take_part_keep_their_weights(method: FedAWA) -> None:
    everyone = [drawn(method, client, away=0.1 * client) for client in range(4)]
    _, first = rounds_of(method, [everyone])
    _, second = rounds_of(method, [everyone[1:3]], first)
    assert second["method/clients"].tolist() == [0, 1, 2, 3]
    assert (second["method/theta"] != first["method/theta"]).tolist() == [False, True, True, False]


def test_a_newcomer_joins_with_its_share_of_the_data(backbone: Backbone) -> None:
    slow = build(replace(FAST, weights_rate=1e-9), backbone)
    _, memory = aggregate(slow, get_state(slow), [drawn(slow, 1, images=10)])
    _, memory = aggregate(slow, get_state(slow), [drawn(slow, 0, images=30), drawn(slow, 1, images=10)], memory=memory)
    assert memory["method/clients"].tolist() == [0, 1]
    assert shares(memory) == pytest.approx([0.75, 0.25], abs=1e-6)


def test_a_stored_memory_goes_on_to_the_same_numbers(method: FedAWA, tmp_path: Path) -> None:
    cohorts = [[drawn(method, client, away=0.1 * client) for client in (0, round_index, 7)] for round_index in (2, 3)]
    _, memory = rounds_of(method, cohorts)
    save_checkpoint(tmp_path, Progress(rounds_done=2, state=get_state(method), personal={}, memory=memory), {})
    stored = load_checkpoint(tmp_path).progress.memory
    results = [rounds_of(method, cohorts, kept) for kept in (memory, stored)]
    for one, other in zip(*results, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(rounds_of(method, cohorts)[0]["context"], results[0][0]["context"])


def test_the_order_of_a_clients_tensors_does_not_matter(method: FedAWA) -> None:
    cohort = [drawn(method, client, away=0.1 * client) for client in range(3)]
    turned = [replace(update, state=dict(reversed(update.state.items()))) for update in cohort[:1]] + cohort[1:]
    one, other = (rounds_of(method, [some])[1]["method/theta"] for some in (cohort, turned))
    assert torch.equal(one, other)


def test_a_robust_rule_would_replace_what_it_learns(method: FedAWA) -> None:
    updates = [drawn(method, client) for client in range(5)]
    with pytest.raises(InputError, match="FedAWA has an aggregation of its own, which --aggregator median would rep"):
        aggregate(method, get_state(method), updates, aggregation=Aggregation(aggregator="median"))
    with pytest.raises(ValueError, match="nothing to average"):
        aggregate(method, get_state(method), [])


def test_a_client_trains_as_in_promptfl_with_four_tokens() -> None:
    assert trained_at_b16(FedAWAConfig()) == {"context": 2048, "calibration.scale": 1, "calibration.bias": 1}


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_wrong_rates(backbone: Backbone, rate: float) -> None:
    with pytest.raises(InputError, match="--weights-rate must be positive, got"):
        FedAWAConfig(weights_rate=rate).build(backbone, CLASS_NAMES, generator=torch.Generator())


def test_memory_is_small_and_exact(method: FedAWA) -> None:
    _, memory = rounds_of(method, [[drawn(method, client) for client in range(3)]])
    sizes: dict[str, Tensor] = dict(memory)
    assert {tensor.shape for tensor in sizes.values()} == {(3,)}
    assert sizes.pop("method/clients").dtype == torch.int64
    assert {tensor.dtype for tensor in sizes.values()} == {torch.float64}
