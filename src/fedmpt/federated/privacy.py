"""Differential privacy of clients: the options, what they go with, and the epsilon that rounds add up to.

Neighbours are two federations that differ in one client, which in one of them sends the server's state back unchanged.
Who takes part is no secret. All values of a round's updates together then move the clients' sum by at most the clip
norm, and noise of Z clip norms on the sum hides that (McMahan et al. 2018). Cohorts are drawn from a seed that all
know, so that only some clients train in a round makes no client more private in the rounds it is in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch

from fedmpt.federated.aggregation import Aggregation
from fedmpt.methods import Method
from fedmpt.state import Weighting
from fedmpt.types import InputError, check_options


@dataclass(frozen=True)
class Privacy:
    """Differential privacy of every client's updates."""

    dp_noise: float = 0.0
    """Z: noise of Z times --clip-norm on the sum of a round's updates makes the models differentially private for each
    client; 0 adds none."""
    dp_delta: float = 1e-5
    """delta: epsilon holds but for this probability; far below one over the number of clients."""
    dp_budget: float | None = None
    """Largest epsilon of any client: training ends before the round that would exceed it. No limit unless given."""
    dp_at: Literal["server", "sites"] = "server"
    """Who adds the noise: the server, which sees the updates without it, or each client a share of it."""

    @property
    def is_on(self) -> bool:
        return self.dp_noise > 0

    @property
    def is_at_sites(self) -> bool:
        return self.is_on and self.dp_at == "sites"

    def check(self, aggregation: Aggregation) -> None:
        """Raises InputError for values that cannot be, and for options without effect."""
        check_options(self, "[0, inf)", "dp_noise")
        if not self.is_on:
            given = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
            if given:
                raise InputError(f"--{given[0].replace('_', '-')} goes with --dp-noise above 0, such as --dp-noise 1")
            return
        check_options(self, "(0, 1)", "dp_delta")
        check_options(self, "(0, inf)", "dp_budget")
        if aggregation.aggregator != "mean":
            raise InputError(f"--dp-noise goes with --aggregator mean, not {aggregation.aggregator}")
        if aggregation.clip_norm is None:
            raise InputError("--dp-noise needs --clip-norm: noise covers no more than a client may change")
        if not self.allows(1):
            raise InputError(
                f"--dp-budget {self.dp_budget:g} is spent before the first round, which with --dp-noise "
                f"{self.dp_noise:g} alone has epsilon {self.epsilon(1):.3g}; give more noise, or a larger budget"
            )

    def check_fits(self, method: Method, weighting: Weighting | None) -> None:
        """Raises InputError where a method sends or averages what the noise does not cover."""
        if not self.is_on:
            return
        name = type(method).__name__
        if type(method).aggregate is not Method.aggregate:
            raise InputError(f"--dp-noise does not cover {name}, which has an aggregation of its own; take another")
        if buffers := sorted(dict(method.named_buffers()).keys() & method.state_dict().keys()):
            raise InputError(
                f"--dp-noise does not cover {name}: it also sends {buffers[0]!r}, which is a statistic of its images "
                "and cannot be clipped; take another --method"
            )
        if (weighting or method.weighting) != "uniform":
            raise InputError(
                "--dp-noise needs --weighting uniform: by its number of images, one client could weigh all"
            )

    def epsilon(self, rounds: int) -> float:
        """Of a client that took part in so many rounds, towards whoever sees all models of the server."""
        return gaussian_epsilon(self.dp_noise, rounds=rounds, delta=self.dp_delta)

    def epsilon_at_server(self, rounds: int, *, at_least: int) -> float:
        """The same towards a server that sees every client's own update, which has one share of the noise alone."""
        return gaussian_epsilon(self.dp_noise / math.sqrt(at_least), rounds=rounds, delta=self.dp_delta)

    def counted(self, before: Mapping[int, int], clients: Iterable[int]) -> Mapping[int, int]:
        """The rounds of each client, with one more for these; nobody counts without differential privacy."""
        return {**before, **{client: before.get(client, 0) + 1 for client in clients}} if self.is_on else before

    def spent(self, participations: Mapping[int, int]) -> float | None:
        """epsilon of the client that took part most often, which is the largest; None without differential privacy."""
        return self.epsilon(most_rounds(participations)) if self.is_on else None

    def allows(self, rounds: int) -> bool:
        """Whether the budget is enough for a client that takes part in so many rounds."""
        return self.dp_budget is None or self.epsilon(rounds) <= self.dp_budget


EXACT = Privacy()


def most_rounds(participations: Mapping[int, int]) -> int:
    """Of the client that took part most often."""
    return max(participations.values(), default=0)


def gaussian_epsilon(noise: float, *, rounds: int, delta: float) -> float:
    """epsilon of ``rounds`` sums with Gaussian noise of ``noise`` times their sensitivity, to a relative 1e-9.

    Exact, no bound: together they are one such sum with ``noise / sqrt(rounds)`` (Dong et al. 2019, corollary 3.3).
    """
    if rounds == 0:
        return 0.0
    distance = math.sqrt(rounds) / noise
    low, high = 0.0, 1.0
    if _delta(distance, low) <= delta:
        return 0.0
    while _delta(distance, high) > delta:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _delta(distance, middle) > delta else (low, middle)
    return high


def _delta(distance: float, epsilon: float) -> float:
    """The smallest delta of two unit Gaussians this far apart (Balle and Wang 2018, theorem 5)."""
    ends = torch.tensor([distance / 2 - epsilon / distance, -distance / 2 - epsilon / distance], dtype=torch.float64)
    # In logarithms: exp(epsilon) alone may be too large for a number.
    first, second = torch.special.log_ndtr(ends).tolist()
    return math.exp(first) * -math.expm1(epsilon + second - first)
