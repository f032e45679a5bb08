"""What a coordinator signs and what it refuses; certificates whose time is over."""

from __future__ import annotations

import io
import json
import shutil
import threading
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fedmpt.federated.flare import admitted, authority
from fedmpt.federated.flare.admitted import Admission, admit, read_admitted, write_admitted
from fedmpt.federated.flare.authority import approve, expiries, shut_out
from fedmpt.federated.flare.certificates import check_in_time, common_name, fingerprint, read_certificate
from fedmpt.files import LOCK, is_held
from fedmpt.types import InputError


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def asked(**words: object) -> bytes:
    right = {"name": "clinic-a", "project": "fed", "cert_type": "client"}
    return packed({"request.json": json.dumps({**right, **words}).encode()})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no request of a site"),
        (b"PK\x03\x04 and nothing else", "is no request of a site"),
        (packed({"other.json": b"{}"}), "is no request of a site"),
        (packed({"request.json": b"[]"}), "is no request of a site"),
        (packed({"request.json": b"[" * 100_000}), "is no request of a site"),
        (packed({"request.json": bytes(2**20 + 1)}), "unpacks to more than 1048576 bytes"),
        (bytes(2**20 + 1), "has more than 1048576 bytes"),
        (asked(cert_type="server"), "asks for a certificate of a 'server', and only sites get one"),
        (asked(cert_type="lead"), "asks for a certificate of a 'lead'"),
        (asked(project="other"), "is for the federation 'other', and this one is 'fed'"),
        (asked(name="clinic-x"), "is of the site 'clinic-x', which is not in the plan; its sites are clinic-a"),
        (asked(name=["clinic-a"]), "which is not in the plan"),
        (asked(), "clinic-a was approved before"),
    ],
)
def test_what_is_no_request_of_a_new_site_is_not_signed(trial: Path, content: bytes, message: str) -> None:
    path = trial / "sent.zip"
    path.write_bytes(content)
    listed = trial / "coordinator" / "server" / "local" / "admitted.json"
    before = listed.read_bytes()
    with pytest.raises(InputError, match=message):
        approve(path, trial / "coordinator")
    assert listed.read_bytes() == before
    assert not (trial / "clinic-a.signed.zip").exists()


def test_a_request_that_was_changed_on_the_way_is_not_signed(trial: Path) -> None:
    sent = members(trial / "sites" / "clinic-a" / "clinic-a.request.zip")
    words = json.loads(sent["request.json"])
    (trial / "sent.zip").write_bytes(packed({**sent, "request.json": json.dumps({**words, "org": "evil"}).encode()}))
    with pytest.raises(InputError, match="cannot be approved"):
        approve(trial / "sent.zip", trial / "coordinator", replace=True)


def test_a_site_that_is_approved_again_may_come_with_the_new_certificate_alone(trial: Path) -> None:
    coordinator, kit = trial / "coordinator", trial / "sites" / "clinic-a"
    before = fingerprint(read_certificate(kit / "startup" / "client.crt"))
    answer = approve(kit / "clinic-a.request.zip", coordinator, replace=True)
    assert answer == kit / "clinic-a.signed.zip"
    signed = x509.load_pem_x509_certificate(members(answer)["clinic-a.crt"])
    assert common_name(signed) == "clinic-a"
    admission = read_admitted(coordinator / "server" / "local" / "admitted.json")["clinic-a"]
    assert admission == Admission(fingerprint(signed), refused=(before,))
    assert before != admission.certificate
    assert expiries(coordinator)["clinic-a"] == signed.not_valid_after_utc


def test_a_site_that_is_shut_out_has_no_certificate(trial: Path) -> None:
    coordinator = trial / "coordinator"
    before = fingerprint(read_certificate(trial / "sites" / "clinic-a" / "startup" / "client.crt"))
    for _ in range(2):
        shut_out("clinic-a", coordinator)
        found = read_admitted(coordinator / "server" / "local" / "admitted.json")
        assert found["clinic-a"] == Admission(None, refused=(before,))
    assert expiries(coordinator).keys() == {"root", "server", "operator"}
    with pytest.raises(InputError, match="clinic-a was approved before"):
        approve(trial / "sites" / "clinic-a" / "clinic-a.request.zip", coordinator)


@pytest.mark.parametrize("name", ["clinic-b", "operator@fedmpt.local"])
def test_only_sites_can_be_shut_out(trial: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} has no certificate, .*approved were: clinic-a"):
        shut_out(name, trial / "coordinator")


def test_another_folder_is_no_coordinators(trial: Path) -> None:
    shutil.rmtree(trial / "coordinator" / "authority")
    with pytest.raises(InputError, match="is no coordinator's folder"):
        shut_out("clinic-a", trial / "coordinator")


def test_earlier_certificates_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "admitted.json"
    write_admitted(path, {})
    seen = []
    for certificate in ("one", None, None, "two", "three"):
        admit(path, "a", certificate)
        seen.append(read_admitted(path)["a"].refused)
    assert seen == [(), ("one",), ("one",), ("one",), ("one", "two")]


def test_of_two_sites_that_are_shut_out_at_once_both_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "server" / "local" / "admitted.json"
    for folder in (path.parent, tmp_path / "authority"):
        folder.mkdir(parents=True)
    (tmp_path / "federation.json").write_text('{"sites": ["a", "b"]}')
    write_admitted(path, {"a": Admission("one"), "b": Admission("two")})
    other = threading.Thread(target=shut_out, args=("b", tmp_path))

    def write(path: Path, words: Mapping[str, Admission]) -> None:
        if other.ident is None:
            other.start()
            other.join(2.0)  # It would come in between.
        write_admitted(path, words)

    monkeypatch.setattr(admitted, "write_admitted", write)
    shut_out("a", tmp_path)
    other.join()
    assert read_admitted(path) == {"a": Admission(None, ("one",)), "b": Admission(None, ("two",))}


def test_nobody_else_changes_who_is_admitted_while_a_request_is_signed(
    trial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = trial / "coordinator" / "authority" / LOCK
    seen = []
    monkeypatch.setattr(authority, "admit", lambda *words: seen.append(is_held(lock)))
    approve(trial / "sites" / "clinic-a" / "clinic-a.request.zip", trial / "coordinator", replace=True)
    assert (seen, is_held(lock)) == ([True], False)


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": {"certificate": null}}'])
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "admitted.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not the list of admitted certificates"):
        read_admitted(path)


@pytest.mark.parametrize(
    ("begins", "ends", "message"),
    [(-10, -1, r"ended on .*; ask for another"), (1, 10, "begins on .*; set this machine's clock")],
)
def test_a_certificate_counts_in_its_time_alone(tmp_path: Path, begins: int, ends: int, message: str) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    start, end = now + timedelta(days=begins), now + timedelta(days=ends)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), start, end)
    path = tmp_path / "client.crt"
    path.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    with pytest.raises(InputError, match=message):
        check_in_time(path, remedy="ask for another")


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "client.crt").write_text("hello")
    with pytest.raises(InputError, match=r"client\.crt is no certificate"):
        read_certificate(tmp_path / "client.crt")
    with pytest.raises(InputError, match=r"none\.crt cannot be read"):
        read_certificate(tmp_path / "none.crt")
