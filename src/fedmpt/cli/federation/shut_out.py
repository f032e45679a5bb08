"""``fedmpt federation shut-out``: a site's certificate counts no longer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from fedmpt.cli.federation import needs_engine


@dataclass(frozen=True, kw_only=True)
class ShutOutOptions:
    """Refuse a site's certificate from now on: its key was lost, or it no longer takes part.

    A running federation ends the site's session within a second. The site can come back with a new key: fedmpt
    federation request --renew there, and approve --replace here.

    For example:

    fedmpt federation shut-out clinic-a --coordinator fed/coordinator
    """

    site: tyro.conf.Positional[str]
    """Name of the site."""
    coordinator: Path = Path("coordinator")
    """The coordinator's folder."""


def shut_out(arguments: list[str]) -> None:
    options = tyro.cli(ShutOutOptions, args=arguments, prog="fedmpt federation shut-out")
    needs_engine()
    # Imported late: help and mistyped options must not wait for it.
    from fedmpt.federated.flare.authority import shut_out as refuse

    refuse(options.site, options.coordinator)
    Console(highlight=False, soft_wrap=True, emoji=False).print(
        f"{options.site} is shut out: its certificate is refused, also by a server that runs now", markup=False
    )
