"""What ``fedserver telemetry migrate`` does: look at a database's schema, and bring it up to date."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection, NullPool

from telemetry.errors import StoreError
from telemetry.progress import Tell, nobody
from telemetry.store.sql import postgres, sqlite
from telemetry.store.sql.problems import store_errors
from telemetry.store.sql.schema import SHIPPED, Migrations, State


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFacts:
    """Where a database stands."""

    url: str
    state: State
    revision: str | None
    """None in an empty database."""


def facts(url: str, migrations: Migrations = SHIPPED) -> SchemaFacts:
    """Where the database at ``url`` stands; nothing is changed. Raises `StoreError`."""
    if url.startswith("postgresql:"):
        address, shown = postgres.parse(url)
        engine = postgres.make_engine(address, poolclass=NullPool)
        with store_errors(shown), engine.connect() as connection:
            return _facts(connection, shown, migrations)
    path = sqlite.path_of(url)
    if not path.exists():
        raise StoreError(url, "there is no such file")
    with store_errors(url):
        engine = sqlite.make_engine(path, poolclass=NullPool)
        with engine.connect() as connection:
            return _facts(connection, url, migrations)


def upgrade(
    url: str, migrations: Migrations = SHIPPED, tell: Tell = nobody
) -> tuple[str | None, str]:
    """Bring the database to the newest schema: the revision before, and now.

    An empty PostgreSQL database and a missing SQLite file get their tables. One process does it at
    a time, in one transaction: the whole way is gone, or none of it. A SQLite file is copied first.
    ``tell`` hears of each page that is copied, and of each revision.
    """
    if url.startswith("postgresql:"):
        address, shown = postgres.parse(url)
        engine = postgres.make_engine(address, poolclass=NullPool)
        with store_errors(shown), engine.begin() as connection:
            postgres.lock_schema(connection)
            before = _facts(connection, shown, migrations)
            if before.state is not State.CURRENT:
                postgres.upgrade(connection, migrations, tell)
        return before.revision, migrations.head
    path = sqlite.path_of(url)
    revision = facts(url, migrations).revision if path.exists() else None
    with closing(sqlite.open_sqlite(url, migrations=migrations, tell=tell)):
        return revision, migrations.head


def grant_reading(url: str, role: str, password: str | None = None) -> None:
    """Let a role of PostgreSQL (made if need be) read the views. Raises `StoreError`.

    With a password the role may log in; without one, whether it may stays as it is.
    """
    if not url.startswith("postgresql:"):
        raise StoreError(url, "only PostgreSQL has roles")
    address, shown = postgres.parse(url)
    engine = postgres.make_engine(address, poolclass=NullPool)
    with store_errors(shown), engine.begin() as connection:
        postgres.lock_schema(connection)
        if _facts(connection, shown, SHIPPED).state is not State.CURRENT:
            raise StoreError(shown, "has not this program's schema; `migrate up` brings it there")
        postgres.grant_reading(connection, role, password)


def history(migrations: Migrations = SHIPPED) -> list[tuple[str, str]]:
    """Every revision, oldest first, with what it brought."""
    return migrations.history()


def _facts(connection: Connection, shown: str, migrations: Migrations) -> SchemaFacts:
    state = migrations.state(connection, shown)
    revision = None if state is State.EMPTY else migrations.revision(connection)
    return SchemaFacts(url=shown, state=state, revision=revision)
