"""SQLite: one file beside the server, several processes at once, nothing lost on power failure.

``<db>`` has companions: ``<db>.lock`` (held while a process opens the file), ``<db>.secret`` (key of
the pseudonyms, mode 0600), ``<db>.before-<revision>`` (copy from before an upgrade) and SQLite's own
``-wal`` and ``-shm``.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, select

from telemetry.errors import StoreError
from telemetry.progress import Tell, nobody
from telemetry.store.sql import driver
from telemetry.store.sql.files import file_lock, read_or_make_secret
from telemetry.store.sql.problems import store_errors
from telemetry.store.sql.schema import SHIPPED, Migrations, State
from telemetry.store.sql.store import WRITES, SqlStore
from telemetry.store.sql.tables import runs

logger = logging.getLogger(__name__)

_PREFIX: Final = "sqlite:///"
_PAGES: Final = 2_000
"""Pages of a file, 4 KiB each, that are copied at a time."""
WAL_PAGES: Final = 4_000
"""Of the ``-wal`` before they are moved into the file, 16 MiB: a page that many rounds change is then
moved once for all of them, which saves a service a tenth of its writing."""


def open_sqlite(
    url: str,
    *,
    create: bool = True,
    busy_timeout_s: float = 5.0,
    migrations: Migrations = SHIPPED,
    tell: Tell = nobody,
) -> SqlStore:
    """The store in a file, created or upgraded if need be; see `telemetry.store.open_store`."""
    path = path_of(url)
    if not create and not path.exists():
        raise StoreError(url, "there is no such file")
    with store_errors(url), file_lock(path, url, busy_timeout_s):
        _prepare(path, url, busy_timeout_s, migrations, tell)
        secret = read_or_make_secret(path, url)
    engine = make_engine(path, busy_timeout_s)
    return SqlStore(engine, url=url, secret=secret, forget=lambda: _forget(engine, url))


def copies_beside(url: str) -> list[Path]:
    """Copies of a SQLite store's file from before upgrades: what was deleted since is in them."""
    if not url.startswith(_PREFIX):
        return []
    path = path_of(url)
    return sorted(path.parent.glob(f"{path.name}.before-*"))


def make_engine(path: Path, busy_timeout_s: float = 5.0, **options: Any) -> Engine:
    """An engine on a SQLite file, with the settings that this package relies on.

    SQLAlchemy makes the path absolute here: a process that changes its directory keeps its store.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s},
        **options,
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def path_of(url: str) -> Path:
    """The file that a URL names. Raises `StoreError`."""
    name = url.removeprefix(_PREFIX)
    if name == url or name in ("", ":memory:"):
        raise StoreError(url, "needs a file, as in sqlite:///telemetry.db (memory:// needs none)")
    if "?" in name:
        raise StoreError(url, "options after '?' are not supported")
    return Path(name)


def _set_up(connection: sqlite3.Connection, _: object) -> None:
    # The driver would begin transactions by itself, late and never for DDL; `_begin` does.
    connection.isolation_level = None
    for pragma in (
        "foreign_keys = ON",
        "synchronous = FULL",
        f"wal_autocheckpoint = {WAL_PAGES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A transaction that begins by reading and then writes fails at once if another process wrote in
    # between, whatever the timeout; one that takes the write lock first waits for it.
    writes = connection.get_execution_options().get(WRITES, False)
    driver.execute(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")


# --- deletion ------------------------------------------------------------------------------------


def _forget(engine: Engine, url: str) -> None:
    """Leave nothing of deleted rows in the file, nor in its ``-wal``.

    SQLite keeps them in free pages, older states of replaced rows too, until the file is written
    anew. The rows are gone in any case: what stands in the way is told, and the next deletion
    does it as well.
    """
    problem = "it is in use"
    try:
        with closing(engine.raw_connection()) as connection:
            connection.execute("VACUUM")
            done = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if done[0] == 0:
                return
    except sqlite3.Error as error:
        problem = str(error)
    logger.warning(
        "%s: deleted rows may still be found in the file's free space (%s); "
        "the next deletion, or SQLite's VACUUM while nothing else reads it, removes them",
        url,
        problem,
    )


# --- schema ------------------------------------------------------------------------------------


def _prepare(
    path: Path, url: str, busy_timeout_s: float, migrations: Migrations, tell: Tell
) -> None:
    """Bring the file to this program's schema; called under the file's lock."""
    engine = make_engine(path, busy_timeout_s, poolclass=NullPool)
    # Nothing was changed so far: a file that is not ours stays as it is, to the byte.
    with engine.connect() as connection:
        state = migrations.state(connection, url)
    if state is not State.CURRENT:
        _upgrade(engine, path, migrations, state, tell)
    with closing(sqlite3.connect(path, timeout=busy_timeout_s)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # kept in the file


def _upgrade(engine: Engine, path: Path, migrations: Migrations, state: State, tell: Tell) -> None:
    # Rebuilding a table drops it, which would delete the rows that refer to it; SQLite takes this
    # setting outside a transaction only (https://sqlite.org/lang_altertable.html, section 7).
    event.listen(engine, "connect", _without_foreign_keys)
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        if state is State.OLDER and connection.execute(select(runs.c.run_id).limit(1)).first():
            # The write lock is ours: the copy is what is upgraded, nothing comes in between.
            _copy(path, path.with_name(f"{path.name}.before-{migrations.head}"), tell)
        migrations.upgrade(connection, tell)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise sqlite3.IntegrityError(f"the upgrade left rows without their {broken[2]}")


def _without_foreign_keys(connection: sqlite3.Connection, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")


def _copy(path: Path, target: Path, tell: Tell) -> None:
    """A whole copy of a database that may be in use; it appears under its name when complete."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
        tell(0, what="copy pages")
        source.backup(
            copy, pages=_PAGES, progress=lambda _, left, of: tell(of - left, of)
        )  # nobody else writes meanwhile, or the steps would begin anew
    unfinished.chmod(path.stat().st_mode & 0o777)
    unfinished.replace(target)
