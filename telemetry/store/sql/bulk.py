"""Many rows into a table at once."""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from itertools import chain
from typing import Final

from sqlalchemy import Connection, Dialect, Table, insert

from telemetry.domain import utc_text
from telemetry.store.sql.mapping import Row, TimeForm, as_it_is

COPY_FROM_ROWS: Final = 100
"""Fewer rows reach PostgreSQL sooner by an ordinary insert."""
ROWS_A_STATEMENT: Final = 64
"""Of SQLite: a statement with so many rows takes two thirds of the time that as many of one row take.
And no other thread of Python gets a turn in between, from which the next row would have to wait."""


def time_form(dialect: Dialect) -> TimeForm:
    """How rows for `insert_rows` carry times."""
    return utc_text if dialect.name == "sqlite" else as_it_is


def insert_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: list[Row]
) -> None:
    """Insert tuples in the order of ``columns``.

    Straight to the driver: through SQLAlchemy's own insert the same rows take two to three times as
    long, nearly all of it for the dictionaries.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql" and len(rows) >= COPY_FROM_ROWS:
        from telemetry.store.sql.copying import copy_rows

        copy_rows(connection, table, columns, rows)
    elif connection.dialect.positional:
        _insert_into_sqlite(connection, table, columns, rows)
    else:
        values = [dict(zip(columns, row, strict=True)) for row in rows]
        connection.execute(insert(table), values)


def _insert_into_sqlite(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: list[Row]
) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    most = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(columns)
    size = ROWS_A_STATEMENT
    start = 0
    while start < len(rows):
        # Powers of two, so that few statements are kept prepared.
        while size > 1 and size > min(most, len(rows) - start):
            size //= 2
        values = tuple(chain.from_iterable(rows[start : start + size]))
        connection.exec_driver_sql(_statement(table, columns, size, connection.dialect), values)
        start += size


@lru_cache(maxsize=256)
def _statement(table: Table, columns: tuple[str, ...], rows: int, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    names = ", ".join(map(quote, columns))
    row = f"({', '.join('?' * len(columns))})"
    values = ", ".join([row] * rows)
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES {values}"  # noqa: S608  # our names
