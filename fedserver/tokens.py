"""Where client tokens are kept: a small SQLite file of its own, readable by its owner only.

Independent of telemetry: it holds a label and a hash for each token, never a token, and nothing
about any training. The command line writes it while a server reads it.

TokenError(TelemetryError)
├─ TokenStoreError    the file cannot be used; the text says why
├─ LabelInUse         a token of this label holds already
├─ UnknownLabel       no token of this label holds
└─ BadLabel           a label that cannot be one
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fedserver.auth import EXPIRED, KnownToken, digest_of, new_token
from telemetry.errors import TelemetryError

_APPLICATION_ID: Final = 0x666C6374  # "flct"
_VERSION: Final = 1
_WAIT_S: Final = 2.0
"""How long to wait for another program that writes."""
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS tokens (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    expires_at TEXT,
    revoked_at TEXT,
    last_used_at TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS one_token_a_label ON tokens (label) WHERE revoked_at IS NULL;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
"""


class TokenError(TelemetryError):
    """Base of what goes wrong with tokens."""


class TokenStoreError(TokenError):
    """The file ``path`` cannot be used."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class LabelInUse(TokenError, ValueError):
    """There is a token ``label`` that was not revoked."""

    def __init__(self, label: str, *, expired: bool) -> None:
        self.label = label
        state = "an expired token" if expired else "a token"
        super().__init__(
            f"there is {state} labelled {label}: revoke it first (fedserver tokens revoke {label}), "
            "or choose another label"
        )


class UnknownLabel(TokenError, LookupError):
    """No token ``label`` that could be revoked; ``known`` are those that could."""

    def __init__(self, label: str, known: Sequence[str], path: Path) -> None:
        self.label = label
        self.known = tuple(known)
        choices = f"; labels: {', '.join(known)}" if known else "; it holds no token"
        super().__init__(f"no token labelled {label!r} in {path}{choices}")


class BadLabel(TokenError, ValueError):
    """``label`` cannot name a client."""

    def __init__(self, label: str) -> None:
        self.label = label
        super().__init__(
            f"label {label[:64]!r}: use 1 to 64 letters, digits and . _ @ -, beginning with a "
            "letter or a digit, such as hospital-a"
        )


@dataclass(frozen=True, slots=True)
class StoredToken:
    """What is known of a token; all times are UTC."""

    label: str
    digest: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def known(self) -> KnownToken:
        """What verification needs of it."""
        return KnownToken(self.label, self.digest, self.expires_at, self.revoked_at is not None)

    def state(self, now: datetime) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        problem = self.known.problem(now)
        return "valid" if problem is None else problem.removeprefix("token ")


class TokenStore:
    """The tokens in one file. Every method may be called from any thread and any process.

    Reading a file that is not there finds no tokens; `create` makes it, with mode 0600. Everything
    raises `TokenStoreError` where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, label: str, *, now: datetime, expires_at: datetime | None = None) -> str:
        """Make a token and return it: the only time that it can be seen.

        Raises `BadLabel`, `LabelInUse`.
        """
        if _LABEL.fullmatch(label) is None:
            raise BadLabel(label)
        token = new_token()
        self._make_file()
        with self._writing() as database:
            for stored in _rows(database):
                if stored.label == label and stored.revoked_at is None:
                    expired = stored.known.problem(now) == EXPIRED
                    raise LabelInUse(label, expired=expired)
            database.execute(
                "INSERT INTO tokens (label, digest, created_at, expires_at) VALUES (?, ?, ?, ?)",
                (
                    label,
                    digest_of(token),
                    _text(now),
                    None if expires_at is None else _text(expires_at),
                ),
            )
        return token

    def stored(self) -> list[StoredToken]:
        """Every token ever made here, in order, revoked ones included."""
        if not self.path.exists():
            return []
        with self._open() as database:
            return list(_rows(database))

    def tokens(self) -> list[KnownToken]:
        """The same, as verification needs it."""
        return [stored.known for stored in self.stored()]

    def revoke(self, label: str, *, now: datetime) -> None:
        """Make the token of this label invalid, for good. Raises `UnknownLabel`."""
        if not self.path.exists():
            raise UnknownLabel(label, (), self.path)
        with self._writing() as database:
            changed = database.execute(
                "UPDATE tokens SET revoked_at = ? WHERE label = ? AND revoked_at IS NULL",
                (_text(now), label),
            ).rowcount
            if not changed:
                live = [row.label for row in _rows(database) if row.revoked_at is None]
                raise UnknownLabel(label, live, self.path)

    def used(self, digests: Iterable[bytes], *, now: datetime) -> None:
        """Note that clients came with these tokens."""
        rows = [(_text(now), digest) for digest in digests]
        if rows and self.path.exists():
            with self._writing() as database:
                database.executemany("UPDATE tokens SET last_used_at = ? WHERE digest = ?", rows)

    # --- inside ----------------------------------------------------------------------------------

    def _make_file(self) -> None:
        """An empty file for nobody else's eyes, or the rights of the one that is there set so."""
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self.path.chmod(0o600)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise TokenStoreError(self.path, f"cannot be written: {why}") from error

    @contextmanager
    def _open(
        self, prepare: Callable[[sqlite3.Connection], None] | None = None
    ) -> Iterator[sqlite3.Connection]:
        # A connection each time: cheap, of no thread, and nothing is left locked or open.
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            with closing(
                sqlite3.connect(uri, uri=True, timeout=_WAIT_S, isolation_level=None)
            ) as database:
                if prepare is not None:
                    prepare(database)
                if self._is_ours(database):
                    yield database
                else:
                    raise TokenStoreError(self.path, "is no file of client tokens")
        except sqlite3.Error as error:
            raise TokenStoreError(self.path, str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction."""
        with self._open(_make_tables) as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def _is_ours(self, database: sqlite3.Connection) -> bool:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (application,) = database.execute("PRAGMA application_id").fetchone()
        if application == _APPLICATION_ID and version > _VERSION:
            raise TokenStoreError(self.path, "was written by a later version of this program")
        return bool(application == _APPLICATION_ID) or _is_empty(database)


def _is_empty(database: sqlite3.Connection) -> bool:
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(tables == 0)


def _make_tables(database: sqlite3.Connection) -> None:
    if _is_empty(database):
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")


def _rows(database: sqlite3.Connection) -> Iterator[StoredToken]:
    if _is_empty(database):
        return
    for label, digest, *times in database.execute(
        "SELECT label, digest, created_at, expires_at, revoked_at, last_used_at"
        " FROM tokens ORDER BY id"
    ):
        created, expires, revoked, used = (_moment(text) for text in times)
        assert created is not None
        yield StoredToken(label, digest, created, expires, revoked, used)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
