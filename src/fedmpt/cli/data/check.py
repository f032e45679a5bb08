"""``fedmpt data check``: what is in the folder of a data set, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmpt.cli.cache import cache_folder


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


def check(arguments: list[str]) -> None:
    options = tyro.cli(CheckOptions, args=arguments, prog="fedmpt data check")
    from fedmpt.data.check import check_data, unreadable_images
    from fedmpt.types import InputError

    # As all other commands have it, folder:photos, or in two words.
    spec = f"{options.name}:{options.path}" if options.path else options.name
    found, data = check_data(spec, cache=cache_folder(options.cache))
    errors = unreadable_images(data) if options.images and data is not None else ()
    found["unreadable"] = [str(error) for error in errors]
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _print_check(found, were_opened=options.images)
    if found["problem"] is not None:
        raise InputError(found["problem"])
    if errors:
        raise InputError(f"{len(errors)} images cannot be read; replace them, or train with --skip-corrupt")


def _print_check(found: Mapping[str, Any], *, were_opened: bool) -> None:
    for part in found["parts"]:
        state = "found  " if part["found"] else "MISSING" if part["required"] else "absent "
        place = part["found"] or " or ".join(part["paths"])
        files = f", {part['files']:,} files" if part["files"] is not None else ""
        example = f", for example {part['paths'][0]}/{part['example']}" if part["example"] and not part["found"] else ""
        print(f"{state} {place}{files}: {part['what']}{example}")
    if found["splits"]:
        Console(highlight=False, soft_wrap=True, emoji=False).print(_class_table(found["classes"], found["splits"]))
    for note in found["notes"]:
        print(f"note: {note}")
    for error in found["unreadable"]:
        print(f"unreadable: {error}")
    if found["splits"] and not were_opened:
        print("images were not opened; --images reads each of them")


def _class_table(class_names: Sequence[str], splits: Sequence[Mapping[str, Any]]) -> Table:
    """Images that show each class; a column for unknown labels only where there are any."""
    table = Table(title="images that show each class")
    table.add_column("class", overflow="fold")
    columns: list[list[str]] = []
    for split in splits:
        table.add_column(split["split"], justify="right")
        columns.append([f"{count:,}" for count in (split["images"], *split["present"].values())])
        if any(split["unknown"].values()):
            table.add_column("unknown", justify="right")
            columns.append(["", *(f"{count:,}" for count in split["unknown"].values())])
    first, *rows = zip(*columns, strict=True)
    table.add_row("all images", *first, style="bold")
    table.add_section()
    for name, row in zip(class_names, rows, strict=True):
        table.add_row(Text(name), *row)
    return table
