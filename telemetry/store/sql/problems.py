"""What the database's errors mean, in one plain sentence each."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, SQLAlchemyError

from telemetry.errors import SchemaUnknown, StoreError, ValueRefused

_NO_DATABASE: Final = "not a database"
_DISK_ERROR: Final = "disk i/o error"
_MEANINGS: Final = (
    ("locked", "another process keeps the database locked"),
    ("lock timeout", "another process keeps the run locked"),
    ("readonly database", "the file is read-only"),
    ("disk is full", "the disk is full"),
    ("unable to open database file", "the file cannot be opened, or its directory not written"),
    (_NO_DATABASE, "the file is not an SQLite database; it is left as it is"),
    ("malformed", "the database is damaged"),
    (_DISK_ERROR, "the disk reports an error"),
    ("no space left", "the disk is full"),
    ("no such file or directory", "the directory does not exist"),
    ("permission denied", "the directory cannot be written"),
    ("read-only file system", "the directory cannot be written"),
)
"""Part of a message of SQLite (https://sqlite.org/rescode.html) or PostgreSQL → what to tell a person."""

_OF_THE_BACKEND: Final = (
    SQLAlchemyError,
    sqlite3.Error,
    OSError,
    OverflowError,  # a whole number beyond 64 bits
    UnicodeError,  # text that is no Unicode, such as half a surrogate pair
)


@contextmanager
def store_errors(url: str) -> Iterator[None]:
    """Turn whatever the backend raises into a `StoreError` that names ``url``."""
    try:
        yield
    except _OF_THE_BACKEND as error:
        raise _kind(error)(url, meaning(error)) from error


def _kind(error: BaseException) -> type[StoreError]:
    if isinstance(error, OverflowError | UnicodeError | DataError):
        return ValueRefused
    return SchemaUnknown if _NO_DATABASE in str(error) else StoreError


def meaning(error: BaseException) -> str:
    """What went wrong, without the statement and the values that SQLAlchemy appends."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, FileNotFoundError):
        return "its directory does not exist"
    if isinstance(cause, OSError):
        return f"its directory, or a file in it, cannot be used: {cause.strerror or cause}"
    said = (str(cause).splitlines() or [type(cause).__name__])[0]
    lower = said.lower()
    means = next((means for part, means in _MEANINGS if part in lower), said)
    # Which of SQLite's thirty-odd it was: a full disk shows as an error of the disk in some places.
    which = getattr(cause, "sqlite_errorname", None) if _DISK_ERROR in lower else None
    return means if which is None else f"{means} ({which})"
