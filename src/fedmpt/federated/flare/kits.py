"""A site's folder: an invitation comes in, a request goes out, and the signed answer becomes a kit.

The site makes its own private key, which never leaves ``NAME/request``. What the coordinator signs is no secret.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedmpt.errors import InputError
from fedmpt.federated.flare.certificates import FINGERPRINT, check_certificates
from fedmpt.federated.flare.local import keep_startup, write_site_local
from fedmpt.federated.flare.policy import read_policy
from fedmpt.federated.flare.tool import nvflare
from fedmpt.federated.flare.units import write_site_units
from fedmpt.files import read_json, write_json

FORMAT = 1
INVITATION = "invitation.json"
MAX_INVITATION = 4 * 2**20
"""Bytes. A plan with tens of thousands of class names has fewer."""
ORGANISATION = "fedmpt"
"""Of all certificates; NVFlare wants one. Who may do what does not hang on it."""


@dataclass(frozen=True)
class Invitation:
    """What a site is told: its name, the plan as JSON, and by which root certificate it knows the coordinator."""

    site: str
    root: str
    """SHA-256 fingerprint of the root certificate. It is as trustworthy as the way that it came."""
    plan: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "site": self.site, "root": self.root, "plan": dict(self.plan)}


def read_invitation(path: Path) -> Invitation:
    """An invitation from anybody: whether its plan is one is left to who knows plans.

    Raises:
        InputError: if it is too long, no JSON, or no invitation.
    """
    if path.is_file() and path.stat().st_size > MAX_INVITATION:
        raise InputError(f"{path} has {path.stat().st_size} bytes, too many for an invitation; ask for it again")
    words = read_json(path)
    if not isinstance(words, dict) or words.keys() != {"format", "site", "root", "plan"}:
        raise InputError(f"{path} is no invitation; the coordinator finds them in DIR/invitations")
    if words["format"] != FORMAT:
        raise InputError(f"{path}: format {words['format']!r}, this version reads {FORMAT}; update fedmpt")
    site, root, plan = words["site"], words["root"], words["plan"]
    if not (isinstance(site, str) and isinstance(plan, dict)):
        raise InputError(f"{path} is no invitation: it has no site or no plan; ask for it again")
    if not isinstance(root, str) or not FINGERPRINT.fullmatch(root):
        raise InputError(f"{path}: root is no SHA-256 fingerprint; ask for it again")
    return Invitation(site, root, plan)


def request(invitation: Invitation, folder: Path, *, federation: str, renew: bool = False) -> Path:
    """Make a site's private key and the request for its certificate in ``folder``; returns the file to send.

    With ``renew`` a folder may have had a key before. A kit that is there works on until the answer has come.

    Raises:
        InputError: if the folder has a key already, or belongs to another site or federation.
    """
    mine, name = folder / "request", invitation.site
    if (folder / INVITATION).exists():
        _check_same(read_invitation(folder / INVITATION), invitation, folder)
    if mine.exists() and not renew:
        raise InputError(
            f"{folder} has a private key already; send its {name}.request.zip, or give --renew for a new key"
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / INVITATION).exists():
        raise InputError(f"{folder} has other files in it; give an empty or new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with TemporaryDirectory(prefix=".request-", dir=folder) as place:
        made = make_request(Path(place) / "request", name=name, kind="client", federation=federation)
        shutil.rmtree(mine, ignore_errors=True)
        (folder / f"{name}.signed.zip").unlink(missing_ok=True)  # An answer to an earlier request fits no longer.
        sent = made.rename(folder / made.name)
        (Path(place) / "request").rename(mine)
    write_json(folder / INVITATION, invitation.to_json())
    return sent


def make_request(folder: Path, *, name: str, kind: str, federation: str) -> Path:
    """A private key in ``folder`` and, beside it, the request for its certificate, which is returned."""
    folder.mkdir(mode=0o700)
    participant = {"name": name, "type": kind, "org": ORGANISATION, **({"role": "lead"} if kind == "admin" else {})}
    written = folder / "participant.yaml"  # JSON is YAML.
    written.write_text(json.dumps({"name": federation, "participants": [participant]}))
    refused = f"no request for {name} could be made: {{why}}"
    nvflare("cert", "request", "-p", written, "--out", folder, home=folder, refused=refused)
    return folder / f"{name}.request.zip"


def assemble(folder: Path, *, data: str | None = None) -> Invitation:
    """Make a site's folder ready to connect: its kit from the signed answer, our settings, policy, units.

    It may be called at every start. A new ``NAME.signed.zip`` replaces the kit that is there. ``data``, an option of
    ``fedmpt federation join``, goes into the units.

    Raises:
        InputError: for a piece that is missing, of another federation, or whose time is over, and how to get it.
    """
    if not (folder / INVITATION).is_file():
        raise InputError(f"{folder} is no site's folder, which fedmpt federation request makes: it has no {INVITATION}")
    invitation = read_invitation(folder / INVITATION)
    signed = folder / f"{invitation.site}.signed.zip"
    if signed.exists():
        unpack_signed(signed, folder / "request", folder, root=invitation.root)
        os.replace(signed, folder / "request" / signed.name)
    elif not (folder / "startup").is_dir():
        raise InputError(
            f"{signed} is missing: send {folder / f'{invitation.site}.request.zip'} to the coordinator, who approves "
            "it, and put the answer there"
        )
    check_certificates(folder)
    write_site_local(folder)
    read_policy(folder)
    write_site_units(folder, invitation.site, data=data)
    return invitation


def unpack_signed(signed: Path, key_folder: Path, folder: Path, *, root: str) -> None:
    """Turn what the coordinator signed, and our key, into ``folder/startup``.

    Raises:
        InputError: if another authority has signed it, or it is for another key.
    """
    if not key_folder.is_dir():
        raise InputError(f"{key_folder} with the private key is missing; make a new request with --renew")
    refused = (
        f"{signed} cannot be used: {{why}}. It must be the answer to the request in {key_folder}, by the coordinator "
        f"whose root certificate has the fingerprint {root}; ask the coordinator for it, or request anew with --renew"
    )
    with TemporaryDirectory(prefix=".kit-", dir=folder) as place:
        words = ("package", signed, "-w", place, "--request-dir", key_folder, "--fingerprint", root)
        keep_startup(Path(nvflare(*words, home=key_folder, refused=refused)["output_dir"]), folder)


def _check_same(before: Invitation, now: Invitation, folder: Path) -> None:
    if (before.site, before.root) != (now.site, now.root):
        raise InputError(
            f"{folder} belongs to site {before.site} of a federation with root {before.root}; the invitation is for "
            f"site {now.site} and root {now.root}. Give another folder with --out"
        )
