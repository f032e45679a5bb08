"""``fedmpt federation request``: an invitation in, a private key and a request out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from fedmpt.cli.federation import needs_engine


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """Make this site's private key, and a request for its certificate. The key never leaves the site.

    For example:

    fedmpt federation request clinic-a.json

    fedmpt federation request clinic-a/invitation.json --out clinic-a --renew
    """

    invitation: tyro.conf.Positional[Path]
    """File that the coordinator sent."""
    out: Path | None = None
    """Folder of this site; one of the site's name unless given."""
    renew: bool = False
    """Make a new key for a site that has one: its key was lost, or its certificate ends."""


def request(arguments: list[str]) -> None:
    options = tyro.cli(RequestOptions, args=arguments, prog="fedmpt federation request")
    needs_engine()
    # Imported late: help and mistyped options must not wait for torch.
    from fedmpt.federated.flare.kits import read_invitation
    from fedmpt.federated.flare.kits import request as make
    from fedmpt.runs.federation.plan import Plan
    from fedmpt.types import InputError

    invitation = read_invitation(options.invitation)
    plan = Plan.from_json(invitation.plan, source=str(options.invitation))
    if invitation.site not in plan.sites:
        raise InputError(f"{options.invitation} is for {invitation.site!r}, which is not among its plan's sites")
    if plan.is_simulation:  # Its nodes do what the coordinator says, whatever a site's policy.
        raise InputError(
            f"{options.invitation} is of fedmpt train --engine flare, where a node has no images of its own; ask for "
            "an invitation that fedmpt federation init made"
        )
    folder = options.out or Path(invitation.site)
    sent = make(invitation, folder, federation=plan.name, renew=options.renew)
    Console(highlight=False, soft_wrap=True, emoji=False).print(
        f"site {invitation.site} of federation {plan.name} at {plan.address}, method {plan.run.method.name}\n"
        f"root certificate: {invitation.root}\n\nWhat comes next:\n"
        + (_after_renewal if options.renew else _what_next)(invitation.site, folder, sent),
        markup=False,
    )


def _what_next(site: str, folder: Path, sent: Path) -> str:
    return f"""1. Ask the coordinator for the root certificate's fingerprint by telephone. If it is not the one above,
   somebody has changed the invitation: delete {folder}, and ask for the invitation again.
2. Send {sent} to the coordinator. Keep {folder / "request"} to yourself.
3. Put the answer into {folder} as {site}.signed.zip.
4. Run: fedmpt federation join {folder} --data folder:PHOTOS"""


def _after_renewal(site: str, folder: Path, sent: Path) -> str:
    return f"""1. Send {sent} to the coordinator, and say that it replaces the earlier one.
   Keep {folder / "request"} to yourself.
2. Put the answer into {folder} as {site}.signed.zip.
3. Stop fedmpt federation join, and start it again: it takes the answer at its start."""
