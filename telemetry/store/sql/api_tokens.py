"""Tokens of the HTTP interface in a SQL database: each function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from telemetry.errors import BadTokenFact
from telemetry.store.api_tokens import SCOPES, ApiToken
from telemetry.store.sql.tables import api_tokens


def add(connection: Connection, token: ApiToken) -> None:
    """See `Store.add_token`."""
    live = api_tokens.c.label == token.label, api_tokens.c.revoked_at.is_(None)
    if connection.execute(select(api_tokens.c.label).where(*live)).first() is not None:
        raise BadTokenFact(f"there is a token labelled {token.label}: revoke it first")
    scopes = " ".join(scope for scope in SCOPES if scope in token.scopes)
    values = {
        "sha256": token.sha256,
        "label": token.label,
        "scopes": scopes,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
    }
    connection.execute(insert(api_tokens).values(values))


def stored(connection: Connection) -> Sequence[ApiToken]:
    """See `Store.api_tokens`."""
    order = api_tokens.c.created_at, api_tokens.c.sha256
    rows = connection.execute(select(api_tokens).order_by(*order)).mappings()
    return [
        ApiToken(**{**row, "scopes": frozenset(s for s in SCOPES if s in row["scopes"].split())})
        for row in rows
    ]


def revoke(connection: Connection, label: str, now: datetime) -> None:
    """See `Store.revoke_token`."""
    live = api_tokens.c.label == label, api_tokens.c.revoked_at.is_(None)
    if not connection.execute(update(api_tokens).where(*live).values(revoked_at=now)).rowcount:
        raise BadTokenFact(f"no token labelled {label[:64]!r} that holds")
