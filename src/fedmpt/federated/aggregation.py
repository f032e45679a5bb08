"""The options of aggregation, and which of them fit together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from fedmpt.state import Weighting
from fedmpt.types import InputError, check_options

# An option that has no effect is refused: whoever gave it believes that it has one.
OWNERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "trim": ("aggregator", ("trimmed-mean",)),
    "num_faulty": ("aggregator", ("krum",)),
    "num_selected": ("aggregator", ("krum",)),
    "server_learning_rate": ("server", ("momentum", "adam")),
    "server_momentum": ("server", ("momentum",)),
    "server_beta1": ("server", ("adam",)),
    "server_beta2": ("server", ("adam",)),
    "server_tau": ("server", ("adam",)),
}
SERVER_LEARNING_RATES = {"momentum": 1.0, "adam": 0.01}
MIN_ROBUST_COHORT = 3


@dataclass(frozen=True)
class Aggregation:
    """How the server makes the next state of a round's updates, for every method."""

    aggregator: Literal["mean", "trimmed-mean", "median", "krum"] = "mean"
    """mean: the method's own, weighted mean; the others bear some faulty or hostile clients: trimmed-mean and median
    go value by value, krum keeps the updates that lie closest together."""
    trim: float = 0.1
    """Share of the values that trimmed-mean drops at either end, in [0, 0.5)."""
    num_faulty: int = 1
    """f: faulty clients that krum has to bear in a round; needs at least 2 f + 3 clients."""
    num_selected: int = 1
    """Updates that krum averages: 1 is Krum, more is multi-Krum."""
    clip_norm: float | None = None
    """Largest L2 norm of what a client changes; more is scaled down. Not clipped unless given."""
    server: Literal["none", "momentum", "adam"] = "none"
    """What the server does with the mean change of a round: nothing more, momentum (FedAvgM) or adam (FedAdam)."""
    server_learning_rate: float | None = None
    """Server's step: 1 for momentum and 0.01 for adam unless given."""
    server_momentum: float = 0.9
    """Share of the last rounds' change that momentum keeps, in [0, 1)."""
    server_beta1: float = 0.9
    """Decay of adam's mean change, in [0, 1)."""
    server_beta2: float = 0.99
    """Decay of adam's mean squared change, in [0, 1)."""
    server_tau: float = 1e-3
    """tau: the change below which adam's steps get small."""

    @property
    def step(self) -> float:
        """The server's learning rate. Only where there is a server optimiser."""
        given = self.server_learning_rate
        return SERVER_LEARNING_RATES[self.server] if given is None else given

    def check(self) -> None:
        """Raises InputError for values that cannot be, and for options without effect."""
        for field in fields(self):
            choice, words = OWNERS.get(field.name, ("aggregator", (self.aggregator,)))
            if getattr(self, field.name) != field.default and getattr(self, choice) not in words:
                flag = field.name.replace("_", "-")
                raise InputError(f"--{flag} goes with --{choice} {' or '.join(words)}, not {getattr(self, choice)}")
        check_options(self, "[0, 0.5)", "trim")
        check_options(self, "[0, inf)", "num_faulty")
        check_options(self, "(0, inf)", "num_selected", "clip_norm", "server_learning_rate", "server_tau")
        check_options(self, "[0, 1)", "server_momentum", "server_beta1", "server_beta2")

    def check_cohort(self, size: int) -> None:
        """Raises InputError if rounds of ``size`` clients are too small for the aggregator."""
        remedy = "; have more clients, or a larger --participation, or take another --aggregator"
        if self.aggregator in ("trimmed-mean", "median") and size < MIN_ROBUST_COHORT:
            raise InputError(
                f"--aggregator {self.aggregator} needs at least {MIN_ROBUST_COHORT} clients in a round, "
                f"there are {size}{remedy}"
            )
        if self.aggregator == "trimmed-mean" and self.trim > 0 and num_trimmed(self.trim, size) == 0:
            least = math.ceil(1000 / size) / 1000
            raise InputError(f"--trim {self.trim} of {size} clients in a round is none; give at least {least}")
        if self.aggregator == "krum":
            if size < 2 * self.num_faulty + 3:
                raise InputError(
                    f"--aggregator krum with --num-faulty {self.num_faulty} needs at least {2 * self.num_faulty + 3} "
                    f"clients in a round, there are {size}{remedy}"
                )
            # Multi-Krum bears f faulty clients up to this number (Damaskinos et al. 2019, lemma 1).
            most = size - self.num_faulty - 2
            if self.num_selected > most:
                raise InputError(
                    f"--num-selected {self.num_selected} is too many for {size} clients in a round of which "
                    f"{self.num_faulty} may be faulty; give at most {most}"
                )

    def check_weighting(self, given: Weighting | None) -> None:
        """Raises InputError if a user's ``--weighting`` would have no effect."""
        # A client says itself how many images it has: counted by them, one could buy the result.
        if given == "data" and self.aggregator != "mean":
            raise InputError(
                f"--weighting data goes with --aggregator mean; {self.aggregator} counts every client once"
            )


def num_trimmed(trim: float, size: int) -> int:
    """How many of ``size`` values a share of ``trim`` drops at either end."""
    # 0.29 of 100 is 29, whatever the product is rounded to; and something has to be left.
    return min(math.floor(trim * size + 1e-9), (size - 1) // 2)
