"""How alike conditions are to a text tower.

Cosines of text features lie close together, on another level for each tower, so those of conditions are judged by
what the same tower gives for pairs of different classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.backbone.text_tower import TextTower
from fedmpt.conditions.checks.coverage import spread
from fedmpt.methods.parts.prompts import hand_written_features
from fedmpt.types import Backbone

PHRASE = "a photo of a"
"""Stands between condition and class: the words that FedMPT's learnable tokens start from."""
MAX_CLASSES = 100
"""Of longer lists, so many are taken, evenly spread: 100 have 4,950 pairs."""
MIN_CLASSES = 10
"""Shorter lists are filled up with `COMMON_NOUNS`: few pairs say little about a tower."""
COMMON_NOUNS = ("dog", "car", "tree", "house", "boat", "apple", "chair", "bird", "phone", "bridge", "shoe", "clock")
"""Stand in for classes where there are none."""


@dataclass(frozen=True)
class Pair:
    """Two conditions' cosines: of their ``bare`` names, and in ``prompts`` that differ in the condition alone.

    Percentiles in [0, 1] say which share of the pairs of classes has a smaller cosine.
    """

    conditions: tuple[str, str]
    bare: float
    bare_percentile: float
    prompts: float
    prompts_percentile: float


@dataclass(frozen=True)
class Overlap:
    """``pairs`` of conditions, those with the most similar names first, and medians of the same for classes.

    ``num_classes`` were taken for it. ``difference`` is how far another condition moves a prompt, as a share of how far
    another class does (means of one minus the cosine); None with a single condition.
    """

    pairs: tuple[Pair, ...]
    num_classes: int
    bare_median: float
    prompts_median: float
    difference: float | None


def overlap(names: Sequence[str], *, class_names: Sequence[str], backbone: Backbone) -> Overlap:
    """How alike a backbone's text tower finds conditions, bare as ``"NAME."`` and in ``"NAME a photo of a CLASS."``.

    The cosine in prompts is the mean over classes. Encodes at most (N + 1) (`MAX_CLASSES` + 1) prompts.

    Raises:
        InputError: if a prompt is longer than the tower takes.
    """
    tower, tokenizer = TextTower(backbone.text_model), backbone.tokenizer
    classes = classes_for(class_names)
    bare = hand_written_features(tower, tokenizer, names, prefix="").double()
    bare_classes = _upper(_cosines(hand_written_features(tower, tokenizer, classes, prefix="").double()))
    prompts = torch.stack(
        [hand_written_features(tower, tokenizer, classes, prefix=f"{name} {PHRASE}").double() for name in names]
    )
    prompt_classes = torch.cat([_upper(_cosines(of_condition)) for of_condition in prompts])
    in_prompts = torch.einsum("ncd,mcd->nm", prompts, prompts) / len(classes)
    pairs = [
        Pair(
            (names[one], names[other]),
            cosine := float(bare[one] @ bare[other]),
            _percentile(cosine, bare_classes),
            in_prompt := float(in_prompts[one, other]),
            _percentile(in_prompt, prompt_classes),
        )
        for one in range(len(names))
        for other in range(one + 1, len(names))
    ]
    moved = 1 - _upper(in_prompts)
    return Overlap(
        pairs=tuple(sorted(pairs, key=lambda pair: -pair.bare)),
        num_classes=len(classes),
        bare_median=float(bare_classes.median()),
        prompts_median=float(prompt_classes.median()),
        difference=float(moved.mean() / (1 - prompt_classes).mean().clamp_min(1e-12)) if len(moved) else None,
    )


def classes_for(class_names: Sequence[str]) -> tuple[str, ...]:
    """The classes that stand for all: at most `MAX_CLASSES`, at least `MIN_CLASSES`, the same each time."""
    if len(class_names) >= MIN_CLASSES:
        return spread(class_names, MAX_CLASSES)
    others = [noun for noun in COMMON_NOUNS if noun not in class_names]
    return (*class_names, *others)


def _cosines(features: Float[Tensor, "C D"]) -> Float[Tensor, "C C"]:
    return features @ features.T


def _upper(square: Float[Tensor, "n n"]) -> Float[Tensor, " pairs"]:
    """Every pair once."""
    rows, columns = torch.triu_indices(len(square), len(square), offset=1)
    return square[rows, columns]


def _percentile(value: float, of: Float[Tensor, " pairs"]) -> float:
    return float((of < value).double().mean())
