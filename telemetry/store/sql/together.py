"""Rows of several tables into PostgreSQL by one statement, each table's as one JSON array.

For the many small rounds of a service, of which the server's answers, one for each statement, take most
of the time. It makes of the JSON what the columns hold, to the last digit: numbers are written in the
shortest form that reads back as the same double, and read as decimals of any length. A decimal knows no
-0.0, but neither do records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table

from telemetry.store.sql import bulk, copying
from telemetry.store.sql.driver import Row, errors

_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


class Part(NamedTuple):
    """Rows for one table, times as text (`utc_text`); with ``or_update`` over rows of the same key."""

    table: Table
    columns: tuple[str, ...]
    rows: Sequence[Row]
    or_update: bool = False


def insert_parts(connection: Connection, parts: Iterable[Part]) -> None:
    """Insert all of them; their order is of no account, for foreign keys hold at the end."""
    filled = [part for part in parts if part.rows]
    if not filled:
        return
    arrays = [_encode(part.rows) for part in filled]
    statement = _statement(tuple((part.table, part.columns, part.or_update) for part in filled))
    driver: Any = connection.connection.driver_connection
    with (
        errors(connection, f"INSERT INTO {filled[0].table.name}"),
        driver.cursor() as cursor,
    ):
        cursor.execute(statement, arrays)


@lru_cache(maxsize=64)
def _statement(parts: tuple[tuple[Table, tuple[str, ...], bool], ...]) -> str:
    inserts = ", ".join(
        f"into_{table.name} AS ({_insert(table, columns, or_update=or_update)})"
        for table, columns, or_update in parts
    )
    return f"WITH {inserts} SELECT"


def _insert(table: Table, columns: tuple[str, ...], *, or_update: bool) -> str:
    values = ", ".join(
        f"(item ->> {place})::{copying.type_name(table, name)}"
        for place, name in enumerate(columns)
    )
    source = f"SELECT {values} FROM jsonb_array_elements(%s::jsonb) AS rows (item)"  # noqa: S608  # our own names
    return bulk.insert_from(table, columns, source, or_update=or_update)
