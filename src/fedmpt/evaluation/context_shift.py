"""Spurious co-occurrence, measured: how a class is found without the one it usually comes with.

A pair is a *context* a (a cat) and a *target* b (a chair) that training shows together more often than chance would,
see `fedmpt.data.pairs`. What a model does for b in images with a says whether it looked at b, or at a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, UNKNOWN, InputError, Pair

RECALL = 0.8
"""Share of a target's images that have to be found before its false co-activations are counted."""


@dataclass(frozen=True)
class PairScores:
    """One pair's scores in percent; None where its images are missing.

    Attributes:
        exclusive: average precision of b without a, against images with a and without b.
        cooccurring: average precision of b with a, against the same images.
        false_coactivation: share of the images with a and without b whose score for b reaches the threshold at which
            80% of all images with b are found, so that calibration plays no part.
        false_coactivation_balanced: the same at the highest threshold at which the mean of two recalls is 80%: on
            images with b alone and on images with both. Where few images show both, a model may report b less wherever
            a is, and hardly lose recall; here the images with both count as much as the others.
        num_exclusive, num_cooccurring, num_context_only: images of the three kinds: b alone, both, a alone.
    """

    exclusive: float | None
    cooccurring: float | None
    false_coactivation: float | None
    false_coactivation_balanced: float | None
    num_exclusive: int
    num_cooccurring: int
    num_context_only: int


@dataclass(frozen=True)
class ContextShift:
    """Means over the pairs that have a value, in percent (None where none has), and the pairs themselves.

    ``gap`` is ``cooccurring - exclusive``, over pairs that have both: how much of b's score is owed to a.
    """

    exclusive: float | None
    cooccurring: float | None
    gap: float | None
    false_coactivation: float | None
    false_coactivation_balanced: float | None
    per_pair: tuple[PairScores, ...]

    @classmethod
    def of(cls, per_pair: Sequence[PairScores]) -> ContextShift:
        """The means of what was found for each pair."""
        both = [one for one in per_pair if one.exclusive is not None and one.cooccurring is not None]
        return cls(
            exclusive=_mean([one.exclusive for one in per_pair]),
            cooccurring=_mean([one.cooccurring for one in per_pair]),
            gap=_mean([one.cooccurring - one.exclusive for one in both]),  # type: ignore[operator]
            false_coactivation=_mean([one.false_coactivation for one in per_pair]),
            false_coactivation_balanced=_mean([one.false_coactivation_balanced for one in per_pair]),
            per_pair=tuple(per_pair),
        )

    def to_json(self, pairs: Sequence[Pair], class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON holds it; pairs are keyed ``"cat -> chair"``."""
        names = [f"{class_names[context]} -> {class_names[target]}" for context, target in pairs]
        means = {key: value for key, value in vars(self).items() if key != "per_pair"}
        return {**means, "per_pair": {n: vars(scores) for n, scores in zip(names, self.per_pair, strict=True)}}


def context_shift(
    probabilities: Tensor, labels: Tensor, pairs: Sequence[Pair], *, moved: Tensor | None = None
) -> ContextShift:
    """Scores of [images, C] probabilities on the images that tell a pair's two classes apart.

    Images where the label of a or b is unknown take no part in a pair's scores. ``moved``, booleans [images], are
    those that a cut tie moved to the test (`fedmpt.data.ties`). If it is given, only moved images with a alone count,
    and only other images with b: then thresholds come from the same images whichever were moved.

    Raises:
        InputError: if shapes disagree, there is no pair, or a pair does not name two different classes.
    """
    if probabilities.shape != labels.shape or probabilities.ndim != 2:
        shapes = f"{tuple(probabilities.shape)} and labels {tuple(labels.shape)}"
        raise InputError(f"probabilities have shape {shapes}; both must be [images, classes]")
    if not pairs:
        raise InputError("no pairs of classes to measure; give at least one")
    num_classes = labels.shape[1]
    for context, target in pairs:
        if context == target or not (0 <= context < num_classes and 0 <= target < num_classes):
            raise InputError(f"pair ({context}, {target}) does not name two of the classes 0 to {num_classes - 1}")
    scores, truth = probabilities.detach().cpu().float().numpy(), labels.cpu().numpy()
    targets = truth
    if moved is not None:
        targets = np.where(moved.cpu().numpy()[:, None] == (truth == ABSENT), truth, UNKNOWN)
    return ContextShift.of([_pair_scores(scores[:, b], truth[:, a], targets[:, b]) for a, b in pairs])


def _pair_scores(scores: np.ndarray, context: np.ndarray, target: np.ndarray) -> PairScores:
    alone = scores[(target == PRESENT) & (context == ABSENT)]
    together = scores[(target == PRESENT) & (context == PRESENT)]
    context_only = scores[(target == ABSENT) & (context == PRESENT)]
    return PairScores(
        exclusive=_average_precision(alone, context_only),
        cooccurring=_average_precision(together, context_only),
        false_coactivation=_false_coactivation(_threshold(scores[target == PRESENT]), context_only),
        false_coactivation_balanced=_false_coactivation(_threshold(alone, together), context_only),
        num_exclusive=len(alone),
        num_cooccurring=len(together),
        num_context_only=len(context_only),
    )


def _average_precision(positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " n"]) -> float | None:
    from sklearn.metrics import average_precision_score  # Imported late: it takes a second.

    if not (len(positive) and len(negative)):
        return None
    labels: Bool[np.ndarray, " pn"] = np.arange(len(positive) + len(negative)) < len(positive)
    return 100 * float(average_precision_score(labels, np.concatenate([positive, negative])))


def _threshold(*groups: np.ndarray) -> float | None:
    """The highest score that finds 80% in the mean over groups of images with b; None where a group is empty."""
    if not all(map(len, groups)):
        return None
    scores = np.unique(np.concatenate(groups))
    missed = sum(np.searchsorted(np.sort(group), scores) / len(group) for group in groups)
    # Shares are not exact in floating point; the tolerance is below any difference between two of them.
    return float(scores[missed <= (1 - RECALL) * len(groups) + 1e-9][-1])


def _false_coactivation(threshold: float | None, context_only: Float[np.ndarray, " n"]) -> float | None:
    if threshold is None or not len(context_only):
        return None
    return 100 * float((context_only >= threshold).mean())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
