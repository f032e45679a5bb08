"""Noise: how much of it, on what, from where; at the server and at the clients."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from toy_method import CLASSES, WIDTH, Toy, toy

from fedmpt.federated.aggregate import aggregate
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.privacy import Privacy
from fedmpt.federated.protect import Noise, entropy, protected, seeded
from fedmpt.state import Update
from fedmpt.types import InputError, State

LARGE = 20_000
CLIP = 0.5


class WithScalar(Toy):
    """One of its parameters is a single number, without an axis."""

    def __init__(self) -> None:
        super().__init__(CLASSES, WIDTH, personal_offset=False, generator=torch.Generator())
        self.gate = nn.Parameter(torch.zeros(()))


def filled(value: float) -> State:
    return {"weight": torch.full((CLASSES, WIDTH), value), "offset": torch.full((CLASSES,), value)}


def of_ones(shape: torch.Size) -> torch.Tensor:
    """Noise that can be worked out by hand."""
    return torch.ones(shape, dtype=torch.float64)


@pytest.mark.parametrize("noise", [seeded(3, 1), entropy])
def test_noise_is_standard_normal(noise: Noise) -> None:
    values = noise(torch.Size([LARGE, 2]))
    assert values.shape == (LARGE, 2)
    # A right source is refused once in ten million runs.
    assert kstest(values.flatten().numpy(), "norm").pvalue > 1e-7
    assert abs(torch.corrcoef(values.T)[0, 1]) < 5.4 / LARGE**0.5
    assert noise(torch.Size([])).shape == ()


def test_noise_of_a_seed_can_be_drawn_again_and_that_of_the_system_cannot() -> None:
    shape = torch.Size([4])
    first = seeded(3, 1, 2)
    drawn = first(shape)
    assert torch.equal(drawn, seeded(3, 1, 2)(shape))
    others = [first(shape), seeded(4, 1, 2)(shape), seeded(3, 2, 2)(shape), seeded(3, 1, 3)(shape), seeded(3, 1)(shape)]
    assert not any(torch.equal(drawn, other) for other in others)
    assert not torch.equal(entropy(shape), entropy(shape))


def test_the_servers_noise_by_hand() -> None:
    """Two changes of lengths sqrt(18) and 2 sqrt(18), cut to 0.5, and noise of 3 times 0.5 on their sum."""
    updates = [Update(0, filled(1.0), 5, 0.0), Update(4, filled(-2.0), 50, 0.0)]
    options, private = Aggregation(clip_norm=CLIP), Privacy(dp_noise=3.0)
    state, memory = aggregate(toy(), filled(0.0), updates, aggregation=options, privacy=private, noise=of_ones)
    expected = (0.5 / math.sqrt(18) - 0.5 / math.sqrt(18) + 3.0 * 0.5) / 2
    torch.testing.assert_close(dict(state), dict(filled(expected)))
    assert memory == {}


def test_the_servers_optimiser_steps_on_the_noised_mean() -> None:
    options = Aggregation(clip_norm=CLIP, server="momentum", server_learning_rate=2.0)
    state, _ = aggregate(
        toy(),
        filled(1.0),
        [Update(0, filled(1.0), 1, 0.0)],
        aggregation=options,
        privacy=Privacy(dp_noise=3.0),
        noise=of_ones,
    )
    torch.testing.assert_close(dict(state), dict(filled(1.0 + 2.0 * 3.0 * 0.5)))


def test_single_numbers_get_noise_as_all_else() -> None:
    method = WithScalar()
    start = {**filled(0.0), "gate": torch.zeros(())}
    updates = [Update(client, start, 1, 0.0) for client in range(4)]
    options, private = Aggregation(clip_norm=CLIP), Privacy(dp_noise=2.0)
    found = []
    for index in range(400):
        state, _ = aggregate(method, start, updates, aggregation=options, privacy=private, noise=seeded(0, index))
        found.append([state["gate"].item(), state["weight"][0, 0].item(), state["offset"][2].item()])
    deviations = torch.tensor(found).std(0)
    # 2 * 0.5 / 4, known to 5 / sqrt(2 * 400), or 18 percent, but for one case in a million.
    torch.testing.assert_close(deviations, torch.full((3,), 0.25), rtol=0.18, atol=0)


def test_what_is_not_noised_is_refused_at_the_server_too() -> None:
    private = Privacy(dp_noise=1.0)
    updates = [Update(0, filled(1.0), 1, 0.0)]
    with pytest.raises(InputError, match="--dp-noise needs --clip-norm"):
        aggregate(toy(), filled(0.0), updates, privacy=private, noise=of_ones)
    with pytest.raises(InputError, match="--dp-noise needs --weighting uniform"):
        aggregate(
            toy(),
            filled(0.0),
            updates,
            weighting="data",
            aggregation=Aggregation(clip_norm=CLIP),
            privacy=private,
            noise=of_ones,
        )


def test_shares_of_all_clients_make_the_servers_noise() -> None:
    """Nine clients send 30,000 values that have not changed: of the mean, noise of 2 * 0.5 / 9 is left."""
    width = 10_000
    method, start = toy(width=width), {"weight": torch.zeros(CLASSES, width), "offset": torch.zeros(CLASSES)}
    private, options = Privacy(dp_noise=2.0, dp_at="sites"), Aggregation(clip_norm=CLIP)
    updates = [
        protected(
            method,
            Update(client, start, 1, 0.0),
            start,
            clip_norm=CLIP,
            privacy=private,
            at_least=9,
            noise=seeded(0, client),
        )
        for client in range(9)
    ]
    assert updates[0].state["weight"].std().item() == pytest.approx(2 * 0.5 / 3, rel=0.03)
    state, _ = aggregate(method, start, updates, aggregation=options, privacy=private)
    assert state["weight"].std().item() == pytest.approx(2 * 0.5 / 9, rel=0.03)


def test_a_client_cuts_its_change_before_it_adds_noise() -> None:
    """The server does not cut it again: noise is longer than the norm."""
    private = Privacy(dp_noise=3.0, dp_at="sites")
    update = Update(2, filled(1.0), 7, 0.25)
    sent = protected(toy(), update, filled(0.0), clip_norm=CLIP, privacy=private, at_least=4, noise=of_ones)
    expected = filled(0.5 / math.sqrt(18) + 3.0 * 0.5 / 2)
    torch.testing.assert_close(dict(sent.state), dict(expected))
    assert (sent.client, sent.num_examples, sent.loss) == (2, 7, 0.25)
    state, _ = aggregate(toy(), filled(0.0), [sent], aggregation=Aggregation(clip_norm=CLIP), privacy=private)
    torch.testing.assert_close(dict(state), dict(expected))
