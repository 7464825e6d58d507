"""Straight to the driver, past SQLAlchemy, where its part would take longer than the database's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, exc

Row = tuple[Any, ...]


def is_sqlite(connection: Connection) -> bool:
    """Whether it is one to SQLite, whose parameters are marked by ``?``; PostgreSQL's are by ``%s``."""
    return connection.dialect.name == "sqlite"


def execute(connection: Connection, statement: str, parameters: Sequence[object] = ()) -> list[Row]:
    """The rows of a statement in the driver's own words; none where it gives none."""
    driver: Any = connection.connection.driver_connection
    with errors(connection, statement):
        cursor = driver.execute(statement, parameters)
        return [] if cursor.description is None else cursor.fetchall()


@contextmanager
def errors(connection: Connection, statement: str) -> Iterator[None]:
    """Turn an error of the driver into what SQLAlchemy would make of it.

    As SQLAlchemy does it, a connection that is lost is not used again.
    """
    try:
        yield
    except Exception as error:
        if kind := _kind_of(error):
            driver = connection.connection.dbapi_connection
            if connection.dialect.is_disconnect(error, driver, None):  # type: ignore[arg-type]  # PEP 249's
                connection.invalidate(error)
            raise kind(statement, None, error) from error
        raise


def _kind_of(error: Exception) -> type[exc.DBAPIError] | None:
    """What SQLAlchemy makes of a driver's error: both go by the names of PEP 249."""
    for cls in type(error).__mro__:
        kind = getattr(exc, cls.__name__, None)
        if isinstance(kind, type) and issubclass(kind, exc.DBAPIError):
            return kind
    return None
