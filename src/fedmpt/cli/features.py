"""`fedmpt features`: compute features ahead of training, list what is stored, remove what is not needed."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from fedmpt.cli.cache import cache_folder

if TYPE_CHECKING:
    from fedmpt.data.features.listing import StoredFeatures


@dataclass(frozen=True)
class BuildOptions:
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


@dataclass(frozen=True)
class ListOptions:
    """List stored features, last used first.

    For example:

    fedmpt features list
    """

    json: bool = False
    """One JSON list with everything that is known of each store, for machines."""
    cache: Path | None = None
    """Folder of the features; $FEDMPT_CACHE or a folder of the user's cache unless given."""


@dataclass(frozen=True)
class CleanOptions:
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


Options = (
    Annotated[BuildOptions, tyro.conf.subcommand("build", prefix_name=False)]
    | Annotated[ListOptions, tyro.conf.subcommand("list", prefix_name=False)]
    | Annotated[CleanOptions, tyro.conf.subcommand("clean", prefix_name=False)]
)


def features(words: list[str]) -> None:
    options = tyro.cli(
        Options,
        args=words,
        prog="fedmpt features",
        description="Features of the frozen model: computed ahead, listed, removed.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    if isinstance(options, BuildOptions):
        _build(options)
    elif isinstance(options, ListOptions):
        _list(options)
    else:
        assert isinstance(options, CleanOptions)
        _clean(options)


def _build(options: BuildOptions) -> None:
    from fedmpt.backbone.load import load_backbone
    from fedmpt.data import load_data
    from fedmpt.data.features.store import open_features
    from fedmpt.runs.config import DTYPES

    cache = cache_folder(options.cache)
    data = load_data(options.data, cache=cache, progress=True)
    backbone = load_backbone(options.backbone, device=options.device, dtype=DTYPES[options.dtype])
    for split in (data.train, data.test):
        if len(split) == 0:  # Images to test on alone, or to train on.
            _say(f"{split.name}: no images")
            continue
        try:
            stored = open_features(
                backbone,
                split,
                cache=cache,
                store_dtype=options.store_dtype,
                batch_size=options.batch_size,
                device=options.device,
                skip_corrupt=options.skip_corrupt,
                data=options.data,
            )
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt("; what is done is stored, the same command goes on") from stop
        for path in stored.skipped:
            _say(f"left out, cannot be read: {path}")
        facts = stored.store.facts
        size = f"{facts.num_patches} x {facts.width}, {decimal(facts.rows * facts.row_bytes)} in {facts.dtype}"
        _say(f"{split.name}: {len(stored):,} images, {size}, in {cache / 'features' / facts.key}")


def _list(options: ListOptions) -> None:
    from fedmpt.data.features.listing import list_features

    cache = cache_folder(options.cache)
    found = list_features(cache)
    if options.json:
        print(json.dumps(list(map(_record, found)), indent=2))
        return
    if found:
        _print_table(found, Console())
    _say(f"{_stores(found)}, in {cache / 'features'}")


def _clean(options: CleanOptions) -> None:
    from fedmpt.data.features.listing import remove_features

    chosen = []
    for stored in _selected(options):
        if stored.state == "building":
            _say(f"left alone, it is being built: {stored.folder}")
        else:
            chosen.append(stored)
    if not chosen:
        _say("nothing to remove")
        return
    _print_table(chosen, Console(stderr=True))
    if not options.yes and not _agreed(chosen):
        _say("nothing was removed")
        return
    freed_bytes = 0
    for stored in chosen:
        kept = remove_features(stored)
        if kept:
            _say(f"left alone, {kept}: {stored.folder}")
        else:
            freed_bytes += stored.size_bytes
    _say(f"{decimal(freed_bytes)} freed")


def _selected(options: CleanOptions) -> list[StoredFeatures]:
    from fedmpt.data.features.listing import list_features
    from fedmpt.types import InputError

    states = [name for name in ("interrupted", "damaged") if getattr(options, name)]
    narrows = bool(states or options.key or options.older_than is not None)
    if narrows == options.all:
        problem = "--all goes alone" if narrows else "nothing is chosen"
        raise InputError(f"{problem}; give --older-than DAYS, --interrupted, --damaged or --key PREFIX, or just --all")
    days = options.older_than or 0
    if not 0 <= days < float("inf"):
        raise InputError(f"--older-than must be a number of days, not negative, got {days}")
    return [
        stored
        for stored in list_features(cache_folder(options.cache))
        if (not states or stored.state in states)
        and stored.key.startswith(options.key)
        and (options.older_than is None or time.time() - stored.last_used > days * 86400)
    ]


def _agreed(chosen: Sequence[StoredFeatures]) -> bool:
    from fedmpt.types import InputError

    if not sys.stdin.isatty():
        raise InputError("nothing was removed, as nobody can be asked here; give --yes to remove these")
    print(f"remove {_stores(chosen)}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _stores(found: Sequence[StoredFeatures]) -> str:
    number = "1 store" if len(found) == 1 else f"{len(found)} stores"
    return f"{number}, {decimal(sum(stored.size_bytes for stored in found))}"


def _print_table(found: Sequence[StoredFeatures], console: Console) -> None:
    table = Table()
    table.add_column("key", no_wrap=True)
    for column in ("data", "model"):
        table.add_column(column, overflow="fold")  # Nothing of a path is left out.
    for column in ("images", "M x D", "numbers", "size", "last used", "state"):
        table.add_column(column, justify="right" if column in ("images", "M x D", "size") else "left")
    for stored in found:
        facts, used = stored.facts, time.strftime("%Y-%m-%d %H:%M", time.localtime(stored.last_used))
        about = [""] * 5
        if facts is not None:
            origin = facts.made_for
            data = f"{origin['data']} {origin['split']} ({origin['folder']})" if origin else ""
            images = f"{facts.rows:,}" if stored.num_done == facts.rows else f"{stored.num_done:,} of {facts.rows:,}"
            about = [data, facts.backbone, images, f"{facts.num_patches} x {facts.width}", facts.dtype]
        table.add_row(stored.key[:12], *about, decimal(stored.size_bytes), used, stored.state)
    if not console.is_terminal:  # There is nothing to fit into: a key and a path a line, whole.
        console.width = 10_000
    console.print(table, markup=False)


def _record(stored: StoredFeatures) -> dict[str, Any]:
    return {
        **(dataclasses.asdict(stored.facts) if stored.facts else {}),
        "key": stored.key,
        "folder": str(stored.folder),
        "state": stored.state,
        "size_bytes": stored.size_bytes,
        "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stored.last_used)),
        "images_done": stored.num_done,
    }
