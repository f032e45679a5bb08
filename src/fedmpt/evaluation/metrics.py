"""Scores of multi-label recognition: mAP and the two families of F1.

Everything is in percent. Unknown labels take part in nothing. Classes without a known positive have no average
precision and no recall; they are left out of the means over classes, and counted.

Two definitions of CF1 are in use, and they differ by several points on imbalanced data: ``CF1`` is the mean of the
classes' F1 (DualCoOp), ``CF1_PR`` the harmonic mean of mean precision and mean recall (RAM, FedLGT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, UNKNOWN, InputError

Table = Tensor | np.ndarray
"""A table of images by classes as callers have it. Shapes are checked here rather than in the type, for the message."""
Threshold = float | Sequence[float] | Table
"""One for all classes, or one a class."""

METRICS = ("mAP", "CF1", "OF1", "CF1_PR")
ORACLE_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Scores:
    """How well probabilities agree with labels. All scores are in percent, 0 to 100.

    Attributes:
        mAP: mean of the average precisions in ``per_class``.
        CF1: mean of the classes' F1, over classes that have a positive.
        OF1: F1 over all known entries of all classes together (micro F1).
        CF1_PR: harmonic mean of mean precision and mean recall, over the classes of ``CF1``.
        per_class: average precision by class index; None for a class without a known positive.
        threshold: a class counts as predicted where its probability is above this; a tuple if each class has its own.
        num_classes_without_positives: classes left out of ``mAP``, ``CF1`` and ``CF1_PR``.
        num_images: rows scored.
    """

    mAP: float
    CF1: float
    OF1: float
    CF1_PR: float
    per_class: tuple[float | None, ...]
    threshold: float | tuple[float, ...]
    num_classes_without_positives: int
    num_images: int

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The scores as JSON holds them, ``per_class`` keyed by name and null where a class has no positives."""
        assert len(set(class_names)) == len(class_names), "scores are stored by name"
        return {
            **{metric: getattr(self, metric) for metric in METRICS},
            "per_class": dict(zip(class_names, self.per_class, strict=True)),
            "threshold": list(self.threshold) if isinstance(self.threshold, tuple) else self.threshold,
            "classes_without_positives": self.num_classes_without_positives,
            "num_images": self.num_images,
        }


def multilabel_scores(probabilities: Table, labels: Table, *, threshold: Threshold = 0.5) -> Scores:
    """Mean average precision and F1 scores, in percent, of probabilities [B, C] against labels [B, C].

    Average precision is scikit-learn's: the step-wise sum over distinct scores, without interpolation, so that ties
    cannot be won by the order of images. A class is predicted where its probability is strictly *above* the threshold,
    as in DualCoOp's evaluation; the threshold is rounded to the probabilities' precision first. The precision of a
    class that is never predicted is 0, and so is the harmonic mean of two zeros.

    Args:
        probabilities: in [0, 1]; a tensor or an array.
        labels: 1 present, 0 absent, -1 unknown (ignored everywhere); a tensor or an array.
        threshold: in [0, 1]; one for all classes, or one a class.

    Raises:
        InputError: if shapes disagree, nothing is given, no label is a known positive, a probability or threshold is
            outside [0, 1] or NaN, or a label is none of the three values.
    """
    answers = _checked_answers(probabilities, labels)
    cutoffs = _checked_threshold(threshold, num_classes=answers.present.shape[1])
    per_class = _average_precisions(answers)
    scored = [value for value in per_class if value is not None]
    return Scores(
        mAP=sum(scored) / len(scored),
        **f1_scores(_decisions(answers, cutoffs)),
        per_class=per_class,
        threshold=tuple(cutoffs.tolist()) if cutoffs.ndim else cutoffs.item(),
        num_classes_without_positives=len(per_class) - len(scored),
        num_images=len(answers.present),
    )


def oracle_scores(
    probabilities: Table, labels: Table, *, thresholds: Sequence[float] = ORACLE_THRESHOLDS
) -> dict[str, dict[str, float]]:
    """``{"CF1": {"score": ..., "threshold": ...}, "OF1": ..., "CF1_PR": ...}``: for each the best score in percent over
    ``thresholds``, and the lowest threshold that reaches it, chosen on the given labels.

    Optimistic: on test labels this picks the threshold with knowledge nobody has in use. It serves only to compare with
    published tables that were made this way. Inputs and errors are those of `multilabel_scores`.
    """
    answers = _checked_answers(probabilities, labels)
    tried = [(at, f1_scores(_decisions(answers, _checked_threshold(at, num_classes=1)))) for at in thresholds]
    best = {metric: max((scores[metric], -at) for at, scores in tried) for metric in METRICS[1:]}
    return {metric: {"score": score, "threshold": -lowest} for metric, (score, lowest) in best.items()}


def weighted_average_precision(probabilities: Table, labels: Table, weights: Table) -> float:
    """Mean average precision in percent, 0 to 100, where in each class an image weighs what ``weights`` [B, C] say.

    For example, cars on a street weigh 0.5 / 0.9 and cars elsewhere 0.5 / 0.1: the score is then near that on images
    in which cars and streets come independently. `fedmpt.federated.balance` makes such weights. Only the ratios within
    a class count; weights of one give the mAP of `multilabel_scores`, whose inputs and errors these are too.

    Args:
        probabilities: in [0, 1].
        labels: 1 present, 0 absent, -1 unknown (ignored, like its weight).
        weights: in (0, inf).
    """
    answers = _checked_answers(probabilities, labels)
    scored = [value for value in _average_precisions(answers, _as_floats(weights)) if value is not None]
    return sum(scored) / len(scored)


def decision_counts(probabilities: Table, labels: Table, *, threshold: Threshold = 0.5) -> Int64[np.ndarray, "3 C"]:
    """Of each class the hits, the entries counted as predicted, and the positives, among known labels.

    They add up over images, and `f1_scores` of them are those of `multilabel_scores`, whose inputs these are too. There
    may be no positive and no image.

    Raises:
        InputError: as `multilabel_scores`, but for labels none of which is positive.
    """
    answers = _checked_answers(probabilities, labels, must_show=False)
    return _decisions(answers, _checked_threshold(threshold, num_classes=answers.present.shape[1]))


def f1_scores(decisions: Int64[np.ndarray, "3 C"]) -> dict[str, float]:
    """CF1, OF1 and CF1_PR in percent by name, of `decision_counts` with a positive in at least one class."""
    hits, predicted, positives = decisions
    # False alarms in classes without positives still count against the overall score.
    overall = 2 * hits.sum() / (predicted.sum() + positives.sum())
    hits, predicted, positives = (counts[positives > 0] for counts in (hits, predicted, positives))
    # A class that is never predicted has no hits either, so dividing by one makes its precision 0.
    precision = float((hits / np.maximum(predicted, 1)).mean())
    recall = float((hits / positives).mean())
    both = precision + recall
    return {
        "CF1": 100 * float((2 * hits / (predicted + positives)).mean()),
        "OF1": 100 * float(overall),
        "CF1_PR": 100 * 2 * precision * recall / both if both > 0 else 0.0,
    }


class _Answers(NamedTuple):
    probabilities: Float[np.ndarray, "B C"]
    present: Bool[np.ndarray, "B C"]
    known: Bool[np.ndarray, "B C"]


def _decisions(answers: _Answers, cutoff: Float[np.ndarray, "..."]) -> Int64[np.ndarray, "3 C"]:
    """``cutoff`` is one for all classes, or one a class."""
    is_predicted = (answers.probabilities > cutoff.astype(answers.probabilities.dtype)) & answers.known
    return np.stack([table.sum(axis=0) for table in (is_predicted & answers.present, is_predicted, answers.present)])


def _average_precisions(answers: _Answers, weights: Float[np.ndarray, "B C"] | None = None) -> tuple[float | None, ...]:
    # scikit-learn takes about a second to import, and most users of this module never score anything.
    from sklearn.metrics import average_precision_score

    # One class at a time is read below, so each should lie in one piece.
    columns = [np.ascontiguousarray(table.T) for table in answers]
    by_class = [None] * len(columns[0]) if weights is None else np.ascontiguousarray(weights.T)
    return tuple(
        100 * float(average_precision_score(present[known], probabilities[known], sample_weight=_of(weight, known)))
        if present.any()
        else None
        for probabilities, present, known, weight in zip(*columns, by_class, strict=True)
    )


def _of(weight: Float[np.ndarray, " B"] | None, known: Bool[np.ndarray, " B"]) -> Float[np.ndarray, " known"] | None:
    return None if weight is None else weight[known]


def _checked_answers(probabilities: Table, labels: Table, *, must_show: bool = True) -> _Answers:
    scores, truth = _as_floats(probabilities), _as_array(labels)
    if scores.ndim != 2 or scores.shape != truth.shape:
        raise InputError(
            f"probabilities have shape {scores.shape} and labels {truth.shape}; both must be [images, classes]"
        )
    # Written so that NaN, for which every comparison is false, is outside as well.
    _refuse("probability", scores, ~((scores >= 0) & (scores <= 1)), "in [0, 1]; pass a sigmoid of logits")
    allowed = "1 (present), 0 (absent) or -1 (unknown); map the labels to these three values first"
    _refuse("label", truth, ~np.isin(truth, (PRESENT, ABSENT, UNKNOWN)), allowed)
    present = truth == PRESENT
    if must_show and not present.any():
        raise InputError(
            "no label is 1 (present), so no score is defined; check that split and classes are the right ones"
        )
    return _Answers(probabilities=scores, present=present, known=truth != UNKNOWN)


def _refuse(noun: str, table: Shaped[np.ndarray, "B C"], is_bad: Bool[np.ndarray, "B C"], allowed: str) -> None:
    if is_bad.any():
        row, column = np.argwhere(is_bad)[0]
        raise InputError(
            f"{noun} {table[row, column]} at row {row}, class index {column} ({is_bad.sum()} such entries in all) is "
            f"not {allowed}"
        )


def _checked_threshold(threshold: Threshold, *, num_classes: int) -> Float[np.ndarray, "..."]:
    given = _as_floats(threshold)
    if given.shape not in {(), (num_classes,)}:
        raise InputError(f"threshold has shape {given.shape}; give one number, or {num_classes}, one a class")
    inside = (given >= 0) & (given <= 1)
    if not inside.all():
        raise InputError(f"threshold {given[~inside].flat[0]} is outside [0, 1]; it is compared with probabilities")
    return given


def _as_array(values: Threshold) -> Shaped[np.ndarray, "..."]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        # NumPy has no bfloat16; half precision goes to float32, where every value of it is exact.
        values = (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()
    return np.asarray(values)


def _as_floats(values: Threshold) -> Float[np.ndarray, "..."]:
    array = _as_array(values)
    return array if array.dtype.kind == "f" else array.astype(np.float64)
