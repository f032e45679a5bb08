"""Pairs of classes that training shows together more often than chance would: what context shift is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int8, Int64
from torch import Tensor

from fedmpt.evaluation.context_shift import Pair
from fedmpt.types import ABSENT, PRESENT, InputError


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
        """As `fedmpt.evaluation.context_shift.context_shift` takes them."""
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
