"""What FedMPT's conditions are worth: what is lost without each of them, and how many of them the data support.

Nothing is trained here: a condition is dropped by giving its weight to the others in proportion. A model trained
without it would make up for some of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fedmpt.conditions.scores.bootstrap import difference_interval, draw_counts, resampled_means
from fedmpt.conditions.scores.parts import ConditionParts, Differences, GateUse, differences, gate_use
from fedmpt.evaluation.metrics import Scores, multilabel_scores
from fedmpt.types import InputError

By = Literal["drop", "gate"]

NUM_RESAMPLES, SEED = 200, 0
"""Resamples of the images behind each interval, and their seed."""

# An effective number of 3 that rounding made 3.0000001 is 3. Equal conditions have mAPs that differ by 1e-14.
_ROUNDING = 1e-4
_POINTS_ROUNDING = 1e-9


@dataclass(frozen=True)
class Dropped:
    """The model without one condition.

    Attributes:
        scores: of the others' mixture.
        loss: points of mAP that all conditions are better by; negative where it is better without.
        interval: where 95% of ``loss`` lie when images are drawn anew; NaN where no resample has a positive.
        decisions_changed: share of images times classes that pass 0.5, the method's calibration applied, only with the
            condition or only without.
    """

    scores: Scores
    loss: float
    interval: tuple[float, float]
    decisions_changed: float


@dataclass(frozen=True)
class Step:
    """A step of backward elimination: which conditions are left, which one went, and the mAP of those left."""

    kept: tuple[int, ...]
    dropped: int | None
    mAP: float


@dataclass(frozen=True)
class Suggestion:
    """Conditions to keep, and the mAP of their mixture as it is, without training."""

    kept: tuple[int, ...]
    mAP: float


@dataclass(frozen=True, eq=False)
class ConditionScores:
    """Everything `fedmpt conditions score` reports. Conditions are in the order of ``parts.names``.

    Attributes:
        parts: what it is computed from.
        full: scores of the model as it is.
        use, differences: see there.
        alone: scores of each condition by itself.
        dropped: the model without each condition.
        steps: backward elimination, from all conditions to one: each step drops what costs least.
        by_drop: the fewest conditions of ``steps`` whose mAP is within the tolerance of all.
        by_gate: the conditions with the largest mean weight, as many as the effective number of the mean weights,
            rounded up; None where the weights are not trained.
    """

    parts: ConditionParts
    full: Scores
    use: GateUse
    differences: Differences
    alone: tuple[Scores, ...]
    dropped: tuple[Dropped, ...]
    steps: tuple[Step, ...]
    by_drop: Suggestion
    by_gate: Suggestion | None
    tolerance: float

    def suggested(self, by: By) -> Suggestion:
        """Conditions to keep. The gate may be asked only where there is one."""
        found = self.by_drop if by == "drop" else self.by_gate
        assert found is not None
        return found

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Everything by names, as JSON holds it: null where a number is undefined."""
        names = self.parts.names
        return {
            "conditions": list(names),
            "num_images": len(self.parts.gate),
            "full": self.full.to_json(class_names),
            "use": _use_json(self.use, names),
            "difference": _difference_json(self.differences, self.parts),
            "alone": {name: _short(scores) for name, scores in zip(names, self.alone, strict=True)},
            "dropped": {
                name: {
                    **_short(one.scores),
                    "loss": one.loss,
                    "interval": [_defined(bound) for bound in one.interval],
                    "decisions_changed": one.decisions_changed,
                }
                for name, one in zip(names, self.dropped, strict=True)
            },
            "interval": {"level": 0.95, "resamples": NUM_RESAMPLES, "seed": SEED},
            "elimination": [
                {
                    "num": len(step.kept),
                    "conditions": [names[index] for index in step.kept],
                    "dropped": None if step.dropped is None else names[step.dropped],
                    "mAP": step.mAP,
                }
                for step in self.steps
            ],
            "tolerance": self.tolerance,
            "suggestions": {
                "drop": self._suggestion_json(self.by_drop),
                "gate": None if self.by_gate is None else self._suggestion_json(self.by_gate),
            },
        }

    def _suggestion_json(self, suggestion: Suggestion) -> dict[str, Any]:
        return {"conditions": [self.parts.names[index] for index in suggestion.kept], "mAP": suggestion.mAP}


def score_conditions(parts: ConditionParts, *, tolerance: float = 0.2, has_gate: bool = True) -> ConditionScores:
    """All scores. ``tolerance`` is in points of mAP; ``has_gate`` says whether the weights were trained.

    Takes N (N + 1) / 2 scorings of all images, and N + 1 of `NUM_RESAMPLES` resamples.

    Raises:
        InputError: if the tolerance is negative or no number, or no image shows any class.
    """
    if not 0 <= tolerance < math.inf:
        raise InputError(f"--tolerance must be in points of mAP, 0 or more; got {tolerance}")
    mixtures = _Mixtures(parts)
    everything = tuple(range(parts.num_conditions))
    full, use = mixtures.scores(everything), gate_use(parts.gate)
    steps = _eliminate(mixtures, use.mean)
    # The last that is near enough: mAP may rise and fall on the way down.
    least = full.mAP - tolerance - _POINTS_ROUNDING
    by_drop = [Suggestion(step.kept, step.mAP) for step in steps if step.mAP >= least][-1]
    most_used = _most_used(use)
    return ConditionScores(
        parts=parts,
        full=full,
        use=use,
        differences=differences(parts),
        alone=tuple(mixtures.scores((index,)) for index in everything),
        dropped=_drop_each(mixtures),
        steps=steps,
        by_drop=by_drop,
        by_gate=Suggestion(most_used, mixtures.scores(most_used).mAP) if has_gate else None,
        tolerance=tolerance,
    )


class _Mixtures:
    """Scores of mixtures, each computed once."""

    def __init__(self, parts: ConditionParts) -> None:
        self.parts = parts
        self._scores: dict[tuple[int, ...], Scores] = {}

    def scores(self, kept: tuple[int, ...]) -> Scores:
        if kept not in self._scores:
            self._scores[kept] = multilabel_scores(self.parts.probabilities(kept), self.parts.labels)
        return self._scores[kept]


def _without(kept: tuple[int, ...], dropped: int) -> tuple[int, ...]:
    return tuple(index for index in kept if index != dropped)


def _drop_each(mixtures: _Mixtures) -> tuple[Dropped, ...]:
    parts = mixtures.parts
    everything = tuple(range(parts.num_conditions))
    # The same resamples for all, so that what is hard in them is hard for both sides of a difference.
    counts = draw_counts(len(parts.gate), NUM_RESAMPLES, seed=SEED)
    full = parts.probabilities()
    full_resampled = resampled_means(full, parts.labels, counts)

    def dropped(index: int) -> Dropped:
        kept = _without(everything, index)
        found = parts.probabilities(kept)
        scores = mixtures.scores(kept)
        return Dropped(
            scores=scores,
            loss=mixtures.scores(everything).mAP - scores.mAP,
            interval=difference_interval(full_resampled, resampled_means(found, parts.labels, counts)),
            decisions_changed=((full > 0.5) != (found > 0.5)).float().mean().item(),
        )

    return tuple(map(dropped, everything))


def _eliminate(mixtures: _Mixtures, use: Sequence[float]) -> tuple[Step, ...]:
    """Backward elimination by mAP; of conditions that cost the same, the one the gate uses least goes."""
    kept = tuple(range(mixtures.parts.num_conditions))
    steps = [Step(kept, None, mixtures.scores(kept).mAP)]
    while len(kept) > 1:
        found = {index: mixtures.scores(_without(kept, index)).mAP for index in kept}
        best = max(found.values()) - _POINTS_ROUNDING
        least = min((index for index in kept if found[index] >= best), key=lambda index: use[index])
        kept = _without(kept, least)
        steps.append(Step(kept, least, found[least]))
    return tuple(steps)


def _most_used(use: GateUse) -> tuple[int, ...]:
    num = min(math.ceil(use.effective_of_mean - _ROUNDING), len(use.mean))
    order = sorted(range(len(use.mean)), key=lambda index: -use.mean[index])
    return tuple(sorted(order[:num]))


def _use_json(use: GateUse, names: Sequence[str]) -> dict[str, Any]:
    columns = {"mean": use.mean, "std": use.spread, "min": use.lowest, "max": use.highest, "largest": use.largest}
    return {
        "per_condition": {
            name: {column: values[index] for column, values in columns.items()} for index, name in enumerate(names)
        },
        "entropy": {"per_image": use.entropy_per_image, "of_mean": use.entropy_of_mean},
        "effective_number": {"per_image": use.effective_per_image, "of_mean": use.effective_of_mean},
    }


def _difference_json(found: Differences, parts: ConditionParts) -> dict[str, Any]:
    return {
        "absolute": _table_json(found.absolute),
        "correlation": _table_json(found.correlation),
        "from_mixture": {
            name: {"absolute": absolute, "correlation": _defined(correlation)}
            for name, absolute, correlation in zip(
                parts.names, found.from_mixture.tolist(), found.with_mixture.tolist(), strict=True
            )
        },
        "text_cosine": _table_json(parts.text_cosines),
    }


def _table_json(table: Tensor) -> list[list[float | None]]:
    return [[_defined(value) for value in row] for row in table.tolist()]


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _short(scores: Scores) -> Mapping[str, float]:
    return {"mAP": scores.mAP, "CF1": scores.CF1, "OF1": scores.OF1}
