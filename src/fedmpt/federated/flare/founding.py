"""A new federation: the coordinator's folder, one invitation a site, and for a trial all kits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from fedmpt.federated.flare.admitted import FILE, Admission, write_admitted
from fedmpt.federated.flare.authority import PLAN, approve, assemble_server, new_authority, sign
from fedmpt.federated.flare.certificates import fingerprint
from fedmpt.federated.flare.kits import Invitation, assemble, make_request, request, unpack_signed
from fedmpt.federated.flare.local import OPERATOR
from fedmpt.federated.flare.units import write_coordinator_units, write_site_units
from fedmpt.files import write_json
from fedmpt.types import InputError

PARTS = ("invitations", "sites", "coordinator")
"""What is left in the folder. The coordinator's part comes last: where it is, all is."""


def set_up(
    folder: Path, plan: Mapping[str, Any], *, address: tuple[str, int], days: int, root_days: int, trial: bool
) -> str:
    """Set a federation up in ``folder``: all of it, or after a failure nothing. Returns the root's fingerprint.

    ``plan`` has the federation's ``name`` and its ``sites``. Certificates last ``days``, the root's ``root_days``. With
    ``trial`` all sites get their kits at once, and their private keys are in ``folder`` too.

    Raises:
        InputError: if ``folder`` has a federation already.
    """
    (host, port), name = address, str(plan["name"])
    with _all_or_nothing(folder) as new:
        coordinator = new / "coordinator"
        root = new_authority(coordinator, name, host=host, port=port, days=days, root_days=root_days)
        write_json(coordinator / PLAN, plan)
        _own_kit(coordinator, "server", name=host, kind="server", federation=name, root=root)
        operator = _own_kit(coordinator, "operator", name=OPERATOR, kind="admin", federation=name, root=root)
        (coordinator / "server" / "local").mkdir(mode=0o700)
        write_admitted(coordinator / "server" / "local" / FILE, {OPERATOR: Admission(operator)})
        _invite(new, plan, root=root, trial=trial)
    assemble_server(folder / "coordinator")  # With paths, so not before it has its place.
    write_coordinator_units(folder / "coordinator", port=port)
    for site in plan["sites"] if trial else ():
        write_site_units(folder / "sites" / site, site)
    return root


def _invite(new: Path, plan: Mapping[str, Any], *, root: str, trial: bool) -> None:
    (new / "invitations").mkdir(mode=0o700)
    for site in plan["sites"]:
        invitation = Invitation(site, root, plan)
        write_json(new / "invitations" / f"{site}.json", invitation.to_json())
        if trial:
            kit = new / "sites" / site
            approve(request(invitation, kit, federation=str(plan["name"])), new / "coordinator")
            assemble(kit)


def _own_kit(coordinator: Path, own: str, *, name: str, kind: str, federation: str, root: str) -> str:
    """The kit of the server or the operator, by the steps of a site, in one place; its certificate's fingerprint."""
    with TemporaryDirectory(prefix=".request-", dir=coordinator) as place:
        key_folder, signed = Path(place) / "request", Path(place) / f"{name}.signed.zip"
        asked = make_request(key_folder, name=name, kind=kind, federation=federation)
        certificate = sign(coordinator, asked, signed)
        (coordinator / own).mkdir(mode=0o700)
        unpack_signed(signed, key_folder, coordinator / own, root=root)
    return fingerprint(certificate)


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder to build `PARTS` in, which are moved to ``folder`` when all is done."""
    for part in PARTS:
        if (folder / part).exists():
            raise InputError(f"{folder / part} exists already; give another folder, or remove it first")
    was_there = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(mkdtemp(prefix=".init-", dir=folder))
    try:
        yield new
        for part in PARTS:
            if (new / part).exists():
                (new / part).rename(folder / part)
    finally:
        shutil.rmtree(new)
        if not was_there and not any(folder.iterdir()):
            folder.rmdir()
