"""``fedmpt federation join``: a site takes part."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fedmpt.cli.cache import cache_folder


@dataclass(frozen=True, kw_only=True)
class JoinOptions:
    """Take part in a federation, at a site. Runs until it is stopped (Ctrl-C); the same command goes on.

    First it checks the images, the model and the disk, and computes features of the images, which may take hours. Then
    it connects to the coordinator, and waits for rounds. Images never leave the site: see docs/privacy.md.

    For example:

    fedmpt federation join clinic-a --data folder:photos

    fedmpt federation join clinic-a --data voc:VOCdevkit --backbone models/clip-vit-base-patch16 --device cuda
    """

    kit: tyro.conf.Positional[Path]
    """The site's folder, which `fedmpt federation request` made."""
    data: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(required)")] = None
    """The site's images and labels, NAME:PATH, as in fedmpt train: folder:photos, voc:VOCdevkit."""
    backbone: str | None = None
    """Frozen model, if it is not where the federation's plan says; it must be the same model."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:1."""
    skip_corrupt: bool = False
    """Leave out images that cannot be read, and list them, instead of stopping."""
    cache: Path | None = None
    """Folder for computed features; $FEDMPT_CACHE or a folder of the user's cache unless given."""
    quiet: bool = False
    """Print nothing but errors."""


def join(arguments: list[str]) -> None:
    options = tyro.cli(JoinOptions, args=arguments, prog="fedmpt federation join")
    from fedmpt.cli.federation import needs_engine

    needs_engine()
    from fedmpt.federated.flare.kits import assemble
    from fedmpt.federated.flare.supervise import INTERRUPTED, supervise
    from fedmpt.files import exclusive
    from fedmpt.runs.federation.joining import WorkerOptions, said

    assemble(options.kit, data=options.data)
    worker = WorkerOptions(
        kit=str(options.kit.absolute()),
        data=options.data,
        cache=str(cache_folder(options.cache)),
        backbone=options.backbone,
        device=options.device,
        skip_corrupt=options.skip_corrupt,
        quiet=options.quiet,
    )
    note = said(options.quiet)
    with exclusive(options.kit):  # Two would register as one site, in turns.
        code = supervise(options.kit.absolute(), worker=worker.command(), note=note)
    if code == INTERRUPTED:
        raise KeyboardInterrupt("; the same command takes part again")
    sys.exit(code)
