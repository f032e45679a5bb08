"""``fedmpt federation approve``: a site's request in, a signed answer out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from fedmpt.cli.federation import needs_engine


@dataclass(frozen=True, kw_only=True)
class ApproveOptions:
    """Sign a site's request. From then on the site may connect with the certificate in the answer, and no other.

    For example:

    fedmpt federation approve clinic-a.request.zip --coordinator fed/coordinator
    """

    request: tyro.conf.Positional[Path]
    """File that the site sent."""
    coordinator: Path = Path("coordinator")
    """The coordinator's folder."""
    replace: bool = False
    """The site was approved before, and has made a new key. Its earlier certificate is refused from now on."""


def approve(arguments: list[str]) -> None:
    options = tyro.cli(ApproveOptions, args=arguments, prog="fedmpt federation approve")
    needs_engine()
    # Imported late: help and mistyped options must not wait for it.
    from fedmpt.federated.flare.authority import approve as sign

    answer = sign(options.request, options.coordinator, replace=options.replace)
    Console(highlight=False, soft_wrap=True, emoji=False).print(
        f"approved; send {answer} to the site. It is no secret: only who has the site's key can use it", markup=False
    )
