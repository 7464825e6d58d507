"""Tokens of the HTTP interface: ``flt_`` and 32 random bytes, of which only the SHA-256 is stored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from re import compile as pattern
from secrets import token_urlsafe
from typing import Final, Literal, get_args

from telemetry.errors import BadTokenFact

PREFIX: Final = "flt_"
"""What a token of the HTTP interface begins with."""
CLIENT_PREFIX: Final = "flc_"
"""What an FL client's token begins with; refused here by name."""

Scope = Literal["write", "read", "admin"]
"""``write`` delivers runs, ``read`` reads all of them, ``admin`` does both."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

_RANDOM_BYTES: Final = 32
_TOKEN: Final = pattern(rf"{PREFIX}[A-Za-z0-9_-]{{43,128}}")
"""A token as `new_token` makes it; 43 letters of base64 are 256 bits, fewer can be guessed."""
_LABEL: Final = pattern(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """What is known of a token; all times are UTC."""

    sha256: str = field(repr=False)
    label: str
    """Whose it is. Runs belong to the label, so that a token can be replaced by one of that label."""
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def state(self, now: datetime) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "valid"

    def may(self, scope: Scope) -> bool:
        """Whether it is good for that."""
        return scope in self.scopes or "admin" in self.scopes


def new_token(
    label: str, scopes: Collection[str], now: datetime, expires_at: datetime | None = None
) -> tuple[str, ApiToken]:
    """A fresh token, to be shown once, and what is stored of it. Raises `BadTokenFact`."""
    token = PREFIX + token_urlsafe(_RANDOM_BYTES)
    return token, given_token(token, label, scopes, now, expires_at)


def given_token(
    token: str,
    label: str,
    scopes: Collection[str],
    now: datetime,
    expires_at: datetime | None = None,
) -> ApiToken:
    """What is stored of a token that somebody else drew. Raises `BadTokenFact`, never with the token."""
    if _TOKEN.fullmatch(token) is None:
        raise BadTokenFact(
            f"the token of {label[:64]!r} is none of this interface: {PREFIX} and 43 or more letters, "
            "digits, _ and -, drawn at random"
        )
    if _LABEL.fullmatch(label) is None:
        raise BadTokenFact(
            f"label {label[:64]!r}: use 1 to 64 letters, digits and . _ @ -, beginning with a letter "
            "or a digit"
        )
    known = frozenset(scope for scope in SCOPES if scope in scopes)
    if not known or len(known) < len(set(scopes)):
        raise BadTokenFact(f"scopes {', '.join(scopes)}: choose of {', '.join(SCOPES)}")
    return ApiToken(
        sha256=digest_of(token), label=label, scopes=known, created_at=now, expires_at=expires_at
    )


def digest_of(token: str) -> str:
    """SHA-256 in lower-case hex: a token has 256 random bits, so no slower hash is needed."""
    return sha256(token.encode()).hexdigest()
