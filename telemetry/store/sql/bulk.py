"""Many rows into a table at once, past SQLAlchemy and straight to the driver.

Through SQLAlchemy's own insert the same rows take two to three times as long, nearly all of it for a
dictionary a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from typing import Final

from sqlalchemy import Connection, Table, exc

from telemetry.store.sql.mapping import Row

ROWS_A_STATEMENT: Final = 64
"""Of SQLite: a statement with so many rows takes two thirds of the time that as many of one row take.
And no other thread of Python gets a turn in between, for which the next row would have to wait."""


def insert_rows(
    connection: Connection,
    table: Table,
    columns: tuple[str, ...],
    rows: Iterable[Row],
    *,
    or_update: bool = False,
) -> None:
    """Insert tuples in the order of ``columns``; with ``or_update`` over rows of the same key."""
    driver = connection.connection.driver_connection
    with driver_errors(table.name):
        if isinstance(driver, sqlite3.Connection):
            _insert_into_sqlite(driver, table, columns, rows, or_update)
        else:
            from telemetry.store.sql import copying

            copying.insert_rows(driver, table, columns, rows, or_update=or_update)


@contextmanager
def driver_errors(table: str) -> Iterator[None]:
    """Turn an error of the driver into what SQLAlchemy would make of it."""
    try:
        yield
    except Exception as error:
        if kind := _kind_of(error):
            raise kind(f"INSERT INTO {table}", None, error) from error
        raise


def _kind_of(error: Exception) -> type[exc.DBAPIError] | None:
    """What SQLAlchemy makes of a driver's error: both go by the names of PEP 249."""
    for cls in type(error).__mro__:
        kind = getattr(exc, cls.__name__, None)
        if isinstance(kind, type) and issubclass(kind, exc.DBAPIError):
            return kind
    return None


def _insert_into_sqlite(
    driver: sqlite3.Connection,
    table: Table,
    columns: tuple[str, ...],
    rows: Iterable[Row],
    or_update: bool,
) -> None:
    most = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(columns)
    waiting = iter(rows)
    while some := list(islice(waiting, ROWS_A_STATEMENT)):
        size = ROWS_A_STATEMENT
        start = 0
        while start < len(some):
            # Powers of two, so that few statements are kept prepared.
            while size > 1 and size > min(most, len(some) - start):
                size //= 2
            values = tuple(chain.from_iterable(some[start : start + size]))
            driver.execute(statement(table, columns, size, "?", or_update), values)
            start += size


@lru_cache(maxsize=256)
def statement(table: Table, columns: tuple[str, ...], rows: int, mark: str, or_update: bool) -> str:
    """An insert of so many rows, in the words that SQLite and PostgreSQL share."""
    row = f"({', '.join([mark] * len(columns))})"
    values = f"VALUES {', '.join([row] * rows)}"
    return insert_from(table, columns, values, or_update=or_update)


def insert_from(table: Table, columns: tuple[str, ...], source: str, *, or_update: bool) -> str:
    """An insert of what ``source`` gives, ``VALUES …`` or ``SELECT …``."""
    text = f"INSERT INTO {_quoted([table.name])} ({_quoted(columns)}) {source}"
    if not or_update:
        return text
    key = [column.name for column in table.primary_key]
    others = [f'"{name}" = excluded."{name}"' for name in columns if name not in key]
    return f"{text} ON CONFLICT ({_quoted(key)}) DO UPDATE SET {', '.join(others)}"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
