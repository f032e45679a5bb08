"""What a run says of its differential privacy: before it trains, where a budget ends it, and in its results."""

from __future__ import annotations

from typing import Any

from fedmpt.federated.privacy import most_rounds
from fedmpt.federated.rounds import Progress
from fedmpt.runs.config import RunConfig


def what_is_private(config: RunConfig, *, is_simulated: bool = True) -> list[str]:
    """Notes for whoever asked for privacy, on what it does not cover. ``is_simulated`` if the noise is `seeded`."""
    if not config.privacy.is_on:
        return []
    notes = [
        "epsilon is of the models alone: loss, numbers of images, counts of labels, calibration and scores of clients' "
        "own images are exact",
    ]
    if is_simulated:
        notes.append(
            "the noise is drawn from --seed, so this run only simulates differential privacy: whoever knows the seed "
            "can take the noise off"
        )
    return notes


def ended_early(config: RunConfig, progress: Progress) -> list[str]:
    """A note where the budget was spent before all rounds were done."""
    done, rounds = progress.rounds_done, config.federation.rounds
    if config.privacy.dp_budget is None or done == rounds:
        return []
    most = most_rounds(progress.participations)
    return [
        f"--dp-budget {config.privacy.dp_budget:g} ended the training after {done} of {rounds} rounds: epsilon is "
        f"{config.privacy.epsilon(most):.3g}, and would be {config.privacy.epsilon(most + 1):.3g} with one more. With "
        f"--rounds {done} the learning rate falls to its end in these"
    ]


def spent(config: RunConfig, progress: Progress, *, at_least: int) -> dict[str, Any]:
    """For results.json: epsilon of the client that took part most often, and what it follows from.

    ``epsilon_server`` is there where clients add the noise: of the same client, towards the server. ``at_least`` shares
    of it make the whole noise, see `fedmpt.federated.protect.protected`.
    """
    privacy = config.privacy
    if not privacy.is_on:
        return {}
    most = most_rounds(progress.participations)
    found = {
        "epsilon": privacy.epsilon(most),
        "delta": privacy.dp_delta,
        "noise": privacy.dp_noise,
        "clip_norm": config.aggregation.clip_norm,
        "at": privacy.dp_at,
        "most_rounds_of_a_client": most,
    }
    if privacy.is_at_sites:
        found["epsilon_server"] = privacy.epsilon_at_server(most, at_least=at_least)
    return {"privacy": found}
