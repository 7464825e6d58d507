"""Certificates of the FL port, read and checked before it opens.

gRPC would say what is wrong with them in lines of its own, after the start. Formats: PEM (RFC 7468),
X.509 (RFC 5280).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from telemetry.errors import TelemetryError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from fedserver.options import TlsFiles

WARN_DAYS = 14
"""A certificate that ends within so many days is worth a warning."""


class TlsError(TelemetryError, ValueError):
    """A file of ``server.tls`` is no good; ``key`` says which, the text why."""

    def __init__(self, key: str, path: Path, problem: str) -> None:
        self.key = key
        self.path = path
        super().__init__(f"{path} {problem}")


@dataclass(frozen=True, slots=True)
class Loaded:
    """PEM texts for gRPC, and until when the certificate holds."""

    authority: bytes | None
    certificate: bytes
    key: bytes
    expires_at: datetime


def load(tls: TlsFiles, now: datetime) -> Loaded:
    """Read the files and make sure that clients will accept them. Raises `TlsError`."""
    certificate = _read("certificate", tls.certificate)
    chain = _certificates("certificate", tls.certificate, certificate)
    leaf = chain[0]
    _check_dates("certificate", tls.certificate, leaf, now)
    key = _read("key", tls.key)
    if _text(_public_key(tls.key, key)) != _text(leaf.public_key()):
        raise TlsError("key", tls.key, f"is not the key of the certificate {tls.certificate}")
    authority = None
    if tls.ca is not None:
        authority = _read("ca", tls.ca)
        roots = _certificates("ca", tls.ca, authority)
        for root in roots:
            _check_dates("ca", tls.ca, root, now)
        if not any(_issued(link, root) for link in chain for root in roots):
            raise TlsError("ca", tls.ca, f"has not issued the certificate {tls.certificate}")
    return Loaded(authority, certificate, key, leaf.not_valid_after_utc)


def problems(tls: TlsFiles, now: datetime) -> Iterator[tuple[str, str]]:
    """Path of the option and what is wrong; the first thing only, since one leads to the next."""
    try:
        load(tls, now)
    except TlsError as error:
        yield f"server.tls.{error.key}", str(error)


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise TlsError(key, path, f"cannot be read: {why}") from error


def _certificates(key: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise TlsError(key, path, "holds no certificate in PEM form") from error


def _public_key(path: Path, pem: bytes) -> PublicKeyTypes:
    try:
        return load_pem_private_key(pem, password=None).public_key()
    except TypeError as error:
        raise TlsError("key", path, "is encrypted: gRPC needs a key without passphrase") from error
    except Exception as error:  # whatever its parser raises
        raise TlsError("key", path, "holds no private key in PEM form") from error


def _text(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_dates(key: str, path: Path, certificate: x509.Certificate, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        raise TlsError(key, path, f"expired on {ends:%Y-%m-%d %H:%M} UTC")
    if now < begins:
        raise TlsError(key, path, f"holds only from {begins:%Y-%m-%d %H:%M} UTC")


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
