"""The options of aggregation: what cannot be is refused with a remedy, and so is what would have no effect."""

from __future__ import annotations

from typing import Any

import pytest

from fedmpt.federated.aggregation import Aggregation, num_trimmed
from fedmpt.types import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregator": "trimmed-mean", "trim": 0.5}, r"--trim must be in \[0, 0\.5\), got 0\.5"),
        ({"aggregator": "trimmed-mean", "trim": float("nan")}, r"--trim must be in \[0, 0\.5\), got nan"),
        ({"aggregator": "trimmed-mean", "trim": -0.1}, r"--trim must be in"),
        ({"aggregator": "krum", "num_faulty": -1}, "--num-faulty must not be negative, got -1"),
        ({"aggregator": "krum", "num_selected": 0}, "--num-selected must be positive, got 0"),
        ({"clip_norm": 0.0}, "--clip-norm must be positive, got 0"),
        ({"clip_norm": float("inf")}, "--clip-norm must be positive, got inf"),
        ({"server": "momentum", "server_learning_rate": -1.0}, "--server-learning-rate must be positive"),
        ({"server": "momentum", "server_momentum": 1.0}, r"--server-momentum must be in \[0, 1\), got 1"),
        ({"server": "adam", "server_beta1": -0.1}, r"--server-beta1 must be in \[0, 1\)"),
        ({"server": "adam", "server_beta2": 1.0}, r"--server-beta2 must be in \[0, 1\)"),
        ({"server": "adam", "server_tau": 0.0}, "--server-tau must be positive"),
        ({"trim": 0.2}, "--trim goes with --aggregator trimmed-mean, not mean"),
        ({"aggregator": "median", "num_faulty": 2}, "--num-faulty goes with --aggregator krum, not median"),
        ({"aggregator": "median", "num_selected": 2}, "--num-selected goes with --aggregator krum, not median"),
        ({"server_learning_rate": 1.0}, "--server-learning-rate goes with --server momentum or adam, not none"),
        ({"server": "adam", "server_momentum": 0.5}, "--server-momentum goes with --server momentum, not adam"),
        ({"server": "momentum", "server_tau": 0.1}, "--server-tau goes with --server adam, not momentum"),
    ],
)
def test_wrong_options_name_their_flag(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Aggregation(**options).check()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aggregator": "trimmed-mean", "trim": 0.0, "clip_norm": 1.0},
        {"aggregator": "krum", "num_faulty": 0, "num_selected": 3, "server": "adam", "server_beta1": 0.0},
        {"server": "momentum", "server_momentum": 0.0, "server_learning_rate": 2.0},
    ],
)
def test_right_options(options: dict[str, Any]) -> None:
    chosen = Aggregation(**options)
    chosen.check()
    chosen.check_cohort(10)
    assert {name: getattr(chosen, name) for name in options} == options


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        (
            {"aggregator": "median"},
            2,
            "--aggregator median needs at least 3 clients in a round, there are 2; have more",
        ),
        ({"aggregator": "trimmed-mean", "trim": 0.4}, 1, "--aggregator trimmed-mean needs at least 3 clients"),
        ({"aggregator": "trimmed-mean"}, 7, r"--trim 0\.1 of 7 clients in a round is none; give at least 0\.143"),
        ({"aggregator": "krum"}, 4, "krum with --num-faulty 1 needs at least 5 clients in a round, there are 4; have"),
        ({"aggregator": "krum", "num_faulty": 3}, 8, "needs at least 9 clients in a round, there are 8"),
        ({"aggregator": "krum", "num_selected": 3}, 5, "--num-selected 3 is too many for 5 clients .* at most 2"),
    ],
)
def test_a_cohort_that_is_too_small(options: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Aggregation(**options).check_cohort(size)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, 1),
        ({"aggregator": "median"}, 3),
        ({"aggregator": "trimmed-mean"}, 10),
        ({"aggregator": "trimmed-mean", "trim": 0.143}, 7),
        ({"aggregator": "trimmed-mean", "trim": 0.0}, 3),
        ({"aggregator": "krum"}, 5),
        ({"aggregator": "krum", "num_selected": 2}, 5),
        ({"aggregator": "krum", "num_faulty": 0}, 3),
    ],
)
def test_a_cohort_that_is_large_enough(options: dict[str, Any], size: int) -> None:
    Aggregation(**options).check_cohort(size)


@pytest.mark.parametrize(
    ("trim", "size", "expected"),
    [(0.1, 10, 1), (0.29, 100, 29), (0.3, 10, 3), (0.1, 9, 0), (0.499, 3, 1), (0.0, 50, 0), (0.5 - 1e-13, 1000, 499)],
)
def test_shares_become_counts(trim: float, size: int, expected: int) -> None:
    assert num_trimmed(trim, size) == expected


def test_weighting_by_what_clients_say_of_themselves_is_no_robust_rule() -> None:
    robust = Aggregation(aggregator="median")
    with pytest.raises(InputError, match="--weighting data goes with --aggregator mean; median counts every client on"):
        robust.check_weighting("data")
    robust.check_weighting("uniform")
    robust.check_weighting(None)
    Aggregation().check_weighting("data")


def test_the_servers_rate_has_a_default_for_each_optimiser() -> None:
    assert Aggregation(server="momentum").step == 1.0
    assert Aggregation(server="adam").step == 0.01
    assert Aggregation(server="adam", server_learning_rate=0.3).step == 0.3
