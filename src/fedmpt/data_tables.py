"""`fedmpt data check`, `pairs` and `partition`: what a data set holds, and how it is divided.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cache import default_cache

if TYPE_CHECKING:
    from fedmpt.data.check import Check, SplitCounts
    from fedmpt.data.partition import Partition, PartitionStatistics
    from fedmpt.types import ImageData

# More clients than anybody reads; the picture and the file have all.
MAX_CLIENTS_SHOWN = 40


@dataclass(frozen=True)
class CheckOptions:
    """Say what is in the folder of a data set, what is missing, and how many images show each class.

    For example:

    fedmpt data check coco ~/coco

    fedmpt data check folder photos,classes=names.txt --images
    """

    name: tyro.conf.Positional[str]
    """Data set: voc, coco, nus-wide, multi-scene, mlrsnet, folder, clients or scenes; or NAME:PATH, as for train."""
    path: tyro.conf.Positional[str] = ""
    """Its folder, with options as in --data: coco,min_labels=5."""
    images: bool = False
    """Also open every image, and list those that cannot be read."""
    json: bool = False
    """Everything as JSON, for machines."""
    cache: Path | None = None
    """Folder for drawn images of scenes; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def check(words: list[str]) -> None:
    options = tyro.cli(CheckOptions, args=words, prog="fedmpt data check")
    from fedmpt.data.check import check_spec, unreadable_images
    from fedmpt.types import InputError

    name, path = options.name, options.path
    if not path:  # As all other commands have it: folder:photos.
        name, _, path = name.partition(":")
    found, data = check_spec(name, path, cache=options.cache or default_cache())
    unreadable = unreadable_images(data) if options.images and data is not None else ()
    if options.json:
        print(json.dumps({**found.to_json(), "unreadable": [str(error) for error in unreadable]}, indent=2))
    else:
        _print_check(found, unreadable, were_opened=options.images)
    if found.problem is not None:
        raise InputError(found.problem)
    if unreadable:
        raise InputError(f"{len(unreadable)} images cannot be read; replace them, or train with --skip-corrupt")


def _print_check(found: Check, unreadable: Sequence[Exception], *, were_opened: bool) -> None:
    from fedmpt.data.check import BENCHMARKS, layout_text

    console = Console(highlight=False, soft_wrap=True)
    for part in found.parts:
        state = "found  " if part.found else "MISSING" if part.part.required else "absent "
        files = f", {part.num_files:,} files" if part.num_files is not None else ""
        console.print(f"{state} {part.found or part.part.paths[0]}{files}: {part.part.what}", markup=False)
    if found.problem is not None and found.name in BENCHMARKS:
        console.print(f"\nexpected layout:\n{layout_text(found.name)}", markup=False)
    if found.splits:
        console.print(_class_table(found.class_names, found.splits))
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    for error in unreadable:
        console.print(f"unreadable: {error}", markup=False)
    if found.splits and not were_opened:
        console.print("images were not opened; --images reads each of them", markup=False)


def _class_table(class_names: Sequence[str], splits: Sequence[SplitCounts]) -> Table:
    """Images that show each class; a column for unknown labels only where there are any."""
    table = Table(title="images that show each class")
    table.add_column("class", overflow="fold")
    columns: list[tuple[str, ...]] = []
    for split in splits:
        table.add_column(split.name, justify="right")
        columns.append((f"{split.num_images:,}", *(f"{count:,}" for count in split.present)))
        if any(split.unknown):
            table.add_column("unknown", justify="right")
            columns.append(("", *(f"{count:,}" for count in split.unknown)))
    first, *rows = zip(*columns, strict=True)
    table.add_row("all images", *first, style="bold")
    table.add_section()
    for name, row in zip(class_names, rows, strict=True):
        table.add_row(Text(name), *row)
    return table


@dataclass(frozen=True)
class PairsOptions:
    """List the pairs of classes that training shows together more often than chance would, most biased first.

    They are what context shift is measured on: is b found without a, and is b reported where there is only a?

    For example:

    fedmpt data pairs --data voc:VOCdevkit
    """

    data: str
    """Data set, NAME:PATH, as for train."""
    num_pairs: int = 10
    """Most pairs to list."""
    min_joint: int = 15
    """Least number of training images that show both classes."""
    min_test: int = 5
    """Least number of test images of each kind: b alone, both, a alone."""
    json: bool = False
    """Everything as JSON, for machines."""
    cache: Path | None = None
    """Folder for drawn images of scenes; $FEDMPT_CACHE or a folder of the user's cache unless given."""


def pairs(words: list[str]) -> None:
    options = tyro.cli(PairsOptions, args=words, prog="fedmpt data pairs")
    from fedmpt.data import load_data
    from fedmpt.data.biased_pairs import biased_pairs

    data = load_data(options.data, cache=options.cache or default_cache(), progress=True)
    found = biased_pairs(
        data.train.labels,
        data.test.labels,
        num_pairs=options.num_pairs,
        min_joint=options.min_joint,
        min_test=options.min_test,
    )
    if options.json:
        print(json.dumps(found.to_json(data.class_names), indent=2))
        return
    table = Table(title="pairs a -> b that training shows together")
    for column in ("a", "b", "lift", "train: a", "b", "both", "test: b alone", "both", "a alone"):
        is_name = len(table.columns) < 2
        table.add_column(column, justify="left" if is_name else "right", overflow="fold" if is_name else "ellipsis")
    for pair in found.per_pair:
        counts = (pair.num_train_context, pair.num_train_target, pair.num_train_joint)
        tests = (pair.num_exclusive, pair.num_cooccurring, pair.num_context_only)
        names = (Text(data.class_names[pair.context]), Text(data.class_names[pair.target]))
        table.add_row(*names, f"{pair.lift:.2f}", *(f"{count:,}" for count in (*counts, *tests)))
    Console(soft_wrap=True).print(table)
    print(f"{found.num_biased} pairs are biased, {found.num_measurable} of them have test images enough")


@dataclass(frozen=True)
class PartitionOptions:
    """Deal training images to clients, describe the clients, and keep or draw that.

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
    """Describe a file that was saved before, instead of dealing."""
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


def partition(words: list[str]) -> None:
    options = tyro.cli(PartitionOptions, args=words, prog="fedmpt data partition")
    from fedmpt.data import load_data
    from fedmpt.data.partition import partition_statistics, save_partition

    data = load_data(options.data, cache=options.cache or default_cache(), progress=True)
    dealt = _deal(options, data)
    statistics = partition_statistics(dealt, data.train.labels)
    if options.json:
        print(json.dumps(statistics.to_json(data.class_names), indent=2))
    else:
        _print_partition(statistics, data.class_names)
    if options.save:
        save_partition(options.save, dealt, data)
    if options.plot:
        from fedmpt.partition_plot import plot_partition

        plot_partition(statistics, data.class_names, options.plot)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for path in filter(None, (options.save, options.plot)):
        console.print(f"written to {path}", markup=False)


def _deal(options: PartitionOptions, data: ImageData) -> Partition:
    from fedmpt.config import RunConfig
    from fedmpt.dealing import deal
    from fedmpt.types import InputError

    names = ("setting", "t", "clients", "alpha", "by")
    given = [name for name in names if getattr(options, name) is not None]
    if options.partition is not None and given:
        raise InputError(f"--load says already who has which images; leave --{given[0]} out")
    config = RunConfig(
        data=options.data,
        setting=options.setting,
        t=options.t,
        clients=options.clients,
        alpha=options.alpha,
        by=options.by,
        partition=None if options.partition is None else str(options.partition),
        seed=options.seed,
    )
    config.check()
    return deal(config, data)


def _print_partition(statistics: PartitionStatistics, class_names: Sequence[str]) -> None:
    found = statistics.to_json(class_names)
    table = Table(title=f"{found['num_clients']} clients, {found['num_images']:,} training images")
    for column in ("client", "images", "most frequent", "labels' distance", "pairs' distance"):
        is_name = column in ("client", "most frequent")
        table.add_column(column, justify="left" if is_name else "right", overflow="fold" if is_name else "ellipsis")
    for client in found["clients"][:MAX_CLIENTS_SHOWN]:
        counts = sorted(client["images_per_class"].items(), key=lambda item: -item[1])[:3]
        frequent = ", ".join(f"{name} {count / client['num_images']:.0%}" for name, count in counts if count)
        distances = (client["label_distance"], client["pair_distance"])
        words = ("-" if value is None else f"{value:.2f}" for value in distances)
        table.add_row(Text(client["name"]), f"{client['num_images']:,}", Text(frequent), *words)
    console = Console(soft_wrap=True)
    console.print(table)
    if found["num_clients"] > MAX_CLIENTS_SHOWN:
        console.print(f"and {found['num_clients'] - MAX_CLIENTS_SHOWN} more; --json has all", markup=False)
    sizes = found["sizes"]
    console.print(
        f"sizes from {sizes['min']:,} to {sizes['max']:,}, Gini {sizes['gini']:.2f}; distances are "
        "Jensen-Shannon's from all clients together, 0 alike, 1 nothing in common",
        markup=False,
        highlight=False,
    )
