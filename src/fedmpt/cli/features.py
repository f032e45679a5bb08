"""`fedmpt features`: compute features ahead of training, list what is stored, remove what is not needed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.table import Column, Table

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.data.features.listing import Record


@dataclass(frozen=True)
class Build:
    """Compute and store the features of a data set, training and test images, so that training starts at once.

    What is there already is left alone; a build that was stopped goes on where it was.

    For example:

    fedmpt features build --data voc:VOCdevkit --backbone openai/clip-vit-base-patch16
    """

    data: str
    """Data set, NAME:PATH, as for train."""
    backbone: str = "openai/clip-vit-base-patch16"
    """Frozen model, as for train."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format of the frozen towers."""
    store_dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Number format of the stored features."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    batch_size: int | None = None
    """Images that the model takes at a time; as suits the device unless given."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""

    def run(self) -> None:
        from fedmpt.backbone.load import load_backbone
        from fedmpt.data import load_data
        from fedmpt.data.features.store import open_features
        from fedmpt.runs.config import DTYPES

        cache = cache_folder(self.cache)
        data = load_data(self.data, cache=cache, progress=True)
        data = data.uncut or data
        backbone = load_backbone(self.backbone, device=self.device, dtype=DTYPES[self.dtype])
        options = {
            name: getattr(self, name) for name in ("store_dtype", "batch_size", "device", "skip_corrupt", "data")
        }
        for split in (data.train, data.test):
            if len(split) == 0:  # Images to test on alone, or to train on.
                _say(f"{split.name}: no images")
                continue
            try:
                stored = open_features(backbone, split, cache=cache, **options)
            except KeyboardInterrupt as stop:
                raise KeyboardInterrupt("; what is done is stored, the same command goes on") from stop
            for path in stored.skipped:
                _say(f"left out, cannot be read: {path}")
            facts = stored.store.facts
            size = f"{facts.num_patches} x {facts.width}, {decimal(facts.rows * facts.row_bytes)} in {facts.dtype}"
            _say(f"{split.name}: {len(stored):,} images, {size}, in {cache / 'features' / facts.key}")


@dataclass(frozen=True)
class List:
    """List stored features, last used first.

    For example:

    fedmpt features list
    """

    json: bool = False
    """One JSON list with everything that is known of each store, for machines."""
    cache: Path | None = None
    """Folder of the features; $FEDMPT_CACHE or a folder of the user's cache unless given."""

    def run(self) -> None:
        from fedmpt.data.features.listing import list_features

        cache = cache_folder(self.cache)
        found = list_features(cache)
        if self.json:
            print(json.dumps(found, indent=2))
            return
        if found:
            _print_table(found, Console())
        _say(f"{_stores(found)}, in {cache / 'features'}")


@dataclass(frozen=True)
class Clean:
    """Remove stored features, after showing which and asking. What another process uses or builds stays.

    Filters narrow down what is removed; --interrupted and --damaged together mean either.

    For example:

    fedmpt features clean --older-than 30

    fedmpt features clean --interrupted --damaged --yes
    """

    older_than: float | None = None
    """Only what was not used for so many days."""
    interrupted: bool = False
    """Only builds that were stopped and could go on."""
    damaged: bool = False
    """Only stores that cannot be used."""
    key: str = ""
    """Only stores whose key begins so; list shows keys."""
    all: bool = False
    """All stores of the cache."""
    yes: bool = False
    """Do not ask."""
    cache: Path | None = None
    """Folder of the features; $FEDMPT_CACHE or a folder of the user's cache unless given."""

    def run(self) -> None:
        from fedmpt.data.features.listing import list_features, remove_features, time_text

        self._check()
        states = [name for name in ("interrupted", "damaged") if getattr(self, name)]
        latest = "9" if self.older_than is None else time_text(max(0.0, time.time() - 86400 * self.older_than))
        chosen = [
            record
            for record in list_features(cache_folder(self.cache))
            if record["key"].startswith(self.key)
            and record["last_used"] <= latest
            and (not states or record["state"] in states)
        ]
        if not chosen:
            _say("nothing to remove")
            return
        _print_table(chosen, Console(stderr=True))
        if not self.yes and not _agreed(chosen):
            _say("nothing was removed")
            return
        freed_bytes = 0
        for record in chosen:
            kept = remove_features(record)
            if kept:
                _say(f"left alone, {kept}: {record['folder']}")
            else:
                freed_bytes += record["size_bytes"]
        _say(f"{decimal(freed_bytes)} freed")

    def _check(self) -> None:
        from fedmpt.types import InputError

        narrows = self.interrupted or self.damaged or self.key != "" or self.older_than is not None
        if narrows == self.all:
            problem = "--all goes alone" if narrows else "nothing is chosen"
            filters = "--older-than DAYS, --interrupted, --damaged or --key PREFIX"
            raise InputError(f"{problem}; give {filters}, or just --all")
        if self.older_than is not None and not 0 <= self.older_than < float("inf"):
            raise InputError(f"--older-than must be a number of days, not negative, got {self.older_than}")


def features(arguments: list[str]) -> None:
    tyro.extras.subcommand_cli_from_dict(
        {"build": Build, "list": List, "clean": Clean},
        args=arguments,
        prog="fedmpt features",
        description="Features of the frozen model: computed ahead, listed, removed.",
    ).run()


def _agreed(chosen: Sequence[Record]) -> bool:
    from fedmpt.types import InputError

    if not sys.stdin.isatty():
        raise InputError("nothing was removed, as nobody can be asked here; give --yes to remove these")
    print(f"remove {_stores(chosen)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _stores(found: Sequence[Record]) -> str:
    number = "1 store" if len(found) == 1 else f"{len(found)} stores"
    return f"{number}, {decimal(sum(record['size_bytes'] for record in found))}"


def _print_table(found: Sequence[Record], console: Console) -> None:
    columns = ("data", "model", "images", "M x D", "numbers", "size", "last used", "state")
    # Nothing of a path is left out.
    table = Table(Column("key", no_wrap=True), *(Column(name, overflow="fold") for name in columns))
    for record in found:
        about = [""] * 5
        if "rows" in record:
            origin, rows, num_done = record["made_for"], record["rows"], record["images_done"]
            about = [
                f"{origin['data']} {origin['split']} ({origin['folder']})" if origin else "",
                record["backbone"],
                f"{rows:,}" if num_done == rows else f"{num_done:,} of {rows:,}",
                f"{record['num_patches']} x {record['width']}",
                record["dtype"],
            ]
        used = record["last_used"][:16].replace("T", " ")
        table.add_row(record["key"][:12], *about, decimal(record["size_bytes"]), used, record["state"])
    if not console.is_terminal:  # There is nothing to fit into: a key and a path a line, whole.
        console.width = 10_000
    console.print(table, markup=False)
