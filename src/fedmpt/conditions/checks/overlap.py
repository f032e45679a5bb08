"""How alike conditions are to a text tower.

Cosines of text features lie close together, on another level for each tower, so those of conditions are judged by
what the same tower gives for pairs of different classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedmpt.conditions.checks.coverage import spread

Encode = Callable[..., Tensor]
"""Names and ``prefix=`` to the normalised features [n, D] of prompts ``"PREFIX NAME."``, of ``"NAME."`` if empty."""

PHRASE = "a photo of a"
"""Stands between condition and class: the words that FedMPT's learnable tokens start from."""
MAX_CLASSES, MIN_CLASSES = 100, 10
"""So many are taken of longer lists, evenly spread; shorter ones are filled up: few pairs say little about a tower."""
COMMON_NOUNS = ("dog", "car", "tree", "house", "boat", "apple", "chair", "bird", "phone", "bridge", "shoe", "clock")


def overlap(names: Sequence[str], *, class_names: Sequence[str], encode: Encode) -> dict[str, Any]:
    """How alike a text tower finds conditions, bare as ``"NAME."`` and in ``"NAME a photo of a CLASS."``.

    ``pairs`` of conditions, the most similar names first, have the cosines of both and which share of the pairs of
    classes is below; ``bare_median`` and ``prompts_median`` are of those. The cosine in prompts is the mean over
    classes. ``difference`` is how far another condition moves a prompt, as a share of how far another class does (means
    of one minus the cosine); None with a single condition. Encodes at most (N + 1) (`MAX_CLASSES` + 1) prompts.
    """
    classes = classes_for(class_names)
    bare = _cosines(encode(names, prefix="").double())
    bare_classes = _upper(_cosines(encode(classes, prefix="").double()))
    prompts = torch.stack([encode(classes, prefix=f"{name} {PHRASE}").double() for name in names])
    prompt_classes = torch.cat([_upper(_cosines(of_condition)) for of_condition in prompts])
    in_prompts = torch.einsum("ncd,mcd->nm", prompts, prompts) / len(classes)
    pairs = [
        {
            "conditions": [names[one], names[other]],
            "bare": bare[one, other].item(),
            "bare_percentile": (bare_classes < bare[one, other]).double().mean().item(),
            "prompts": in_prompts[one, other].item(),
            "prompts_percentile": (prompt_classes < in_prompts[one, other]).double().mean().item(),
        }
        for one, other in torch.triu_indices(len(names), len(names), offset=1).T.tolist()
    ]
    moved = (1 - _upper(in_prompts)).mean() / (1 - prompt_classes).mean().clamp_min(1e-12)
    return {
        "pairs": sorted(pairs, key=lambda pair: -pair["bare"]),
        "num_classes": len(classes),
        "bare_median": bare_classes.median().item(),
        "prompts_median": prompt_classes.median().item(),
        "difference": moved.item() if pairs else None,
    }


def classes_for(class_names: Sequence[str]) -> list[str]:
    """The classes that stand for all: at most `MAX_CLASSES`, at least `MIN_CLASSES`, the same each time."""
    if len(class_names) >= MIN_CLASSES:
        return spread(class_names, MAX_CLASSES)
    return [*class_names, *(noun for noun in COMMON_NOUNS if noun not in class_names)]


def _cosines(features: Float[Tensor, "n D"]) -> Float[Tensor, "n n"]:
    return features @ features.T


def _upper(square: Float[Tensor, "n n"]) -> Float[Tensor, " pairs"]:
    """Every pair once."""
    return square[tuple(torch.triu_indices(len(square), len(square), offset=1))]
