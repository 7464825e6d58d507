"""Certificates for tests: an authority of one's own, and what it issues."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Files:
    """PEM files of an authority and of a server that is called localhost and 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def texts(self) -> tuple[bytes, bytes, bytes]:
        """Authority, certificate and key, as a grid takes them."""
        return self.ca.read_bytes(), self.certificate.read_bytes(), self.key.read_bytes()

    @property
    def options(self) -> dict[str, str]:
        """``server.tls``."""
        return {
            "certificate": str(self.certificate), "key": str(self.key), "ca": str(self.ca)
        }  # fmt: skip


def make_files(
    folder: Path, begins_in: timedelta = timedelta(days=-1), lasts: timedelta = timedelta(days=90),
    passphrase: bytes | None = None,
) -> Files:  # fmt: skip
    """A new authority, and a certificate of it; the dates are the certificate's."""
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = _name("test authority")
    year = timedelta(days=365)
    root = _certificate(root_name, root_name, root_key, root_key, now - year, now + year, ca=True)
    begins = now + begins_in
    leaf = _certificate(
        _name("localhost"), root_name, key, root_key, begins, begins + lasts, ca=False
    )
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    files = Files(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    files.ca.write_bytes(root.public_bytes(Encoding.PEM))
    files.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    begins: datetime,
    ends: datetime,
    *,
    ca: bool,
) -> x509.Certificate:
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
