"""Labels as tensors: classes by name become columns, images rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Int8
from torch import Tensor

from fedmpt.types import ABSENT, PRESENT, InputError


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


def rows_with_labels(
    labels: Int8[Tensor, "images C"], *, min_labels: int, split: str, where: str
) -> tuple[list[int], tuple[str, ...]]:
    """The images in which at least ``min_labels`` classes are present, and a note where that is not all of them.

    ``split`` names them in the note, ``where`` in messages.

    Raises:
        InputError: if ``min_labels`` is negative, or no image is left.
    """
    if min_labels < 0:
        raise InputError(f"min_labels is {min_labels}; it must not be negative, and 0 keeps all images")
    num_present = (labels == PRESENT).sum(dim=1)
    rows = torch.nonzero(num_present >= min_labels).flatten().tolist()
    if not rows:
        most = int(num_present.max())
        raise InputError(f"{where}: no image has {min_labels} labels, the most is {most}; choose a smaller min_labels")
    num_left_out = len(labels) - len(rows)
    note = f"{split}: {num_left_out} of {len(labels)} images have fewer than {min_labels} labels; left out"
    return rows, (note,) if num_left_out else ()
