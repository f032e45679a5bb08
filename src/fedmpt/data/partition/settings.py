"""The training images of a data set divided among clients that have names, by one of several settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Int8, Int64
from torch import Tensor

from fedmpt.data.partition.by_labels import cluster, number_of_clusters, split_by_label
from fedmpt.data.reading import check_choice, closest, some
from fedmpt.seeding import generator
from fedmpt.types import InputError, Split

Setting = Literal["heterogeneous", "iid", "dirichlet", "natural"]

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "heterogeneous": ("t",),
    "iid": ("num_clients",),
    "dirichlet": ("num_clients", "alpha", "min_images"),
    "natural": ("column",),
}
"""The options of each setting."""

MIN_ALPHA = 1e-9
"""Far below what changes anything: at 0.001 a label nearly always has one client."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Who holds which images, and how that was decided: ``options`` are those given, ``{"column": "hospital"}``.

    ``names`` of the clients are all different: values of the column, or ``"client 0"``, ``"client 1"`` ... ``rows`` of
    each in the split are ascending, disjoint, together all of them, and no client is without any.
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
        """The same clients with the readable images ``kept`` alone, ascending rows of the split; rows then count
        within these. Raises InputError if a client keeps no image.
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
    """The images of a split divided among clients; unknown labels are taken as absent.

    ``"heterogeneous"`` makes round(``t`` * C) clients (halves to even; at least one), each one KMeans cluster of the
    images by the softmax of their multi-hot labels, in the order of their first rows; a larger ``t``, in (0, 1], gives
    more and purer clients. The published partition has ``seed`` 42 whatever the seed of the run.
    ``"iid"`` shuffles the rows by ``seed`` and divides them evenly among ``num_clients`` clients.
    ``"dirichlet"`` splits the images of each label over ``num_clients`` clients by shares drawn by ``seed`` from a
    symmetric Dirichlet distribution; a smaller ``alpha``, above 0, is more skewed. A client with less than
    ``min_images`` (1 unless given) takes what it lacks from the largest.
    ``"natural"`` makes a client of each value of ``column``, sorted; space around a value does not count.

    Raises InputError if an option is missing, out of range or of another setting, the images do not suffice, or an
    image has no value in the column.
    """
    given = {"t": t, "num_clients": num_clients, "alpha": alpha, "min_images": min_images, "column": column}
    options: dict[str, float | str] = {name: value for name, value in given.items() if value is not None}
    _check_options(setting, options)
    if setting == "natural":
        rows_of = _rows_by_value(split, column)
        return Partition(setting, options, seed, tuple(rows_of), tuple(map(torch.tensor, rows_of.values())))
    labels, num_images = split.labels, len(split)
    if setting == "heterogeneous":
        num_clients = number_of_clusters(t, labels.shape[1])
    if num_clients is None or num_clients < 1:
        raise InputError(f"the {setting} setting needs num_clients, at least 1; got {num_clients}")
    if num_clients > num_images:
        raise InputError(f"{num_clients} clients cannot share {num_images} images; choose fewer clients")
    if setting == "heterogeneous":
        rows = cluster(labels, num_clusters=num_clients, seed=seed)
    elif setting == "iid":
        order = torch.randperm(num_images, generator=generator(seed, "partition"))
        rows = [order[client::num_clients].sort().values for client in range(num_clients)]
    else:
        rows = _dirichlet(labels, num_clients, alpha, 1 if min_images is None else min_images, seed)
    return Partition(setting, options, seed, tuple(f"client {client}" for client in range(len(rows))), tuple(rows))


def _check_options(setting: str, given: Iterable[str]) -> None:
    check_choice("setting", setting, get_args(Setting))
    for name in given:
        if name not in OPTIONS[setting]:
            owners = " and ".join(f"the {other} setting" for other, names in OPTIONS.items() if name in names)
            raise InputError(f"{name} belongs to {owners}; {setting} takes {', '.join(OPTIONS[setting])}")


def _dirichlet(
    labels: Int8[Tensor, "n C"], num_clients: int, alpha: float | None, min_images: int, seed: int
) -> list[Int64[Tensor, "_"]]:
    if alpha is None or not MIN_ALPHA <= alpha < math.inf:
        raise InputError(f"the dirichlet setting needs alpha, at least {MIN_ALPHA} (100 is even); got {alpha}")
    if min_images < 1:
        raise InputError(f"min_images is {min_images}; it must be at least 1, or a client could not train")
    if num_clients * min_images > len(labels):
        raise InputError(
            f"{num_clients} clients cannot have {min_images} of {len(labels)} images each; choose fewer clients, or "
            f"min_images of at most {len(labels) // num_clients}"
        )
    return split_by_label(labels, num_clients=num_clients, alpha=float(alpha), min_images=min_images, seed=seed)


def _rows_by_value(split: Split, column: str | None) -> dict[str, list[int]]:
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
