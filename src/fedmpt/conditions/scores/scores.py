"""What FedMPT's conditions are worth: what is lost without each of them, and how many of them the data support.

Nothing is trained here: a condition is dropped by giving its weight to the others in proportion. A model trained
without it would make up for some of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.conditions.scores.bootstrap import difference_interval, draw_counts, resampled_means
from fedmpt.conditions.scores.parts import ConditionParts

Metric = Callable[[Tensor, Tensor], Mapping[str, Any]]
"""Probabilities and labels [images, C] to scores in percent: ``mAP``, ``CF1``, ``OF1`` and what else there is."""
Scored = Callable[[tuple[int, ...]], Mapping[str, Any]]
"""Conditions that are kept to the same of their mixture."""

NUM_RESAMPLES, SEED = 200, 0
"""Resamples of the images behind each interval, and their seed."""

_ROUNDING, _POINTS_ROUNDING = 1e-4, 1e-9
"""An effective number of 3 that rounding made 3.0000001 is 3. Equal conditions have mAPs that differ by 1e-14."""


def score_conditions(
    parts: ConditionParts, metric: Metric, *, tolerance: float = 0.2, has_gate: bool = True
) -> dict[str, Any]:
    """All that `fedmpt conditions score` reports, by names, as JSON holds it: null where a number is undefined.

    ``full`` are the scores of the model as it is, ``use`` is of the gate's weights, ``difference`` of the conditions'
    own predictions, ``alone`` has each condition by itself and ``dropped`` the model without it. ``elimination`` drops
    one after the other, each time what costs least. ``suggestions`` are conditions to keep: the fewest on that way
    whose mAP is within the tolerance of all, and those with the largest mean weight, as many as the effective number
    of the mean weights.

    Takes N (N + 1) / 2 scorings of all images, and N + 1 of `NUM_RESAMPLES` resamples.

    Args:
        tolerance: in points of mAP.
        has_gate: whether the weights were trained; without, they suggest nothing.
    """

    @cache
    def scored(kept: tuple[int, ...]) -> Mapping[str, Any]:
        return metric(parts.probabilities(kept), parts.labels)

    def named(kept: Iterable[int]) -> list[str]:
        return [parts.names[index] for index in kept]

    use, mean = _gate_use(parts)
    steps = _eliminate(scored, mean)
    # The last that is near enough: mAP may rise and fall on the way down.
    least = scored(steps[0])["mAP"] - tolerance - _POINTS_ROUNDING
    suggested = {"drop": [kept for kept in steps if scored(kept)["mAP"] >= least][-1]}
    if has_gate:
        most_used = sorted(range(len(mean)), key=lambda index: -mean[index])
        num = math.ceil(use["effective_number"]["of_mean"] - _ROUNDING)
        suggested["gate"] = tuple(sorted(most_used[:num]))
    suggestions = {by: {"conditions": named(kept), "mAP": scored(kept)["mAP"]} for by, kept in suggested.items()}
    return {
        "conditions": list(parts.names),
        "num_images": len(parts.gate),
        "full": scored(steps[0]),
        "use": use,
        "difference": _differences(parts),
        "alone": {name: _main(scored((index,))) for index, name in enumerate(parts.names)},
        "dropped": _drop_each(parts, scored),
        "interval": {"level": 0.95, "resamples": NUM_RESAMPLES, "seed": SEED},
        "elimination": [
            {
                "num": len(kept),
                "conditions": named(kept),
                "dropped": None if kept == before else named(set(before) - set(kept))[0],
                "mAP": scored(kept)["mAP"],
            }
            for before, kept in pairwise([steps[0], *steps])
        ],
        "tolerance": tolerance,
        "suggestions": {"gate": None, **suggestions},
    }


def _gate_use(parts: ConditionParts) -> tuple[dict[str, Any], list[float]]:
    """How the gate spreads its weight, and the mean weights.

    ``largest`` is the share of the images in which a condition has the largest weight; ties are shared out. Entropies
    are over log N, so 1 is even and 0 is one condition alone. The effective number, e to the entropy, is as many
    conditions as would have it, evenly used. Where images differ in what they use, that of the mean weights is larger.
    """
    gate = parts.gate.double()
    mean, is_largest = gate.mean(0), (gate == gate.amax(1, keepdim=True)).double()
    columns = {
        "mean": mean,
        "std": gate.std(0, correction=0),
        "min": gate.amin(0),
        "max": gate.amax(0),
        "largest": (is_largest / is_largest.sum(1, keepdim=True)).mean(0),
    }
    per_image, of_mean = (-torch.xlogy(weights, weights).sum(-1) for weights in (gate, mean))
    most = math.log(len(parts.names))
    use = {
        "per_condition": {
            name: {column: values[index].item() for column, values in columns.items()}
            for index, name in enumerate(parts.names)
        },
        "entropy": {"per_image": per_image.mean().item() / most, "of_mean": of_mean.item() / most},
        "effective_number": {"per_image": per_image.exp().mean().item(), "of_mean": of_mean.exp().item()},
    }
    return use, mean.tolist()


def _differences(parts: ConditionParts) -> dict[str, Any]:
    """How far conditions' predictions, before gate and calibration, are from each other and from their mixture.

    ``absolute`` is the mean absolute difference over images and classes, ``correlation`` Pearson's over the images,
    mean over the classes in which both vary.
    """
    tables = [*parts.predictions.unbind(1), parts.mixture()]
    absolute = torch.tensor([[(one - other).abs().mean(dtype=torch.float64) for other in tables] for one in tables])
    by_class = [_correlations(torch.stack(rows).double()) for rows in zip(*(table.T for table in tables), strict=True)]
    correlation = torch.stack(by_class).nanmean(0)
    from_mixture = _table(torch.stack([absolute[:-1, -1], correlation[:-1, -1]], 1))
    return {
        "absolute": _table(absolute[:-1, :-1]),
        "correlation": _table(correlation[:-1, :-1]),
        "from_mixture": {
            name: {"absolute": gap, "correlation": same}
            for name, (gap, same) in zip(parts.names, from_mixture, strict=True)
        },
        "text_cosine": _table(parts.text_cosines),
    }


def _correlations(rows: Float[Tensor, "K images"]) -> Float[Tensor, "K K"]:
    """Pearson's correlation of each two rows; NaN, which 0 / 0 is, where one does not vary."""
    # In fp64 the mean of equal fp32 numbers is exactly that number.
    centred = rows - rows.mean(1, keepdim=True)
    scaled = centred / centred.norm(dim=1, keepdim=True)
    return (scaled @ scaled.T).clamp(-1, 1)


def _drop_each(parts: ConditionParts, scored: Scored) -> dict[str, dict[str, Any]]:
    """Scores without each condition, and what is lost: the interval is where 95% lie when images are drawn anew.

    ``decisions_changed`` is the share of images times classes that pass 0.5 only with the condition or only without.
    """
    everything = tuple(range(len(parts.names)))
    # The same resamples for all, so that what is hard in them is hard for both sides of a difference.
    counts = draw_counts(len(parts.gate), NUM_RESAMPLES, seed=SEED)
    full = parts.probabilities()
    full_means = resampled_means(full, parts.labels, counts)
    found = {}
    for index, name in enumerate(parts.names):
        kept = _without(everything, index)
        probabilities = parts.probabilities(kept)
        means = resampled_means(probabilities, parts.labels, counts)
        found[name] = {
            **_main(scored(kept)),
            "loss": scored(everything)["mAP"] - scored(kept)["mAP"],
            "interval": difference_interval(full_means, means),
            "decisions_changed": ((full > 0.5) != (probabilities > 0.5)).float().mean().item(),
        }
    return found


def _eliminate(scored: Scored, use: Sequence[float]) -> list[tuple[int, ...]]:
    """Backward elimination by mAP; of conditions that cost the same, the one the gate uses least goes."""
    steps = [tuple(range(len(use)))]
    while len(steps[-1]) > 1:
        found = {index: scored(_without(steps[-1], index))["mAP"] for index in steps[-1]}
        best = max(found.values()) - _POINTS_ROUNDING
        least = min((index for index in found if found[index] >= best), key=lambda index: use[index])
        steps.append(_without(steps[-1], least))
    return steps


def _without(kept: tuple[int, ...], dropped: int) -> tuple[int, ...]:
    return tuple(index for index in kept if index != dropped)


def _main(scores: Mapping[str, Any]) -> dict[str, float]:
    return {key: scores[key] for key in ("mAP", "CF1", "OF1")}


def _table(table: Float[Tensor, "rows columns"]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in table.tolist()]
