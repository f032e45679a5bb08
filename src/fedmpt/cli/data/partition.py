"""``fedmpt data partition``: which client has which training images."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.data.partition import Partition, PartitionStatistics
    from fedmpt.types import ImageData

# More clients than anybody reads; the picture and the file have all.
MAX_CLIENTS_SHOWN = 40


@dataclass(frozen=True)
class PartitionOptions:
    """Divide training images among clients, describe the clients, and keep or draw that.

    For example:

    fedmpt data partition --data voc:VOCdevkit --t 0.5 --plot clients.png

    fedmpt data partition --data voc:VOCdevkit --setting dirichlet --clients 20 --alpha 0.1 --save clients.json

    fedmpt train --data voc:VOCdevkit --partition clients.json --out runs/a
    """

    data: str
    """Data set, NAME:PATH, as for train."""
    setting: Literal["heterogeneous", "iid", "dirichlet", "natural"] | None = None
    """As for train: unless given, natural where the data come from several sites, else heterogeneous."""
    t: float | None = None
    """Clients as a share of the classes, in (0, 1]; only for heterogeneous, where it is 0.5 unless given."""
    clients: int | None = None
    """Number of clients; only for iid and dirichlet."""
    alpha: float | None = None
    """How evenly labels are spread; only for dirichlet, where it is 0.5 unless given."""
    by: str | None = None
    """Column that says whose each image is; only for natural."""
    partition: Annotated[Path | None, tyro.conf.arg(name="load")] = None
    """Describe a file that was saved before, instead of dividing anew."""
    seed: int = 0
    """Seed of iid and dirichlet; heterogeneous is the same for all seeds (42, as published)."""
    save: Path | None = None
    """File (JSON) for train --partition."""
    plot: Path | None = None
    """Picture (.png, .svg or .pdf): clients by classes, sizes, distances from the whole. Needs fedmpt[report]."""
    json: bool = False
    """The description as JSON, for machines."""
    cache: Path | None = None
    """Folder for drawn images of scenes; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def partition(arguments: list[str]) -> None:
    options = tyro.cli(PartitionOptions, args=arguments, prog="fedmpt data partition")
    from fedmpt.data import load_data
    from fedmpt.data.partition import partition_statistics, save_partition

    data = load_data(options.data, cache=cache_folder(options.cache), progress=True)
    found = _partition(options, data)
    statistics = partition_statistics(found, data.train.labels)
    if options.json:
        print(json.dumps(statistics.to_json(data.class_names), indent=2))
    else:
        _print_partition(statistics, data.class_names)
    if options.save:
        save_partition(options.save, found, data)
        print(f"written to {options.save}", file=sys.stderr)
    if options.plot:
        from fedmpt.report.partition_plot import plot_partition

        plot_partition(statistics, data.class_names, options.plot)
        print(f"written to {options.plot}", file=sys.stderr)


def _partition(options: PartitionOptions, data: ImageData) -> Partition:
    from fedmpt.runs.config import RunConfig
    from fedmpt.runs.partition import partition_clients
    from fedmpt.types import InputError

    given = {name: getattr(options, name) for name in ("setting", "t", "clients", "alpha", "by")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.partition is not None and given:
        raise InputError(f"--load says already who has which images; leave --{next(iter(given))} out")
    loaded = None if options.partition is None else str(options.partition)
    config = RunConfig(data=options.data, partition=loaded, seed=options.seed, **given)
    config.check()
    return partition_clients(config, data)


def _print_partition(statistics: PartitionStatistics, class_names: Sequence[str]) -> None:
    found = statistics.to_json(class_names)
    table = Table(title=f"{found['num_clients']} clients, {found['num_images']:,} training images")
    for column in ("client", "images", "most frequent", "labels' distance", "pairs' distance"):
        table.add_column(column, justify="left" if column in ("client", "most frequent") else "right", overflow="fold")
    for client in found["clients"][:MAX_CLIENTS_SHOWN]:
        counts = sorted(client["images_per_class"].items(), key=lambda item: -item[1])[:3]
        frequent = ", ".join(f"{name} {count / client['num_images']:.0%}" for name, count in counts if count)
        distances = (client["label_distance"], client["pair_distance"])
        words = ("-" if value is None else f"{value:.2f}" for value in distances)
        table.add_row(Text(client["name"]), f"{client['num_images']:,}", Text(frequent), *words)
    Console(soft_wrap=True).print(table)
    if found["num_clients"] > MAX_CLIENTS_SHOWN:
        print(f"and {found['num_clients'] - MAX_CLIENTS_SHOWN} more; --json has all")
    sizes = found["sizes"]
    print(
        f"sizes from {sizes['min']:,} to {sizes['max']:,}, Gini {sizes['gini']:.2f}; distances are "
        "Jensen-Shannon's from all clients together, 0 alike, 1 nothing in common"
    )
