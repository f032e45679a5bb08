"""Certificates as files: whose, until when, and the fingerprints people compare."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fedmpt.errors import InputError

FINGERPRINT = re.compile(r"SHA256:(?:[0-9A-F]{2}:){31}[0-9A-F]{2}")
"""Of a certificate, as people read it out to each other."""


def read_certificate(path: Path) -> x509.Certificate:
    """Raises InputError if the file is missing or no certificate."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is no certificate ({error}); copy it again") from error


def fingerprint(certificate: x509.Certificate) -> str:
    return fingerprint_of(certificate.public_bytes(Encoding.DER))


def fingerprint_of(der: bytes) -> str:
    """Of a certificate in the binary form in which it travels."""
    digest = hashlib.sha256(der).hexdigest().upper()
    return "SHA256:" + ":".join(digest[place : place + 2] for place in range(0, len(digest), 2))


def common_name(certificate: x509.Certificate) -> str:
    """Whose it is; empty if it says nothing."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def check_certificates(folder: Path) -> None:
    """Raises InputError if the time of a site's certificate, or of the authority's, is over."""
    remedy = (
        f"ask for a new one with fedmpt federation request {folder / 'invitation.json'} --out {folder} --renew, "
        "and have it approved with --replace"
    )
    check_in_time(folder / "startup" / "client.crt", remedy=remedy)
    check_in_time(folder / "startup" / "rootCA.pem", remedy="the federation has to be set up anew, by its coordinator")


def check_in_time(path: Path, *, remedy: str) -> None:
    """Raises InputError if the certificate has ended or has not begun, which is so where a clock is wrong."""
    certificate, now = read_certificate(path), datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise InputError(f"the certificate {path} ended on {certificate.not_valid_after_utc:%Y-%m-%d}; {remedy}")
    if now < certificate.not_valid_before_utc:
        raise InputError(
            f"the certificate {path} begins on {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and it is "
            f"{now:%Y-%m-%d %H:%M}; set this machine's clock"
        )
