"""``fedmpt federation status``: who is there, and where the run stands."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

SOON = 30
"""Days before a certificate ends from which on it is said."""


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Show who is there and since when, the round, the loss, who failed and why, and which certificates end soon.

    Reads files of the coordinator's folder alone: it works while `fedmpt federation start` runs, and after.

    For example:

    fedmpt federation status trial/coordinator

    fedmpt federation status trial/coordinator --json
    """

    coordinator: tyro.conf.Positional[Path] = Path("coordinator")
    """The coordinator's folder."""
    json: bool = False
    """Print all of it as JSON, for other programs."""


def status(arguments: list[str]) -> None:
    options = tyro.cli(StatusOptions, args=arguments, prog="fedmpt federation status")
    from fedmpt.cli.federation import needs_engine

    needs_engine()
    from fedmpt.federated.flare.authority import expiries, shut_out_sites
    from fedmpt.files import LOCK, is_held
    from fedmpt.runs.federation.run import load_plan
    from fedmpt.runs.federation.status import Status

    folder = options.coordinator
    plan = load_plan(folder)
    found = Status.read(folder, plan.sites)
    lock = folder / LOCK
    is_running = lock.exists() and is_held(lock)
    if is_running and found.state in ("finished", "stopped"):  # Begun again, and nothing is written yet.
        found.state, found.note = "gathering", ""
    if not is_running and found.state not in ("finished", "stopped"):
        found.state, found.note = "stopped", "its process has ended without a word; start it again, it goes on"
    for site in shut_out_sites(folder):
        found.sites[site].state, found.sites[site].reason = "shut out", "its certificate is refused"
    ends = expiries(folder)
    if options.json:
        words = {"federation": plan.name, "running": is_running, **found.to_json()}
        print(json.dumps({**words, "certificates": {name: end.isoformat() for name, end in ends.items()}}, indent=2))
        return
    _print(plan.name, found.to_json(), ends, is_running=is_running)


def _print(name: str, found: Mapping[str, Any], ends: Mapping[str, datetime], *, is_running: bool) -> None:
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    note = f": {found['note']}" if found["note"] else ""
    console.print(f"federation {name}: {found['state']}{note}", markup=False)
    numbers = [f"round {found['round']} of {found['rounds']}"] if found["rounds"] else []
    for key, form in (("loss", "loss {:.4f}"), ("mAP", "mAP {:.1f}"), ("seconds", "{:.1f} s a round")):
        numbers += [form.format(found[key])] if found[key] is not None else []
    if numbers:
        console.print(f"{', '.join(numbers)}; written {_ago(found['updated'])}", markup=False)
    table = Table("site", "is" if is_running else "was", "since", "images", "round", "loss")
    for site, row in found["sites"].items():
        table.add_row(
            site,
            row["state"],
            Text("" if row["since"] is None else _ago(row["since"]), no_wrap=True),
            str(row["images"] or ""),
            str(row["round"] or ""),
            "" if row["loss"] is None else f"{row['loss']:.3f}",
        )
    console.print(table)
    for site, row in found["sites"].items():  # Not in the table: a reason may be longer than a line.
        for reason in _reasons(found["state"], row, is_approved=site in ends):
            console.print(f"{site}: {reason}", markup=False)
    for owner, end in ends.items():
        days = (end - datetime.now(UTC)).days
        if days < SOON:
            when = f"ends in {days} days" if days >= 0 else "has ended"
            console.print(f"note: the certificate of {owner} {when}: see docs/federation.md, Certificates end")


def _reasons(state: str, row: Mapping[str, Any], *, is_approved: bool) -> list[str]:
    """What is to be said of a site, beside the table."""
    found = [row["reason"]] if row["reason"] else []
    if row["state"] == "shut out":
        found.append("it comes back with a new key: request --renew there, approve --replace here")
    elif not is_approved:
        found.append("its request is not approved yet: fedmpt federation approve")
    if state == "finished" and not row["has_model"]:
        found.append("it does not have the final model; start once more when it is there")
    return found


def _ago(moment: float) -> str:
    seconds = max(0, round(time.time() - moment))
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
