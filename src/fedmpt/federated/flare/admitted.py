"""Which certificate each site may come with: a file in the server's kit, which the running server reads.

NVFlare trusts whatever its authority has signed, until it ends. This list is what makes a lost key worthless at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fedmpt.errors import InputError
from fedmpt.files import read_json, write_json

FILE = "admitted.json"
"""In ``local/`` of the server's kit."""


@dataclass(frozen=True)
class Admission:
    """``certificate`` is the fingerprint of the one certificate that a site may come with; None: it is shut out.

    ``refused`` are those that it had before. Of a site that has none, any session may go on.
    """

    certificate: str | None
    refused: tuple[str, ...] = ()


def read_admitted(path: Path) -> Mapping[str, Admission]:
    """Sites by name. Raises InputError if the file is missing or is no such list."""
    words = read_json(path)
    try:
        return {str(name): Admission(entry["certificate"], tuple(entry["refused"])) for name, entry in words.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the list of admitted certificates ({error!r})") from error


def write_admitted(path: Path, admitted: Mapping[str, Admission]) -> None:
    write_json(path, {name: asdict(admitted[name]) for name in sorted(admitted)})


def admit(path: Path, site: str, certificate: str | None) -> None:
    """Let ``site`` come with ``certificate`` alone; with None it cannot come at all."""
    admitted = dict(read_admitted(path))
    before = admitted.get(site, Admission(None))
    refused = (*before.refused, *([before.certificate] if before.certificate else []))
    write_admitted(path, {**admitted, site: Admission(certificate, refused)})
