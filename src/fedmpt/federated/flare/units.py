"""How a kit runs for good: a systemd unit, and a file for ``docker compose``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

IMAGE = "fedmpt"
"""The container's image; docs/federation.md has its Dockerfile."""
NO_DATA = "folder:/path/to/photos"
"""Stands in a site's unit until its data are known."""


def write_coordinator_units(coordinator: Path, *, port: int) -> None:
    """``fedmpt-coordinator.service`` and ``compose.yaml`` in the coordinator's folder."""
    unit = _unit(coordinator, "start", description="fedmpt: coordinator of a federation")
    (coordinator / "fedmpt-coordinator.service").write_text(unit)
    extra = f'    ports: ["{port}:{port}"]\n'
    (coordinator / "compose.yaml").write_text(
        _compose("coordinator", ["start", "/kit"], mounts=["./:/kit"], extra=extra)
    )


def write_site_units(folder: Path, site: str, *, data: str | None = None) -> None:
    """``fedmpt-site.service`` and ``compose.yaml`` in a site's folder. Without ``data`` those that are there stay."""
    unit, compose = folder / "fedmpt-site.service", folder / "compose.yaml"
    if data is None and unit.exists() and compose.exists():
        return
    given = data or NO_DATA
    unit.write_text(_unit(folder, "join", "--data", given, description=f"fedmpt: site {site} of a federation"))
    words = ["join", "/kit", "--data", f"{given.partition(':')[0]}:/data"]
    compose.write_text(_compose("site", words, mounts=["./:/kit", "${DATA:?the folder of the images}:/data:ro"]))


def _unit(folder: Path, command: str, *options: str, description: str) -> str:
    """A unit of the system's that runs as who made it, and may write to ``folder`` alone.

    Exit code 2 is wrong input, which no restart mends.
    """
    place, program = str(folder.absolute()), str(Path(sys.executable).with_name("fedmpt"))
    words = " ".join(_escaped(word).replace("$", "$$") for word in (program, "federation", command, place, *options))
    return f"""# Copy this file to /etc/systemd/system, then: systemctl enable --now and its name
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User={os.getuid()}
ExecStart={words}
Restart=on-failure
RestartSec=30
RestartPreventExitStatus=2
TimeoutStopSec=60
UMask=0077
Environment={_escaped(f"FEDMPT_CACHE={place}/cache")}
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={_escaped(place)}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LockPersonality=yes
CapabilityBoundingSet=

[Install]
WantedBy=multi-user.target
"""


def _escaped(word: str) -> str:
    """A word of a unit, where % begins a specifier and blanks part words."""
    quoted = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{quoted}"' if any(letter.isspace() for letter in word) else quoted


def _compose(service: str, words: Sequence[str], *, mounts: Sequence[str], extra: str = "") -> str:
    """One service. The kit is its home: features, and a model that it fetches, are kept there."""
    listed = "\n".join(f'      - "{mount}"' for mount in mounts)
    command = ", ".join(f'"{word}"' for word in ("federation", *words))
    return f"""# docker compose up --detach; the image is built as docs/federation.md says.
services:
  {service}:
    image: {IMAGE}
    command: [{command}]
{extra}    volumes:
{listed}
    environment:
      HOME: /kit
      FEDMPT_CACHE: /kit/cache
    user: "{os.getuid()}:{os.getgid()}"
    restart: on-failure
    init: true
    read_only: true
    tmpfs: ["/tmp"]
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
"""
