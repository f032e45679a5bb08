"""The training images of a data set divided among clients that have names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from fedmpt.data.partition.settings import Setting, check_options, partition
from fedmpt.data.reading import closest, some
from fedmpt.types import InputError, Split


@dataclass(frozen=True, eq=False)
class Partition:
    """Who holds which images, and how that was decided.

    Attributes:
        setting: one of `Setting`.
        options: what was given for the setting: ``{"num_clients": 10, "alpha": 0.3}``, ``{"column": "hospital"}``.
        seed: the seed of the partition, which need not be that of a run.
        names: of the clients, all different: values of the column, or ``"client 0"``, ``"client 1"`` ...
        rows: of each client in the split: ascending, disjoint, together all of them, no client without any.
    """

    setting: str
    options: Mapping[str, float | str]
    seed: int
    names: tuple[str, ...]
    rows: tuple[Int64[Tensor, "_"], ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(set(self.names)) == len(self.rows) > 0
        assert all(len(rows) for rows in self.rows)

    @property
    def num_images(self) -> int:
        """Images of all clients."""
        return sum(len(rows) for rows in self.rows)

    def keep(self, kept: Int64[Tensor, "kept"]) -> Partition:
        """The same clients with the images ``kept`` alone, ascending rows of the split; rows then count within these.

        For a split some images of which turned out to be unreadable.

        Raises:
            InputError: if a client keeps no image.
        """
        new_row = torch.full((self.num_images,), -1)
        new_row[kept] = torch.arange(len(kept))
        rows = tuple(renumbered[renumbered >= 0] for renumbered in (new_row[rows] for rows in self.rows))
        empty = [name for name, left in zip(self.names, rows, strict=True) if not len(left)]
        if empty:
            raise InputError(
                f"{len(empty)} of {len(rows)} clients have no readable image left, first {empty[0]!r}; restore their "
                "images, or partition again without them"
            )
        return Partition(self.setting, self.options, self.seed, self.names, rows)


def partition_split(
    split: Split,
    *,
    setting: Setting,
    t: float | None = None,
    num_clients: int | None = None,
    alpha: float | None = None,
    min_images: int | None = None,
    column: str | None = None,
    seed: int = 42,
) -> Partition:
    """`partition` of a split, and one setting more: ``"natural"`` makes a client of each value of ``column``.

    Natural clients are in the order of the sorted values; space around a value does not count.

    Raises:
        InputError: as `partition`, or if the column is missing or an image has no value in it.
    """
    given = {"t": t, "num_clients": num_clients, "alpha": alpha, "min_images": min_images, "column": column}
    options: dict[str, float | str] = {name: value for name, value in given.items() if value is not None}
    check_options(setting, options)
    if setting == "natural":
        rows_of = _rows_by_value(split, column)
        return Partition(setting, options, seed, tuple(rows_of), tuple(map(torch.tensor, rows_of.values())))
    rows = partition(
        split.labels, setting=setting, t=t, num_clients=num_clients, alpha=alpha, min_images=min_images, seed=seed
    )
    return Partition(setting, options, seed, tuple(f"client {client}" for client in range(len(rows))), tuple(rows))


def _rows_by_value(split: Split, column: str | None) -> dict[str, list[int]]:
    """Rows of each value of a column."""
    known = sorted(split.columns)
    listed = f"the {split.name} images have {', '.join(known) if known else 'no columns'}"
    if column is None:
        raise InputError(f"the natural setting needs a column that names each image's client; {listed}")
    if column not in split.columns:
        raise InputError(f"there is no column {column!r}{closest(column, known)}; {listed}")
    values = [value.strip() for value in split.columns[column]]
    without = [str(file) for file, value in zip(split.files, values, strict=True) if not value]
    if without:
        raise InputError(
            f"the natural setting needs a client for each image, and {len(without)} of {len(values)} images have no "
            f"value: {some(without, limit=5)}; fill them in, or leave these images out"
        )
    rows_of: dict[str, list[int]] = {value: [] for value in sorted(set(values))}
    for row, value in enumerate(values):
        rows_of[value].append(row)
    return rows_of
