"""Server optimisers against torch's SGD and against the paper's update written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.server_optimizer import server_step
from fedmpt.types import State

NAMES = ["weight", "bias/odd.name"]


def state(value: float, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"weight": value + torch.randn(2, 3, generator=generator), NAMES[1]: torch.full((), value)}


MEANS = [state(0.1 * seed, seed) for seed in range(1, 6)]
"""What clients agree on in five rounds, wherever the server stands."""


def rounds_of(options: Aggregation) -> tuple[list[State], State]:
    found, memory = [state(0.0)], {}
    for averaged in MEANS:
        now, memory = server_step(found[-1], averaged, memory, parameters=NAMES, aggregation=options)
        found.append(now)
    return found, memory


@pytest.mark.parametrize(("momentum", "rate"), [(0.9, 1.0), (0.0, 0.3), (0.5, 2.0)])
def test_fedavgm_is_torchs_sgd_on_the_change(momentum: float, rate: float) -> None:
    found, _ = rounds_of(Aggregation(server="momentum", server_momentum=momentum, server_learning_rate=rate))
    values = {name: tensor.double().requires_grad_() for name, tensor in state(0.0).items()}
    optimizer = torch.optim.SGD(values.values(), lr=rate, momentum=momentum)
    for averaged, ours in zip(MEANS, found[1:], strict=True):
        for name, value in values.items():
            value.grad = value.detach() - averaged[name]
        optimizer.step()
        torch.testing.assert_close(dict(ours), {n: v.detach().float() for n, v in values.items()}, rtol=1e-5, atol=1e-6)


def test_without_momentum_and_with_rate_one_it_is_the_mean() -> None:
    found, _ = rounds_of(Aggregation(server="momentum", server_momentum=0.0, server_learning_rate=1.0))
    for averaged, ours in zip(MEANS, found[1:], strict=True):
        assert all(torch.equal(ours[name], averaged[name]) for name in NAMES)


def test_fedadam_is_the_papers_update() -> None:
    """Reddi et al. 2021, algorithm 2, for one number in plain Python."""
    rate, beta1, beta2, tau = 0.05, 0.8, 0.95, 0.02
    options = Aggregation(
        server="adam", server_learning_rate=rate, server_beta1=beta1, server_beta2=beta2, server_tau=tau
    )
    found, memory = rounds_of(options)
    here, first, second = state(0.0)["weight"][1, 2].item(), 0.0, tau**2
    for averaged, ours in zip(MEANS, found[1:], strict=True):
        change = averaged["weight"][1, 2].item() - here
        first = beta1 * first + (1 - beta1) * change
        second = beta2 * second + (1 - beta2) * change**2
        here += rate * first / (math.sqrt(second) + tau)
        assert ours["weight"][1, 2].item() == pytest.approx(here, rel=1e-5)
    assert memory["first_moment/weight"][1, 2].item() == pytest.approx(first, rel=1e-5)
    assert memory["second_moment/weight"][1, 2].item() == pytest.approx(second, rel=1e-5)
    assert memory.keys() == {f"{slot}/{name}" for slot in ("first_moment", "second_moment") for name in NAMES}


def test_what_is_no_parameter_is_taken_as_averaged_and_nothing_is_written_to() -> None:
    previous, averaged = state(0.0), state(1.0)
    kept = {name: tensor.clone() for name, tensor in (*previous.items(), *averaged.items())}
    found, memory = server_step(
        previous, averaged, {}, parameters=["weight"], aggregation=Aggregation(server="adam", server_learning_rate=0.5)
    )
    assert torch.equal(found[NAMES[1]], averaged[NAMES[1]])
    assert not torch.equal(found["weight"], averaged["weight"])
    assert memory.keys() == {"first_moment/weight", "second_moment/weight"}
    assert all(torch.equal(averaged[name], kept[name]) for name in averaged)


def test_memory_has_the_parameters_precision() -> None:
    _, memory = rounds_of(Aggregation(server="adam"))
    assert {tensor.dtype for tensor in memory.values()} == {torch.float32}
