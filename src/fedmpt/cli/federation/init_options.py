"""Options of ``fedmpt federation init``: who takes part, and the config of a run without data of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from fedmpt.data.partition import Setting
from fedmpt.runs.config import RunConfig
from fedmpt.runs.federation.plan import Rules

REQUIRED = tyro.conf.arg(help_behavior_hint="(required)")
T = TypeVar("T")
Absent = Annotated[T, tyro.conf.Suppress, tyro.conf.Fixed]
"""An option of ``fedmpt train`` that is none here."""


@dataclass(frozen=True)
class SiteRun(RunConfig):
    """A run whose data are at the sites: what names data or divides them is no option."""

    data: Absent[str] = "sites"
    setting: Absent[Setting | None] = None
    t: Absent[float | None] = None
    clients: Absent[int | None] = None
    alpha: Absent[float | None] = None
    by: Absent[str | None] = None
    partition: Absent[str | None] = None

    @classmethod
    def of(cls, config: RunConfig) -> SiteRun:
        return cls(**_fields(config))

    def config(self) -> RunConfig:
        return RunConfig(**_fields(self))


def _fields(config: RunConfig) -> dict[str, Any]:
    return {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}


@dataclass(frozen=True, kw_only=True)
class InitOptions:
    """Set up a federation: certificates, the plan that all train by, and an invitation for each site.

    Leaves in FOLDER: coordinator/ and invitations/. It prints what comes next.

    For example:

    fedmpt federation init fed --sites clinic-a,clinic-b,clinic-c --address fl.example.org:8102 --rounds 30

    fedmpt federation init trial --sites a,b --address localhost:8102 --trial --method promptfl --min-sites 1
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(required)")]
    """New folder of the federation."""
    sites: Annotated[str, REQUIRED]
    """Names of the sites, with commas between: lower-case letters, digits and hyphens."""
    address: Annotated[str, REQUIRED]
    """HOST:PORT by which sites reach the coordinator. The port is the only one."""
    name: str = "fed"
    """Name of the federation."""
    trial: bool = False
    """Make the sites' kits too, in FOLDER/sites: for a trial on one machine."""
    days: int = 1095
    """How long certificates last."""
    root_days: int = 3650
    """How long the authority lasts. When it ends, everything is set up anew."""
    classes: Path | None = None
    """File with the names of the classes, one a line. Unless given: all that any site's labels name."""
    rules: Annotated[Rules, tyro.conf.arg(name="")] = field(default_factory=Rules)
    method: str = "fedmpt"
    """What to train: see `fedmpt methods`. Decides which method options there are below."""
    preset: Literal["default", "paper"] = "default"
    """Where options start from: what measured best here, or the paper's values."""
    run: Annotated[SiteRun, tyro.conf.arg(name="")]
