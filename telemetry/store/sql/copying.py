"""Many rows into a PostgreSQL table by binary COPY: a third faster than its text form."""

from __future__ import annotations

from functools import lru_cache

import psycopg
from sqlalchemy import BigInteger, Boolean, Connection, Double, Integer, Table
from sqlalchemy.exc import SQLAlchemyError

from telemetry.store.sql.mapping import Row
from telemetry.store.sql.types import UtcDateTime


def copy_rows(
    connection: Connection, table: Table, columns: tuple[str, ...], rows: list[Row]
) -> None:
    """Tuples in the order of ``columns`` into the table, in the connection's transaction."""
    statement, types = _plan(table, columns)
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)  # binary COPY converts nothing: each value as its column's type
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise SQLAlchemyError(str(error)) from error


@lru_cache(maxsize=64)
def _plan(table: Table, columns: tuple[str, ...]) -> tuple[psycopg.sql.Composed, tuple[str, ...]]:
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, columns))
    statement = psycopg.sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        psycopg.sql.Identifier(table.name), names
    )
    return statement, tuple(_type_name(table, name) for name in columns)


def _type_name(table: Table, column: str) -> str:
    kind = table.c[column].type
    if isinstance(kind, UtcDateTime):
        return "timestamptz"
    names = {BigInteger: "int8", Boolean: "bool", Double: "float8", Integer: "int4"}
    return next((name for cls, name in names.items() if isinstance(kind, cls)), "text")
