"""The coordinator's authority: it signs requests of sites, shuts sites out, and knows when certificates end."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedmpt.federated.flare.admitted import FILE, Admission, admit, read_admitted
from fedmpt.federated.flare.certificates import check_in_time, common_name, fingerprint, read_certificate
from fedmpt.federated.flare.local import write_operator_local, write_server_local
from fedmpt.federated.flare.tool import nvflare
from fedmpt.files import exclusive, read_json, write_json
from fedmpt.types import InputError

PLAN = "federation.json"
MAX_REQUEST = 2**20
"""Bytes of a request, which has 1500, and of what is in it."""
OUR_ANSWERS = ("signed.json", "signed.json.sig", "site.yaml", "rootCA.pem")
"""What is in a signed answer beside the certificate."""


def new_authority(coordinator: Path, federation: str, *, host: str, port: int, days: int, root_days: int) -> str:
    """Make the authority in a new folder ``coordinator``; returns its root's fingerprint."""
    folder = coordinator / "authority"
    for made in (coordinator, folder, folder / "issued"):
        made.mkdir(mode=0o700, parents=True)
    server = {"host": host, "fed_learn_port": port, "admin_port": port}
    profile = {"name": federation, "scheme": "tcp", "connection_security": "mtls", "server": server}
    (folder / "project.yaml").write_text(json.dumps(profile, indent=2) + "\n")  # JSON is YAML.
    write_json(folder / "settings.json", {"days": days})
    words = ("cert", "init", "--profile", folder / "project.yaml", "-o", folder, "--valid-days", root_days)
    answer = nvflare(*words, home=folder, refused="no authority could be made: {why}")
    return str(answer["rootca_fingerprint_sha256"])


def sign(coordinator: Path, request: Path, out: Path) -> x509.Certificate:
    """The authority's answer to a request, in the file ``out``; returns the certificate that is in it."""
    folder = coordinator / "authority"
    refused = f"{request} cannot be approved: {{why}}; ask the site to make it anew"
    words = ("cert", "approve", request, "-c", folder, "--profile", folder / "project.yaml", "--out", out)
    days = read_json(folder / "settings.json")["days"]
    name = nvflare(*words, "--valid-days", days, home=folder, refused=refused)["name"]
    with zipfile.ZipFile(out) as answer:
        return x509.load_pem_x509_certificate(answer.read(f"{name}.crt"))


def approve(request: Path, coordinator: Path, *, replace: bool = False) -> Path:
    """Sign a site's request. Returns the answer, which lies beside it; from now on the site may come with it.

    With ``replace`` a site may have been approved before. Its earlier certificate no longer counts, at once.

    Raises:
        InputError: if it is no request of a site of this federation, or the site was approved before.
    """
    check_coordinator(coordinator)
    admitted = coordinator / "server" / "local" / FILE
    with _alone(coordinator), TemporaryDirectory(prefix=".approve-", dir=coordinator / "authority") as place:
        copy = Path(place) / "asked.request.zip"  # What is looked at is what is signed.
        copy.write_bytes(_read_limited(request))
        site = _site_of(copy, request, read_json(coordinator / PLAN))
        if site in _approved(coordinator) and not replace:
            raise InputError(
                f"{site} was approved before. If it has really made a new key (ask by telephone), give --replace: its "
                "earlier certificate is then refused"
            )
        answer = Path(place) / f"{site}.signed.zip"
        certificate = sign(coordinator, copy, answer)
        assert common_name(certificate) == site, "NVFlare has signed another name than was asked for"
        _keep(coordinator, site, certificate)
        admit(admitted, site, fingerprint(certificate))
        out = request.absolute().with_name(answer.name)
        out.write_bytes(answer.read_bytes())
        return out


def shut_out(site: str, coordinator: Path) -> None:
    """Refuse a site's certificate from now on; a running server ends its session within a second.

    Raises:
        InputError: if the site never was approved.
    """
    check_coordinator(coordinator)
    with _alone(coordinator):
        admitted = _approved(coordinator)
        if site not in admitted:
            known = ", ".join(admitted) or "none yet"
            raise InputError(f"{site} has no certificate, so there is nothing to refuse; approved were: {known}")
        if admitted[site].certificate is not None:
            admit(coordinator / "server" / "local" / FILE, site, None)


def _alone(coordinator: Path) -> AbstractContextManager[None]:
    """Of two that change who is admitted, the second waits for the first: else its change could be lost."""
    return exclusive(coordinator / "authority", on_wait=lambda: None)


def expiries(coordinator: Path) -> dict[str, datetime]:
    """When certificates end, in UTC: of the root, server, operator, and of all sites that may come."""
    check_coordinator(coordinator)
    paths = {"root": coordinator / "authority" / "rootCA.pem", **_own_certificates(coordinator)}
    for site, admission in _approved(coordinator).items():
        if admission.certificate is not None:
            paths[site] = _issued(coordinator, site)
    return {name: read_certificate(path).not_valid_after_utc for name, path in paths.items()}


def shut_out_sites(coordinator: Path) -> list[str]:
    """The sites whose certificate is refused, and that have no new one."""
    return [site for site, admission in _approved(coordinator).items() if admission.certificate is None]


def assemble_server(coordinator: Path) -> None:
    """Make the server's kit ready to start, wherever the folder has been moved to. It may be called at every start.

    Raises:
        InputError: if there is no kit, or the time of a certificate is over.
    """
    check_coordinator(coordinator)
    remedy = "set the federation up anew in another folder: fedmpt federation init"
    for path in (coordinator / "authority" / "rootCA.pem", *_own_certificates(coordinator).values()):
        check_in_time(path, remedy=remedy)
    write_server_local(coordinator / "server", num_sites=len(read_json(coordinator / PLAN)["sites"]))
    write_operator_local(coordinator / "operator")


def check_coordinator(coordinator: Path) -> None:
    """Raises InputError unless ``coordinator`` is the folder of one."""
    if not (coordinator / PLAN).is_file() or not (coordinator / "authority").is_dir():
        raise InputError(
            f"{coordinator} is no coordinator's folder, which fedmpt federation init makes; give it with --coordinator"
        )


def _approved(coordinator: Path) -> dict[str, Admission]:
    """The sites that were ever approved."""
    sites = read_json(coordinator / PLAN)["sites"]
    admitted = read_admitted(coordinator / "server" / "local" / FILE)
    return {site: admitted[site] for site in sites if site in admitted}


def _own_certificates(coordinator: Path) -> dict[str, Path]:
    return {
        "server": coordinator / "server" / "startup" / "server.crt",
        "operator": coordinator / "operator" / "startup" / "client.crt",
    }


def _issued(coordinator: Path, site: str) -> Path:
    return coordinator / "authority" / "issued" / f"{site}.crt"


def _keep(coordinator: Path, site: str, certificate: x509.Certificate) -> None:
    _issued(coordinator, site).write_bytes(certificate.public_bytes(Encoding.PEM))


def _read_limited(request: Path) -> bytes:
    try:
        with request.open("rb") as file:
            content = file.read(MAX_REQUEST + 1)
    except OSError as error:
        raise InputError(f"{request} cannot be read: {error.strerror}") from error
    if len(content) > MAX_REQUEST:
        raise InputError(f"{request} has more than {MAX_REQUEST} bytes, too many for a request; ask the site for it")
    return content


def _site_of(copy: Path, request: Path, plan: Mapping[str, Any]) -> str:
    """The site that asks. NVFlare compares what the request says of itself with the key in it later."""
    words = _words(copy, request)
    name, federation, kind = (words.get(key) for key in ("name", "project", "cert_type"))
    if kind != "client":
        raise InputError(f"{request} asks for a certificate of a {str(kind)[:20]!a}, and only sites get one here")
    if federation != plan["name"]:
        raise InputError(f"{request} is for the federation {federation!r}, and this one is {plan['name']!r}")
    if name not in plan["sites"]:
        listed = ", ".join(plan["sites"])
        raise InputError(f"{request} is of the site {name!r}, which is not in the plan; its sites are {listed}")
    return str(name)


def _words(copy: Path, request: Path) -> Mapping[str, Any]:
    """What a request says of itself. It comes from outside: sizes are looked at before anything is unpacked."""
    try:
        with zipfile.ZipFile(copy) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_REQUEST:
                raise InputError(f"{request} unpacks to more than {MAX_REQUEST} bytes, too many for a request")
            words = json.loads(archive.read("request.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{request} is no request of a site ({error}); ask the site for NAME.request.zip") from error
    if not isinstance(words, dict):
        raise InputError(f"{request} is no request of a site; ask the site for NAME.request.zip")
    return words
