"""Differential privacy: epsilon against numbers that are not ours, and what its noise would not cover is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_method import toy

from fedmpt.backbone.image_tower import shapes_of
from fedmpt.data.datasets.voc import CLASS_NAMES
from fedmpt.federated.aggregation import Aggregation
from fedmpt.federated.privacy import Privacy, gaussian_epsilon
from fedmpt.methods import METHODS
from fedmpt.state import num_bytes, num_parameters
from fedmpt.types import InputError

CLIPPED = Aggregation(clip_norm=1.0)


# By dp_accounting 0.6.0, of Gaussian events one after the other: PLDAccountant with steps of 1e-4, and RdpAccountant,
# which is an upper bound.
@pytest.mark.parametrize(
    ("noise", "rounds", "delta", "by_pld", "by_rdp"),
    [
        (1.0, 1, 1e-5, 4.377178, 4.728507),
        (1.0, 10, 1e-5, 17.856587, 19.053598),
        (0.3, 10, 1e-5, 99.672919, 104.449642),
        (3.0, 10, 1e-5, 4.652985, 5.023950),
        (10.0, 50, 1e-6, 3.307601, 3.542361),
        (30.0, 10, 1e-5, 0.360789, 0.397253),
    ],
)
def test_epsilon_is_that_of_dp_accounting(
    noise: float, rounds: int, delta: float, by_pld: float, by_rdp: float
) -> None:
    found = gaussian_epsilon(noise, rounds=rounds, delta=delta)
    assert found == pytest.approx(by_pld, rel=1e-5)
    assert found < by_rdp


# By mpmath with 60 digits: the root of Phi(m/2 - e/m) - exp(e) Phi(-m/2 - e/m) = delta.
@pytest.mark.parametrize(("rounds", "expected"), [(1, 4.37717809568122), (10, 17.8565868301076)])
def test_epsilon_to_nine_digits(rounds: int, expected: float) -> None:
    assert gaussian_epsilon(1.0, rounds=rounds, delta=1e-5) == pytest.approx(expected, rel=2e-9)


def test_epsilon_at_its_ends() -> None:
    assert gaussian_epsilon(1.0, rounds=0, delta=1e-5) == 0
    # Noise so large that delta alone is more than two such sums differ by.
    assert gaussian_epsilon(1e6, rounds=1, delta=1e-5) == 0
    # exp(epsilon) is no number any more; epsilon is close to m^2 / 2, with m = sqrt(rounds) / noise.
    assert gaussian_epsilon(0.001, rounds=1000, delta=1e-5) == pytest.approx(5e8, rel=1e-3)


def test_towards_the_server_only_one_share_of_the_noise_counts() -> None:
    shared = Privacy(dp_noise=3.0, dp_at="sites")
    assert shared.epsilon(10) == pytest.approx(4.652985, rel=1e-5)
    assert shared.epsilon_at_server(10, at_least=9) == pytest.approx(17.856587, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "aggregation", "message"),
    [
        ({"dp_noise": -1.0}, CLIPPED, "--dp-noise must not be negative"),
        ({"dp_noise": float("nan")}, CLIPPED, "--dp-noise must not be negative"),
        ({"dp_noise": float("inf")}, CLIPPED, "--dp-noise must not be negative"),
        ({"dp_delta": 1e-6}, CLIPPED, "--dp-delta goes with --dp-noise above 0"),
        ({"dp_budget": 8.0}, CLIPPED, "--dp-budget goes with --dp-noise above 0"),
        ({"dp_at": "sites"}, CLIPPED, "--dp-at goes with --dp-noise above 0"),
        ({"dp_noise": 1.0, "dp_delta": 0.0}, CLIPPED, r"--dp-delta must be in \(0, 1\), got 0"),
        ({"dp_noise": 1.0, "dp_delta": 1.0}, CLIPPED, r"--dp-delta must be in \(0, 1\), got 1"),
        ({"dp_noise": 1.0, "dp_budget": 0.0}, CLIPPED, "--dp-budget must be positive"),
        ({"dp_noise": 1.0}, Aggregation(), "--dp-noise needs --clip-norm"),
        (
            {"dp_noise": 1.0},
            Aggregation(aggregator="median", clip_norm=1.0),
            "--dp-noise goes with --aggregator mean, not median",
        ),
        (
            {"dp_noise": 1.0, "dp_budget": 4.0},
            CLIPPED,
            r"--dp-budget 4 is spent before the first round, which with --dp-noise 1 alone has epsilon 4\.38; give",
        ),
    ],
)
def test_wrong_options_name_their_flag(options: dict[str, Any], aggregation: Aggregation, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Privacy(**options).check(aggregation)


def test_right_options_are_taken_and_a_budget_up_to_the_first_rounds_epsilon() -> None:
    off, enough = Privacy(), Privacy(dp_noise=1.0, dp_budget=4.38, dp_at="sites")
    off.check(Aggregation(aggregator="median"))
    enough.check(Aggregation(clip_norm=1.0, server="adam"))
    assert (off.is_on, enough.is_on, enough.is_at_sites) == (False, True, True)
    assert (enough.allows(1), enough.allows(2)) == (True, False)
    with pytest.raises(InputError, match="is spent before the first round"):
        replace(enough, dp_budget=4.37).check(Aggregation(clip_norm=1.0, server="adam"))


REFUSED = {"fedawa": "FedAWA, which has an aggregation of its own", "ram": "RAM: it also sends 'adapters.0.point.norm"}


DOCS = Path(__file__).parents[2] / "docs" / "privacy.md"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_covered_or_refused(name: str) -> None:
    """What a method sends is trained tensors, which are clipped, or there is a message. The docs say how much it is."""
    method = METHODS[name]().build(shapes_of(), CLASS_NAMES, generator=torch.Generator())
    sent, stays = method.split(method.state_dict())
    numbers = (len(sent), num_parameters(sent), num_bytes(sent), num_parameters(stays))
    assert f"| `{name}` | {' | '.join(f'{number:,}' for number in numbers)} |" in DOCS.read_text().splitlines()
    private = Privacy(dp_noise=1.0)
    Privacy().check_fits(method, None)
    if name in REFUSED:
        with pytest.raises(InputError, match=f"--dp-noise does not cover {REFUSED[name]}"):
            private.check_fits(method, "uniform")
        return
    private.check_fits(method, "uniform")
    assert sent.keys() <= dict(method.named_parameters()).keys()


def test_weights_by_what_clients_say_of_themselves_are_refused() -> None:
    private, own = Privacy(dp_noise=1.0), toy()
    private.check_fits(own, None)
    with pytest.raises(InputError, match="--dp-noise needs --weighting uniform"):
        private.check_fits(own, "data")
    own.weighting = "data"
    with pytest.raises(InputError, match="--dp-noise needs --weighting uniform"):
        private.check_fits(own, None)
