"""What a trained model knows, carried over to classes that training never saw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmpt.conditions.labels.ties import Ties
from fedmpt.data.own.vocabulary import clean_name
from fedmpt.evaluation.calibration import Calibration
from fedmpt.types import InputError, State

ROUNDING = 1e-3
"""Relative difference of two computations of the same tensor that is put down to rounding."""


def new_names(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """``names`` with single spaces, none around. Raises InputError if one is among the ``known``, or there twice; case
    does not count, as for CLIP's tokenizer."""
    if isinstance(names, str):
        raise InputError(f"give new classes as a list of names, [{names!r}], not as one string")
    taken = {name.casefold(): f"a class of the run already ({name!r})" for name in known}
    cleaned = tuple(map(clean_name, names))
    for name in cleaned:
        if where := taken.get(name.casefold()):
            raise InputError(f"the new class {name!r} is {where}; leave it out")
        taken[name.casefold()] = "given twice"
    return cleaned


def grown_state(trained: State, before: State, start: State) -> dict[str, Tensor]:
    """The ``trained`` tensors for more classes. ``before`` are those of a fresh method of the known classes, where
    training began; ``start`` are those of one that has the new classes, too, as the last.

    For example, a vector of each class is ``trained`` [2, D], ``before`` [2, D] and ``start`` [3, D]. The first two
    rows stay as trained. The third is its start plus how far the first two moved on average: ``start[2] + mean(trained
    - before)``. A tensor whose shape does not depend on the classes stays as trained.

    ``start[:2]`` may differ from ``before``. Rows that are drawn (PosCoOp) are then other draws, which say nothing. A
    linear probe's rows all differ by the same vector, since they are relative to the mean over classes. The trained
    rows are relative to the old mean, and so is the new one: it is ``start[2] - (start[:2] - before)`` before it moves.

    Raises:
        InputError: for a tensor that depends on the classes by more than one axis, naming it.
    """
    return {name: _grown(name, tensor, before[name], start[name]) for name, tensor in trained.items()}


def _grown(name: str, trained: Tensor, before: Tensor, start: Tensor) -> Tensor:
    axes = [axis for axis, sizes in enumerate(zip(trained.shape, start.shape, strict=True)) if sizes[0] != sizes[1]]
    if not axes:
        return trained
    if len(axes) > 1:
        raise InputError(
            f"tensor {name!r} would grow from {tuple(trained.shape)} to {tuple(start.shape)}: training says nothing of "
            "new classes where a tensor relates classes to each other; train with the new classes"
        )
    axis, num_known = axes[0], trained.shape[axes[0]]
    known, new = start.tensor_split([num_known], dim=axis)
    moved = (trained.double() - before.double()).mean(axis, keepdim=True)
    differs = known.double() - before.double()
    alike = differs.mean(axis, keepdim=True)
    if (differs - alike).abs().max() <= ROUNDING * before.abs().max():
        moved -= alike
    return torch.cat([trained, (new.double() + moved).to(trained.dtype)], dim=axis)


def grown_calibration(calibration: Calibration, num_new: int) -> Calibration:
    """The same with ``num_new`` classes more, whose threshold is 0.5, and whose scale and bias are the known classes'
    means."""
    scale, bias = (torch.cat([own, own.mean().expand(num_new)]) for own in (calibration.scale, calibration.bias))
    return Calibration(F.pad(calibration.thresholds, (0, num_new), value=0.5), scale, bias)


def grown_ties(ties: Ties, num_new: int) -> Ties:
    """The same with ``num_new`` classes more, which no image has and which are tied to none."""
    prior = F.pad(ties.prior, (0, num_new))
    conditional = prior.repeat(len(prior), 1).fill_diagonal_(1)
    num_known = len(ties.prior)
    conditional[:num_known, :num_known] = ties.conditional
    return Ties(prior, conditional, F.pad(ties.lift, (0, num_new, 0, num_new)))
