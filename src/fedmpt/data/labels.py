"""Labels as tensors: classes by name become columns, images rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.types import ABSENT


def label_matrix(rows: Sequence[Mapping[str, int]], class_names: Sequence[str]) -> Int8[Tensor, "images C"]:
    """The labels that each image has by class; absent where it has none."""
    column_of = {name: column for column, name in enumerate(class_names)}
    labels = np.full((len(rows), len(class_names)), ABSENT, dtype=np.int8)
    for row, image in enumerate(rows):
        for name, label in image.items():
            labels[row, column_of[name]] = label
    return torch.from_numpy(labels)


def named(rows: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """All names of all rows, sorted."""
    return tuple(sorted({name for row in rows for name in row}))


def align(
    labels: Int8[Tensor, "images K"], class_names: Sequence[str], wanted: Sequence[str], *, unlisted: int
) -> Int8[Tensor, "images C"]:
    """Columns of the classes ``wanted``, in that order; ``unlisted`` where ``class_names`` lack one."""
    aligned = torch.full((len(labels), len(wanted)), unlisted, dtype=torch.int8)
    column_of = {name: column for column, name in enumerate(class_names)}
    for column, name in enumerate(wanted):
        if name in column_of:
            aligned[:, column] = labels[:, column_of[name]]
    return aligned
