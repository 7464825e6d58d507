"""Whether a client's token is good: pure, without files, clocks or sockets.

A token is ``flc_`` and 32 random bytes; only its SHA-256 is ever stored. Verification has three
outcomes (none, valid, invalid); the transport turns them into gRPC answers. Texts of verdicts are
fit for logs and for the client: they never hold a token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Final

PREFIX: Final = "flc_"
"""What a client's token begins with."""
API_PREFIX: Final = "flt_"
"""What a token of the HTTP API begins with; refused here, as ``flc_`` is there."""
MIN_CHARACTERS: Final = 16
"""Of a token that somebody makes up: shorter ones can be guessed."""
HEADERS: Final = ("authorization", "x-authorization")
"""Metadata in which clients send ``Bearer <token>``: ai4flwr has used both."""

MISSING: Final = "token missing"
MALFORMED: Final = "token malformed"
FOR_THE_API: Final = f"token of the HTTP API ({API_PREFIX}…), not of a client ({PREFIX}…)"
UNKNOWN: Final = "token unknown"
EXPIRED: Final = "token expired"
REVOKED: Final = "token revoked"

_RANDOM_BYTES: Final = 32
_MAX_CHARACTERS: Final = 512
_MAX_PRESENTED: Final = 4
"""Headers of one call that are looked at; an honest client sends one."""


class Outcome(Enum):
    """What a call's metadata come to."""

    NONE = auto()
    VALID = auto()
    INVALID = auto()


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token that was once given out, without the token itself."""

    label: str
    digest: bytes
    """SHA-256 of the token, 32 bytes."""
    expires_at: datetime | None = None
    revoked: bool = False

    def problem(self, now: datetime) -> str | None:
        """Why it does not hold any more; None while it does."""
        if self.revoked:
            return REVOKED
        if self.expires_at is not None and now >= self.expires_at:
            return EXPIRED
        return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, why it is not `Outcome.VALID`, and the token if it is a known one."""

    outcome: Outcome
    problem: str = ""
    token: KnownToken | None = None


def new_token() -> str:
    """A fresh token, to be shown once."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def digest_of(token: str) -> bytes:
    """SHA-256: a fast hash is enough, since tokens are random and long."""
    return hashlib.sha256(token.encode()).digest()


def is_well_formed(token: str) -> bool:
    """Whether it can stand in a header: printable ASCII without spaces, 1 to 512 characters."""
    return 0 < len(token) <= _MAX_CHARACTERS and all("!" <= character <= "~" for character in token)


def verify(
    metadata: Iterable[tuple[str, str | bytes]], known: Iterable[KnownToken], now: datetime
) -> Verdict:
    """Judge the metadata of a call by the tokens that are known.

    ``metadata`` are gRPC's, with keys in lower case. A valid token in either header is enough: a
    proxy may have put something of its own into the other one.
    """
    values = [value for key, value in metadata if key in HEADERS]
    if not values:
        return Verdict(Outcome.NONE, MISSING)
    tokens = tuple(known)
    verdicts = [_verify_one(value, tokens, now) for value in values[:_MAX_PRESENTED]]
    valid = [verdict for verdict in verdicts if verdict.outcome is Outcome.VALID]
    known_ones = [verdict for verdict in verdicts if verdict.token is not None]
    return (valid or known_ones or verdicts)[0]


def _verify_one(value: str | bytes, known: tuple[KnownToken, ...], now: datetime) -> Verdict:
    scheme, _, presented = (value if isinstance(value, str) else "").partition(" ")
    presented = presented.strip()
    if scheme.lower() != "bearer" or not is_well_formed(presented):
        return Verdict(Outcome.INVALID, MALFORMED)
    if presented.startswith(API_PREFIX):
        return Verdict(Outcome.INVALID, FOR_THE_API)
    token = find(digest_of(presented), known)
    if token is None:
        return Verdict(Outcome.INVALID, UNKNOWN)
    problem = token.problem(now)
    if problem is not None:
        return Verdict(Outcome.INVALID, problem, token)
    return Verdict(Outcome.VALID, token=token)


def find(digest: bytes, known: Iterable[KnownToken]) -> KnownToken | None:
    """The token of this digest; of several the last one.

    Every one is compared, each in constant time, so that how long it takes tells nothing.
    """
    found = None
    for token in known:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found
