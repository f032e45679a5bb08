"""What FedMPT's conditions are worth: what is lost without each of them, and how many of them the data support.

Nothing is trained here: a condition is dropped by giving its weight to the others in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int8, Int32
from torch import Tensor

from fedmpt.seeding import generator
from fedmpt.types import PRESENT, UNKNOWN

Kept = tuple[int, ...]
"""Places of conditions, in rising order."""
Scores = Mapping[str, Any]
"""In percent: those of `MAIN`, and what else there is."""
MAIN = ("mAP", "CF1", "OF1")
NUM_RESAMPLES, SEED = 200, 0
"""Resamples of the images behind each interval, and their seed."""
_ROUNDING, _POINTS_ROUNDING = 1e-4, 1e-9
"""An effective number of 3 that rounding made 3.0000001 is 3. Equal conditions have mAPs that differ by 1e-14."""


@dataclass(frozen=True, eq=False)
class ConditionParts:
    """What FedMPT's prediction for each image is mixed from, on the CPU in fp32.

    ``predictions`` are each condition's own, in [0, 1], before gate and calibration; rows of the ``gate`` sum to one;
    ``text_cosines`` are of two conditions' prompts, mean over the classes; ``calibrated`` is what the method makes of
    mixed predictions.
    """

    names: tuple[str, ...]
    predictions: Float[Tensor, "images N C"]
    gate: Float[Tensor, "images N"]
    labels: Int8[Tensor, "images C"]
    text_cosines: Float[Tensor, "N N"]
    calibrated: Callable[[Tensor], Tensor] = lambda mixture: mixture

    def mixture(self, kept: Kept | None = None) -> Float[Tensor, "images C"]:
        """Predictions of all conditions, or of those ``kept`` with their weights made to sum to one again.

        Where the gate gave all its weight to conditions that are dropped, those kept count the same.
        """
        weights, predictions = self.gate, self.predictions
        if kept is not None and len(kept) < len(self.names):
            weights, predictions = weights[:, kept], predictions[:, kept]
            total = weights.sum(1, keepdim=True)
            weights = torch.where(total > 0, weights / total, 1 / len(kept))
        return torch.einsum("bn,bnc->bc", weights, predictions).clamp_max(1)

    def probabilities(self, kept: Kept | None = None) -> Float[Tensor, "images C"]:
        """What the method says with all conditions, or with those ``kept``: `mixture`, calibrated if it is."""
        return self.calibrated(self.mixture(kept))


def score_conditions(
    parts: ConditionParts, metric: Callable[[Tensor, Tensor], Scores], *, tolerance: float = 0.2, has_gate: bool = True
) -> dict[str, Any]:
    """All that `fedmpt conditions score` reports, by names, as JSON holds it: null where a number is undefined.

    ``alone`` has each condition by itself and ``dropped`` the model without it. ``elimination`` drops one after the
    other, each time what costs least, or what the gate uses least of what costs the same. ``suggestions`` are
    conditions to keep: the fewest on that way whose mAP is within ``tolerance`` points of all, and, if the weights were
    trained (``has_gate``), those with the largest mean, as many as the effective number of the means. ``metric`` takes
    probabilities and labels [images, C]; it is called N (N + 1) / 2 times.
    """
    everything = tuple(range(len(parts.names)))

    @cache
    def scored(kept: Kept) -> Scores:
        return metric(parts.probabilities(kept), parts.labels)

    def entry(kept: Kept) -> dict[str, Any]:
        return {"conditions": [parts.names[index] for index in kept], "mAP": scored(kept)["mAP"]}

    use = _gate_use(parts)
    mean = [weights["mean"] for weights in use["per_condition"].values()]
    steps = [everything]
    while len(steps[-1]) > 1:
        found = {index: scored(_without(steps[-1], index))["mAP"] for index in steps[-1]}
        best = max(found.values()) - _POINTS_ROUNDING
        steps.append(_without(steps[-1], min((index for index in found if found[index] >= best), key=mean.__getitem__)))
    # The last that is near enough: mAP may rise and fall on the way down.
    enough = scored(everything)["mAP"] - tolerance - _POINTS_ROUNDING
    fewest = [kept for kept in steps if scored(kept)["mAP"] >= enough][-1]
    gone = [None, *(parts.names[(set(before) - set(kept)).pop()] for before, kept in pairwise(steps))]
    num = math.ceil(use["effective_number"]["of_mean"] - _ROUNDING)
    most_used = tuple(sorted(sorted(everything, key=lambda index: -mean[index])[:num]))
    return {
        "conditions": list(parts.names),
        "num_images": len(parts.gate),
        "full": scored(everything),
        "use": use,
        "difference": _differences(parts),
        "alone": {name: {key: scored((index,))[key] for key in MAIN} for index, name in enumerate(parts.names)},
        "dropped": _drop_each(parts, scored),
        "interval": {"level": 0.95, "resamples": NUM_RESAMPLES, "seed": SEED},
        "elimination": [
            {"num": len(kept), **entry(kept), "dropped": name} for kept, name in zip(steps, gone, strict=True)
        ],
        "tolerance": tolerance,
        "suggestions": {"gate": entry(most_used) if has_gate else None, "drop": entry(fewest)},
    }


def _gate_use(parts: ConditionParts) -> dict[str, Any]:
    """How the gate spreads its weight.

    ``largest`` is the share of the images in which a condition has the largest weight; ties are shared out. Entropies
    are over log N, from 0 for one alone to 1 for all evenly. The effective number, e to the entropy, is as many
    conditions as would have it, evenly used.
    """
    gate, most = parts.gate.double(), math.log(len(parts.names))
    is_largest = (gate == gate.amax(1, keepdim=True)).double()
    columns = {
        "mean": gate.mean(0),
        "std": gate.std(0, correction=0),
        "min": gate.amin(0),
        "max": gate.amax(0),
        "largest": (is_largest / is_largest.sum(1, keepdim=True)).mean(0),
    }
    per_image, of_mean = (torch.special.entr(weights).sum(-1) for weights in (gate, gate.mean(0)))
    return {
        "per_condition": {
            name: {column: values[index].item() for column, values in columns.items()}
            for index, name in enumerate(parts.names)
        },
        "entropy": {"per_image": per_image.mean().item() / most, "of_mean": of_mean.item() / most},
        "effective_number": {"per_image": per_image.exp().mean().item(), "of_mean": of_mean.exp().item()},
    }


def _differences(parts: ConditionParts) -> dict[str, Any]:
    """How far conditions' predictions, before gate and calibration, are from each other and from their mixture.

    ``absolute`` is in the mean over images and classes, ``correlation`` Pearson's over images, in the mean over the
    classes in which both vary.
    """
    tables = torch.stack([*parts.predictions.unbind(1), parts.mixture()]).double()
    # 0 / 0 is NaN where one does not vary: in fp64 the mean of equal fp32 numbers is exactly that number.
    centred = tables - tables.mean(1, keepdim=True)
    scaled = centred / centred.norm(dim=1, keepdim=True)
    correlation = _table(torch.einsum("kbc,lbc->klc", scaled, scaled).clamp(-1, 1).nanmean(2))
    absolute = _table(torch.stack([(tables - table).abs().mean((1, 2)) for table in tables]))
    return {
        "absolute": [row[:-1] for row in absolute[:-1]],
        "correlation": [row[:-1] for row in correlation[:-1]],
        "from_mixture": {
            name: {"absolute": absolute[-1][index], "correlation": correlation[-1][index]}
            for index, name in enumerate(parts.names)
        },
        "text_cosine": _table(parts.text_cosines),
    }


def _drop_each(parts: ConditionParts, scored: Callable[[Kept], Scores]) -> dict[str, Any]:
    """Scores without each condition, and what is lost: the interval is where 95% lie when images are drawn anew.

    ``decisions_changed`` is the share of images times classes that pass 0.5 only with the condition or only without.
    """
    everything, full, found = tuple(range(len(parts.names))), parts.probabilities(), {}
    # How often each image is in each resample, drawn with replacement: the same for both sides of a difference.
    num, draws = len(parts.gate), (generator(SEED, "bootstrap", resample) for resample in range(NUM_RESAMPLES))
    resamples = [torch.randint(num, (num,), generator=drawn).bincount(minlength=num).int() for drawn in draws]
    counts = torch.stack(resamples, 1).numpy()
    full_means = resampled_means(full, parts.labels, counts)
    for index, name in enumerate(parts.names):
        kept = _without(everything, index)
        without = parts.probabilities(kept)
        losses = full_means - resampled_means(without, parts.labels, counts)
        losses = losses[~np.isnan(losses)]
        found[name] = {
            **{key: scored(kept)[key] for key in MAIN},
            "loss": scored(everything)["mAP"] - scored(kept)["mAP"],
            "interval": np.quantile(losses, [0.025, 0.975]).tolist() if len(losses) else [None, None],
            "decisions_changed": ((full > 0.5) != (without > 0.5)).float().mean().item(),
        }
    return found


def _without(kept: Kept, dropped: int) -> Kept:
    return tuple(index for index in kept if index != dropped)


def _table(table: Float[Tensor, "rows columns"]) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in table.tolist()]


def resampled_means(
    probabilities: Float[Tensor, "images C"], labels: Int8[Tensor, "images C"], counts: Int32[np.ndarray, "images R"]
) -> Float[np.ndarray, " R"]:
    """mAP of every resample, all at once, as `multilabel_scores` defines it, in percent; NaN without a positive."""
    total, scored = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for scores, answers in zip(probabilities.T.numpy(), labels.T.numpy(), strict=True):
        order = np.argsort(-scores, kind="stable")
        order = order[answers[order] != UNKNOWN]
        if len(order):
            ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # The last image of each score.
            above = counts[order].cumsum(0, dtype=np.int32)[ends]
            hits = (counts[order] * (answers[order] == PRESENT)[:, None]).cumsum(0, dtype=np.int32)[ends]
            # Where nothing was drawn so far there are no hits either, so that dividing by one gives 0.
            precisions = np.diff(hits, axis=0, prepend=0) * (hits / np.maximum(above, 1))
            total += precisions.sum(0) / np.maximum(hits[-1], 1)
            scored += hits[-1] > 0
    return np.where(scored > 0, 100 * total / np.maximum(scored, 1), np.nan)
