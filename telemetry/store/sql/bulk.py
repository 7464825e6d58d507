"""Many rows into a table at once."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sqlalchemy import Connection, Dialect, Table, insert

from telemetry.store.sql.mapping import Row, TimeForm, as_it_is
from telemetry.store.sql.types import utc_text

COPY_FROM_ROWS: Final = 100
"""Fewer rows reach PostgreSQL sooner by an ordinary insert."""


def time_form(dialect: Dialect) -> TimeForm:
    """How rows for `insert_rows` carry times."""
    return utc_text if dialect.name == "sqlite" else as_it_is


def insert_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: list[Row]
) -> None:
    """Insert tuples in the order of ``columns``.

    Straight to the driver's executemany: through SQLAlchemy's own insert the same rows take two to
    three times as long, nearly all of it for the dictionaries.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql" and len(rows) >= COPY_FROM_ROWS:
        from telemetry.store.sql.copying import copy_rows

        copy_rows(connection, table, columns, rows)
    elif connection.dialect.positional:
        connection.exec_driver_sql(_statement(table, columns, connection.dialect), rows)
    else:
        values = [dict(zip(columns, row, strict=True)) for row in rows]
        connection.execute(insert(table), values)


@lru_cache(maxsize=64)
def _statement(table: Table, columns: tuple[str, ...], dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    names = ", ".join(map(quote, columns))
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})"  # noqa: S608  # our names
