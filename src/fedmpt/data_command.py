"""`fedmpt data`: what is there, fetching a benchmark set, and a look at how it is divided.

What needs torch is imported within functions: help and mistyped options must not wait for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from fedmpt.data_tables import check, pairs, partition

HELP = """usage: fedmpt data COMMAND [OPTIONS]

commands:
  check      say what is in a folder, what is missing, and how many images show each class
  download   fetch a benchmark set from its official address
  partition  deal training images to clients, describe them, keep or draw that
  pairs      list the classes that training shows together more often than chance would

examples:
  fedmpt data check folder photos --images
  fedmpt data download voc2007 --out VOCdevkit
  fedmpt data partition --data voc:VOCdevkit --t 0.5 --plot clients.png
  fedmpt data pairs --data voc:VOCdevkit

'fedmpt data COMMAND --help' lists a command's options.
"""


@dataclass(frozen=True)
class DownloadOptions:
    """Fetch a benchmark set from its official address, check it and unpack it. A download that was stopped goes on.

    For example:

    fedmpt data download voc2007 --out VOCdevkit

    fedmpt data download coco2014 --out coco --parts annotations val
    """

    name: tyro.conf.Positional[Literal["voc2007", "coco2014"]]
    """Data set: VOC 2007 (0.9 GB, 1.4 GB of disk while unpacking) or COCO 2014 (20 GB, 37 GB of disk)."""
    out: Path
    """Folder for it; then use it as --data voc:FOLDER or --data coco:FOLDER."""
    parts: tuple[str, ...] = ()
    """Only these parts: trainval, test (VOC); annotations, val, train (COCO)."""
    mirror: str | None = None
    """Another address that has the official files, for example https://example.org/files. Checksums still hold."""
    keep_archives: bool = False
    """Keep the tar and zip files beside what was unpacked."""


def download(words: list[str]) -> None:
    options = tyro.cli(DownloadOptions, args=words, prog="fedmpt data download")
    from fedmpt.data.download import download as download_set
    from fedmpt.data.download.report import Report
    from fedmpt.records import check_writable

    check_writable(options.out, kind="folder")
    try:
        download_set(
            options.name,
            options.out,
            report=Report(Console(stderr=True, highlight=False, soft_wrap=True)),
            parts=options.parts,
            mirror=options.mirror,
            keep_archives=options.keep_archives,
        )
    except KeyboardInterrupt as stop:
        again = shlex.join(["fedmpt", "data", "download", *words])
        raise KeyboardInterrupt(f"; what has come is kept, go on with: {again}") from stop


SUBCOMMANDS: dict[str, Callable[[list[str]], None]] = {
    "check": check,
    "download": download,
    "partition": partition,
    "pairs": pairs,
}


def data(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if words[0] not in SUBCOMMANDS:
        from fedmpt.types import InputError

        raise InputError(f"unknown command {words[0]!r}; there are: {', '.join(SUBCOMMANDS)}")
    SUBCOMMANDS[words[0]](words[1:])
