"""``fedmpt data download``: a benchmark set from its official address."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


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


def download(arguments: list[str]) -> None:
    options = tyro.cli(DownloadOptions, args=arguments, prog="fedmpt data download")
    from fedmpt.data.download import download as download_set
    from fedmpt.runs.records import check_writable

    check_writable(options.out, kind="folder")
    try:
        download_set(
            options.name,
            options.out,
            say=lambda line: print(line, file=sys.stderr),  # Which a bar on the screen makes room for.
            parts=options.parts,
            mirror=options.mirror,
            keep_archives=options.keep_archives,
        )
    except KeyboardInterrupt as stop:
        again = shlex.join(["fedmpt", "data", "download", *arguments])
        raise KeyboardInterrupt(f"; what has come is kept, go on with: {again}") from stop
