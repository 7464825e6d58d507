"""Many rows into a table at once, past SQLAlchemy and straight to the driver.

Through SQLAlchemy's own insert the same rows take two to three times as long, nearly all of it for a
dictionary a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Boolean, Connection, Table

from telemetry.store.sql.driver import Row, errors

ROWS_A_STATEMENT: Final = 64
"""Of SQLite: a statement with so many rows takes two thirds of the time that as many of one row take.
And no other thread of Python gets a turn in between, for which the next row would have to wait."""
_GIVEN: Final = "telemetry_columns_given"
"""What `Connection.info` keeps them under: as long as the driver keeps its statements."""


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
    with errors(connection, f"INSERT INTO {table.name}"):
        if isinstance(driver, sqlite3.Connection):
            given = connection.info.setdefault(_GIVEN, {}).setdefault(table.name, set())
            _insert_into_sqlite(driver, table, columns, rows, or_update, given)
        else:
            from telemetry.store.sql import copying

            copying.insert_rows(driver, table, columns, rows, or_update=or_update)


def _insert_into_sqlite(
    driver: sqlite3.Connection,
    table: Table,
    columns: tuple[str, ...],
    rows: Iterable[Row],
    or_update: bool,
    given: set[str],
) -> None:
    """See `insert_rows`; ``given`` are the columns that had a value so far, and are added to."""
    most = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(columns)
    waiting = iter(rows)
    while some := list(islice(waiting, ROWS_A_STATEMENT)):
        parameters = _parameters(table, columns, some, given)
        marks = tuple("?" if name in parameters else "NULL" for name in columns)
        some = list(zip(*parameters.values(), strict=True))
        size = ROWS_A_STATEMENT
        start = 0
        while start < len(some):
            # Powers of two, so that few statements are kept prepared.
            while size > 1 and size > min(most, len(some) - start):
                size //= 2
            values = tuple(chain.from_iterable(some[start : start + size]))
            driver.execute(statement(table, columns, size, marks, or_update), values)
            start += size


def _parameters(
    table: Table, columns: tuple[str, ...], rows: Sequence[Row], given: set[str]
) -> dict[str, Sequence[Any]]:
    """The values by column, as the driver takes them soonest.

    For a parameter that is None or a truth it looks for an adapter, which takes it ten times as long
    as a number. So truths are given as the numbers that they are stored as, and a column in which no
    row on this connection ever had a value is not given at all: it says NULL in the statement itself.
    A column that had one once is given from then on, or there would be a statement for every mixture.
    """
    parameters: dict[str, Sequence[Any]] = {}
    truths = _truths(table)
    for name, values in zip(columns, zip(*rows, strict=True), strict=True):
        if name not in given:
            if values.count(None) == len(values):
                continue
            given.add(name)
        parameters[name] = [*map(_NUMBER_OF.get, values)] if name in truths else values
    return parameters


_NUMBER_OF: Final[Mapping[bool | None, int | None]] = {True: 1, False: 0, None: None}


@cache
def _truths(table: Table) -> frozenset[str]:
    return frozenset(column.name for column in table.columns if isinstance(column.type, Boolean))


@lru_cache(maxsize=256)
def statement(
    table: Table, columns: tuple[str, ...], rows: int, marks: tuple[str, ...], or_update: bool
) -> str:
    """An insert of so many rows, in the words that SQLite and PostgreSQL share.

    ``marks`` stand for the values of the columns.
    """
    row = f"({', '.join(marks)})"
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
