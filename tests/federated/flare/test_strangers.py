"""Who gets into a federation: NVFlare's real processes, from our kits, with right and wrong certificates."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from flare_processes import Processes, free_port, wait_for

from fedmpt.federated.flare.authority import approve, shut_out
from fedmpt.federated.flare.founding import set_up
from fedmpt.federated.flare.kits import assemble, read_invitation, request
from fedmpt.federated.flare.local import OPERATOR

pytestmark = pytest.mark.slow

SITES = ("site-a", "site-b", "site-c")
SESSION = """
import sys
from nvflare.fuel.flare_api.flare_api import new_secure_session
session = new_secure_session(sys.argv[1], sys.argv[2], timeout=10.0)
print([client.name for client in session.get_connected_client_list()])
session.close()
"""


@dataclass(frozen=True)
class Federation:
    """A running server. ``log`` is the server's."""

    folder: Path
    port: int
    processes: Processes

    @property
    def coordinator(self) -> Path:
        return self.folder / "coordinator"

    @property
    def log(self) -> Path:
        return self.coordinator / "server" / "log.txt"

    def site(self, name: str) -> Path:
        return self.folder / "sites" / name


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder, port = tmp_path_factory.mktemp("strangers"), free_port()
    plan = {"name": "fed", "sites": list(SITES)}
    set_up(folder / "f", plan, address=("localhost", port), days=10, root_days=20, trial=True)
    with Processes(folder / "home") as processes:
        processes.server(folder / "f" / "coordinator" / "server")
        found = Federation(folder / "f", port, processes)
        wait_for(found.log, "Server started")
        yield found


def shake_hands(federation: Federation, *, certificate: Path | None = None, key: Path | None = None) -> bytes:
    """Connect by TLS with the root certificate and, if given, one's own; what the server then says first.

    To those that it accepts it says nothing before they do, so that is a TimeoutError.
    """
    context = ssl.create_default_context(cafile=federation.coordinator / "authority" / "rootCA.pem")
    context.check_hostname = False
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    with socket.create_connection(("localhost", federation.port), timeout=10) as plain:
        plain.settimeout(2)
        with context.wrap_socket(plain) as encrypted:
            return encrypted.recv(1)


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of this name that its own key has signed, made by OpenSSL."""
    certificate, key = folder / "own.crt", folder / "own.key"
    words = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "5", "-subj", f"/CN={name}/O=fedmpt"]
    command = ["openssl", "req", *words, "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def connected(kit: Path, *, name: str = OPERATOR) -> subprocess.CompletedProcess[str]:
    """What an operator with this kit is told about who is connected."""
    command = [sys.executable, "-c", SESSION, name, str(kit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"HOME": str(kit)})


def test_a_site_and_the_operator_of_the_plan_get_in(federation: Federation) -> None:
    kit = federation.site("site-a")
    startup = kit / "startup"
    with pytest.raises(TimeoutError):
        shake_hands(federation, certificate=startup / "client.crt", key=startup / "client.key")
    federation.processes.client(kit, name="site-a")
    wait_for(federation.log, "New client site-a@")
    told = connected(federation.coordinator / "operator")
    assert told.stdout.splitlines()[-1] == "['site-a']", told


def test_nobody_gets_in_with_nothing_but_the_root_certificate(federation: Federation) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake"):
        shake_hands(federation)


@pytest.mark.parametrize("name", ["site-b", OPERATOR])
def test_nobody_gets_in_with_a_certificate_of_his_own(federation: Federation, name: str, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, name)
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
        shake_hands(federation, certificate=certificate, key=key)


def test_a_site_is_no_operator(federation: Federation, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(federation.coordinator / "operator", tmp_path / "operator"))
    for file in ("client.crt", "client.key"):
        shutil.copy(federation.site("site-b") / "startup" / file, kit / "startup" / file)
    told = connected(kit)
    assert told.returncode != 0
    assert "is not admitted with this certificate" in told.stdout + told.stderr


def test_a_site_cannot_claim_to_be_another(federation: Federation, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(federation.site("site-b"), tmp_path / "kit"))
    for file in ("client.crt", "client.key"):
        shutil.copy(federation.site("site-c") / "startup" / file, kit / "startup" / file)
    process = federation.processes.client(kit, name="site-b")
    wait_for(federation.log, "authenticated as 'site-c' but claimed endpoint 'site-b'")
    federation.processes.kill(process)
    assert "New client site-b@" not in federation.log.read_text()


def test_a_lost_key_is_worthless_at_once(federation: Federation, tmp_path: Path) -> None:
    stolen = Path(shutil.copytree(federation.site("site-c"), tmp_path / "stolen"))
    thief = federation.processes.client(stolen, name="site-c")
    wait_for(federation.log, "New client site-c@")
    shut_out("site-c", federation.coordinator)
    wait_for(federation.log, "site site-c: its certificate is no longer admitted, session ended", seconds=5)
    closed_once_more(federation)
    federation.processes.kill(thief)
    startup = stolen / "startup"
    with suppress(ConnectionError, ssl.SSLEOFError):  # Or a quiet end; a TimeoutError means that it was let in.
        assert shake_hands(federation, certificate=startup / "client.crt", key=startup / "client.key") == b""

    kit = federation.site("site-c")
    invitation = read_invitation(kit / "invitation.json")
    approve(request(invitation, kit, federation="fed", renew=True), federation.coordinator, replace=True)
    assemble(kit)
    federation.processes.client(kit, name="site-c")
    wait_for(federation.log, "New client site-c@", times=2)
    thief = federation.processes.client(stolen, name="site-c")
    closed_once_more(federation)
    assert "site-c" in connected(federation.coordinator / "operator").stdout
    federation.processes.kill(thief)
    assert federation.log.read_text().count("New client site-c@") == 2


def closed_once_more(federation: Federation) -> None:
    text = "a connection with a refused certificate"
    wait_for(federation.log, text, times=federation.log.read_text().count(text) + 1, seconds=30)
