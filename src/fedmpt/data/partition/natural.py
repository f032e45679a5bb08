"""Clients as the data name them: a hospital, a camera, a user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.types import InputError

_MAX_NAMED = 5


def deal_by_group(groups: Sequence[str], *, images: Sequence[object]) -> list[Int64[Tensor, "rows"]]:
    """Rows of each value of ``groups``, in the order of the sorted values; space around a value does not count.

    ``images`` say in messages which images have no value.

    Raises:
        InputError: if an image has none.
    """
    values = [value.strip() for value in groups]
    without = [str(image) for image, value in zip(images, values, strict=True) if not value]
    if without:
        more = f" and {len(without) - _MAX_NAMED} more" if len(without) > _MAX_NAMED else ""
        raise InputError(
            f"the natural setting needs a client for each image, and {len(without)} of {len(values)} images have no "
            f"value: {', '.join(without[:_MAX_NAMED])}{more}; fill them in, or leave these images out"
        )
    rows_of: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows_of.setdefault(value, []).append(row)
    return [torch.tensor(rows_of[value], dtype=torch.int64) for value in sorted(rows_of)]
