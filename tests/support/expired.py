"""A certificate of a kit once more, signed by the same authority, whose time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key


def let_expire(certificate: Path, *, root_key: Path, ends: timedelta = timedelta(days=-1)) -> None:
    """It ended yesterday, or ends in a while."""
    old, now = x509.load_pem_x509_certificate(certificate.read_bytes()), datetime.now(UTC)
    key = load_pem_private_key(root_key.read_bytes(), password=None)
    begins = now - timedelta(days=10)
    made = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), old.serial_number, begins, now + ends)
    for extension in old.extensions:
        made = made.add_extension(extension.value, critical=extension.critical)
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
