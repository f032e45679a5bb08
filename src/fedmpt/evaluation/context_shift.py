"""Spurious co-occurrence, measured: how a class is found without the one it usually comes with.

A pair is a *context* a (a cat) and a *target* b (a chair) that training shows together more often than chance would,
see `biased_pairs`. What a model does for b in images with a says whether it looked at b, or at a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int8, Int64
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, InputError

RECALL = 0.8
"""Share of a target's images that have to be found before its false co-activations are counted."""

Pair = tuple[int, int]
"""Class indices of context and target."""


@dataclass(frozen=True)
class PairScores:
    """One pair's scores in percent; None where its images are missing.

    Attributes:
        exclusive: average precision of b without a, against images with a and without b.
        cooccurring: average precision of b with a, against the same images.
        false_coactivation: share of the images with a and without b whose score for b reaches the threshold at which
            80% of all images with b are found, so that calibration plays no part.
        num_exclusive, num_cooccurring, num_context_only: images of the three kinds: b alone, both, a alone.
    """

    exclusive: float | None
    cooccurring: float | None
    false_coactivation: float | None
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
    per_pair: tuple[PairScores, ...]

    def to_json(self, pairs: Sequence[Pair], class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON holds it; pairs are keyed ``"cat -> chair"``."""
        names = [f"{class_names[context]} -> {class_names[target]}" for context, target in pairs]
        means = {key: getattr(self, key) for key in ("exclusive", "cooccurring", "gap", "false_coactivation")}
        return {**means, "per_pair": {n: vars(scores) for n, scores in zip(names, self.per_pair, strict=True)}}


def context_shift(probabilities: Tensor, labels: Tensor, pairs: Sequence[Pair]) -> ContextShift:
    """Scores of [images, C] probabilities on the images that tell a pair's two classes apart.

    Images where the label of a or b is unknown take no part in a pair's scores.

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
    found = tuple(_pair_scores(scores[:, target], truth[:, context], truth[:, target]) for context, target in pairs)
    both = [one for one in found if one.exclusive is not None and one.cooccurring is not None]
    return ContextShift(
        exclusive=_mean([one.exclusive for one in found]),
        cooccurring=_mean([one.cooccurring for one in found]),
        gap=_mean([one.cooccurring - one.exclusive for one in both]),  # type: ignore[operator]
        false_coactivation=_mean([one.false_coactivation for one in found]),
        per_pair=found,
    )


def _pair_scores(scores: np.ndarray, context: np.ndarray, target: np.ndarray) -> PairScores:
    alone = scores[(target == PRESENT) & (context == ABSENT)]
    together = scores[(target == PRESENT) & (context == PRESENT)]
    context_only = scores[(target == ABSENT) & (context == PRESENT)]
    return PairScores(
        exclusive=_average_precision(alone, context_only),
        cooccurring=_average_precision(together, context_only),
        false_coactivation=_false_coactivation(scores[target == PRESENT], context_only),
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


def _false_coactivation(positive: Float[np.ndarray, " p"], context_only: Float[np.ndarray, " n"]) -> float | None:
    if not (len(positive) and len(context_only)):
        return None
    needed = math.ceil(RECALL * len(positive))
    threshold = np.sort(positive)[-needed]
    return 100 * float((context_only >= threshold).mean())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class BiasedPair:
    """A context a and a target b, class indices, with counts of images in which both labels are known.

    ``lift`` is P(a and b) / (P(a) P(b)) in training, above 1. ``num_train_context`` and ``num_train_target`` are
    training images with a and with b, ``num_train_joint`` those with both. In the test set, ``num_exclusive`` show b
    alone, ``num_cooccurring`` both and ``num_context_only`` a alone.
    """

    context: int
    target: int
    lift: float
    num_train_context: int
    num_train_target: int
    num_train_joint: int
    num_exclusive: int
    num_cooccurring: int
    num_context_only: int


@dataclass(frozen=True)
class BiasedPairs:
    """The most biased pairs of a data set that can be measured, most biased first.

    ``num_biased`` pairs had lift above 1 and joint images enough, and ``num_measurable`` of them test images enough:
    where ``per_pair`` is short, they say why.
    """

    per_pair: tuple[BiasedPair, ...]
    num_biased: int
    num_measurable: int

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """As `context_shift` takes them."""
        return tuple((pair.context, pair.target) for pair in self.per_pair)

    def to_json(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON holds it; pairs are keyed ``"cat -> chair"``."""
        named = {f"{class_names[pair.context]} -> {class_names[pair.target]}": vars(pair) for pair in self.per_pair}
        return {"num_biased": self.num_biased, "num_measurable": self.num_measurable, "per_pair": named}


def biased_pairs(
    train: Int8[Tensor, "train C"],
    test: Int8[Tensor, "test K"],
    *,
    num_pairs: int = 10,
    min_joint: int = 15,
    min_test: int = 5,
) -> BiasedPairs:
    """The ``num_pairs`` pairs of largest lift in the labels ``train`` with ``min_joint`` joint images at least.

    ``min_test`` is the least number of test images of each of the three kinds. Equal lifts are ordered by joint
    images, more first, then by class index. An image where the label of either class is unknown takes no part in the
    pair.

    Raises:
        InputError: if an option is less than 1, or the two sets of labels have not the same classes.
    """
    options = {"num_pairs": num_pairs, "min_joint": min_joint, "min_test": min_test}
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    if train.shape[1] != test.shape[1]:
        raise InputError(f"training labels have {train.shape[1]} classes and test labels {test.shape[1]}; give one set")
    known, shown, joint = _counts(train)
    _, tested, cooccurring = _counts(test)
    alone = tested - cooccurring
    # 0 where a class never occurs. Equal ratios give equal numbers: one division of exact products.
    chance = (shown * shown.T).astype(np.float64)
    lift = np.divide((joint * known).astype(np.float64), chance, out=np.zeros_like(chance), where=chance > 0)
    is_biased = (lift > 1) & (joint >= min_joint)
    is_measurable = is_biased & (np.minimum(np.minimum(alone, alone.T), cooccurring) >= min_test)
    rows, columns = np.nonzero(np.triu(is_measurable, k=1))
    order = np.lexsort((columns, rows, -joint[rows, columns], -lift[rows, columns]))[:num_pairs]

    def pair(a: int, b: int) -> BiasedPair:
        # Lift has no direction, so a pair is measured once. The context is the class that says more about the other,
        # P(b | a) >= P(a | b): the rarer one, since there it pays a model most to answer b without looking at b.
        if shown[a, b] > shown[b, a]:
            a, b = b, a
        train_counts = (int(shown[a, b]), int(shown[b, a]), int(joint[a, b]))
        return BiasedPair(
            a, b, float(lift[a, b]), *train_counts, int(alone[b, a]), int(cooccurring[a, b]), int(alone[a, b])
        )

    return BiasedPairs(
        per_pair=tuple(pair(int(a), int(b)) for a, b in zip(rows[order], columns[order], strict=True)),
        num_biased=int(np.triu(is_biased, k=1).sum()),
        num_measurable=len(rows),
    )


def _counts(labels: Int8[Tensor, "n C"]) -> list[Int64[np.ndarray, "C C"]]:
    """Images in which both classes are known: in all, with the row's class, with both."""
    # Exact: fp32 holds whole numbers up to 16 million.
    present, known = (labels == PRESENT).float(), ((labels == PRESENT) | (labels == ABSENT)).float()
    tables = [known.T @ known, present.T @ known, present.T @ present]
    return [table.round().to(torch.int64).numpy() for table in tables]
