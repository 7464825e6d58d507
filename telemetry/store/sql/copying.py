"""Many rows into a PostgreSQL table, by binary COPY wherever that is sooner."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final

import psycopg
from sqlalchemy import BigInteger, Boolean, Double, Integer, Table

from telemetry.store.sql import bulk
from telemetry.store.sql.driver import Row
from telemetry.store.sql.types import UtcDateTime

COPY_FROM_ROWS: Final = 4
"""Fewer rows are there sooner by an ordinary insert."""


def insert_rows(
    driver: Any, table: Table, columns: tuple[str, ...], rows: Iterable[Row], *, or_update: bool
) -> None:
    """See `telemetry.store.sql.bulk.insert_rows`."""
    assert isinstance(driver, psycopg.Connection)
    waiting = iter(rows)
    first = list(islice(waiting, COPY_FROM_ROWS))
    if not first:
        return
    with driver.cursor() as cursor:
        if or_update or len(first) < COPY_FROM_ROWS:
            text = bulk.statement(table, columns, 1, ("%s",) * len(columns), or_update)
            cursor.executemany(text, list(chain(first, waiting)))
            return
        statement, types = _plan(table, columns)
        with cursor.copy(statement) as copy:
            copy.set_types(types)  # binary COPY converts nothing: each value as its column's type
            for row in chain(first, waiting):
                copy.write_row(row)


@lru_cache(maxsize=64)
def _plan(table: Table, columns: tuple[str, ...]) -> tuple[psycopg.sql.Composed, tuple[str, ...]]:
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
    statement = psycopg.sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        psycopg.sql.Identifier(table.name), names
    )
    return statement, tuple(type_name(table, name) for name in columns)


def type_name(table: Table, column: str) -> str:
    """What PostgreSQL calls the type of a column."""
    kind = table.c[column].type
    if isinstance(kind, UtcDateTime):
        return "timestamptz"
    names = {BigInteger: "int8", Boolean: "bool", Double: "float8", Integer: "int4"}
    return next((name for cls, name in names.items() if isinstance(kind, cls)), "text")
