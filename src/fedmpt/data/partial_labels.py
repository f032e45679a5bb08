"""Partial labels: what annotators did not say, made on purpose."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int8
from torch import Tensor

from fedmpt.data.reading import check_choice
from fedmpt.seeding import generator
from fedmpt.types import ABSENT, PRESENT, UNKNOWN, InputError

Masking = Literal["masked-negative", "masked-unknown"]
PartialLabels = Literal["masked-negative", "masked-unknown", "missing-classes"]


def mask_labels(
    labels: Int8[Tensor, "images C"], *, kind: Masking, fraction: float, seed: int
) -> Int8[Tensor, "images C"]:
    """Training labels of which a random ``fraction`` in [0, 1) is hidden; to be used on no test labels.

    ``"masked-negative"``, the published protocol, makes each present label absent with that probability.
    ``"masked-unknown"``, DualCoOp's, makes each label, present or absent, unknown with that probability.

    Which labels are hidden depends on ``seed`` and their place in ``labels``: give all training images, before the
    partition. With one seed, what a fraction hides a larger one hides too, and both kinds hide the same present labels.
    """
    check_choice("partial_labels", kind, get_args(Masking))
    if not 0 <= fraction < 1:
        raise InputError(f"the fraction of labels to hide is {fraction}; it must be in [0, 1)")
    drawn = torch.rand(labels.shape, dtype=torch.float64, generator=generator(seed, "partial labels"))
    hidden = drawn < fraction
    if kind == "masked-negative":
        return labels.masked_fill(hidden & (labels == PRESENT), ABSENT)
    return labels.masked_fill(hidden, UNKNOWN)


def annotated_classes(num_clients: int, num_classes: int, *, each: int, seed: int) -> Bool[Tensor, "clients C"]:
    """Which classes each client annotates: ``each`` of them, in [1, ``num_classes``].

    The first clients divide all classes among them, in an order that ``seed`` decides, so that every class is annotated
    where there are clients enough. All other classes of a client are drawn at random. A client's classes depend on its
    number, not on how many clients there are.
    """
    if not 1 <= each <= num_classes:
        raise InputError(f"--classes-per-client {each} of {num_classes} classes; give 1 to {num_classes}")
    order = torch.randperm(num_classes, generator=generator(seed, "annotated classes"))
    annotated = torch.zeros(num_clients, num_classes, dtype=torch.bool)
    for client, own in enumerate(annotated):
        dealt = order[client * each : (client + 1) * each]
        drawn = torch.randperm(num_classes, generator=generator(seed, "annotated classes", client))
        others = drawn[~torch.isin(drawn, dealt)]
        own[torch.cat([dealt, others])[:each]] = True
    return annotated
