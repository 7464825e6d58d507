"""PostgreSQL: many servers and services at once (extra ``postgres``, psycopg 3).

An empty database gets this program's tables when it is opened; one with an older schema is left to
``fedserver telemetry migrate``, because other processes may be at work on it. The key of the
pseudonyms lies in the table ``telemetry_secret``, which no view and no reading role shows.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError

from telemetry.errors import SchemaOutdated, StoreError
from telemetry.progress import Tell, nobody
from telemetry.store.sql.files import SECRET_BYTES
from telemetry.store.sql.problems import store_errors
from telemetry.store.sql.schema import SHIPPED, Migrations, State
from telemetry.store.sql.store import SqlStore

READER_ROLE: Final = "telemetry_reader"
"""May read the views and the training metrics, and nothing else: for dashboards."""
READABLE: Final = (
    "v_run", "v_round", "v_client_round", "v_report", "v_run_value", "training_metrics",
)  # fmt: skip
_DRIVER: Final = "postgresql+psycopg"
_SCHEMA_LOCK: Final = 0x666C5F74  # any number that nobody else's advisory lock has: "fl_t"
_CONNECT_TIMEOUT_S: Final = 5
_READER_TIMEOUT_S: Final = 30
_UNACKNOWLEDGED_MS: Final = 10_000
"""A server that stops to answer is given up after this long, not after the kernel's 15 minutes."""


def open_postgres(
    url: str, *, create: bool = True, busy_timeout_s: float = 5.0, migrations: Migrations = SHIPPED
) -> SqlStore:
    """The store in a database, its tables made if it is empty; see `telemetry.store.open_store`."""
    address, shown = parse(url)
    with store_errors(shown):
        secret = _prepare(address, shown, busy_timeout_s, migrations, create=create)
        engine = make_engine(address, busy_timeout_s, pool_pre_ping=True)
    # One state of the database for all queries of one reading: /metrics asks twice.
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return SqlStore(engine, url=shown, secret=secret, reader=reader)


def parse(url: str) -> tuple[URL, str]:
    """Address for SQLAlchemy, and how it may be shown: without any password. Raises `StoreError`."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "postgresql:…", "is not a URL, as in postgresql://host/database"
        ) from error
    if "password" in address.query:
        raise StoreError(
            "postgresql:…", "the password belongs before the @, or into a .pgpass file"
        )
    shown = address.set(password=None).render_as_string(hide_password=True)
    return address.set(drivername=_DRIVER), shown


def make_engine(address: URL, busy_timeout_s: float = 5.0, **options: Any) -> Engine:
    """An engine with the settings that this package relies on. Raises `StoreError` without psycopg."""
    settings = {"TimeZone": "UTC", "lock_timeout": f"{round(busy_timeout_s * 1000)}ms"}
    try:
        return create_engine(
            address,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "tcp_user_timeout": _UNACKNOWLEDGED_MS,
                "application_name": "fedserver-telemetry",
                "client_encoding": "UTF8",  # an SQL_ASCII database would hand out bytes
                "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            },
            **options,
        )
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed: pip install 'fedserver-telemetry[postgres]'"
        raise StoreError("postgresql:…", problem) from error


# --- schema --------------------------------------------------------------------------------------


def _prepare(
    address: URL, shown: str, busy_timeout_s: float, migrations: Migrations, *, create: bool
) -> bytes:
    """See that the schema is this program's; the key of the pseudonyms."""
    engine = make_engine(address, busy_timeout_s, poolclass=NullPool)
    with engine.begin() as connection:
        state = migrations.state(connection, shown)
        if state is State.EMPTY and create:
            lock_schema(connection)
            state = migrations.state(connection, shown)  # another process may have been first
            if state is State.EMPTY:
                upgrade(connection, migrations)
                state = State.CURRENT
        if state is State.EMPTY:
            raise StoreError(
                shown, "the database is empty; `fedserver telemetry migrate` sets it up"
            )
        if state is State.OLDER:
            raise SchemaOutdated(
                shown,
                f"has an older schema than {migrations.head}; run `fedserver telemetry migrate`",
            )
        return _secret(connection, shown)


def lock_schema(connection: Connection) -> None:
    """Until the end of the transaction no other process changes the schema."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})


def upgrade(connection: Connection, migrations: Migrations = SHIPPED, tell: Tell = nobody) -> None:
    """Bring the schema to the newest revision, within the connection's transaction."""
    migrations.upgrade(connection, tell)
    connection.execute(text("CREATE TABLE IF NOT EXISTS telemetry_secret (secret TEXT NOT NULL)"))
    connection.execute(
        text(
            "INSERT INTO telemetry_secret SELECT :secret "
            "WHERE NOT EXISTS (SELECT 1 FROM telemetry_secret)"
        ),
        {"secret": secrets.token_hex(SECRET_BYTES)},
    )


def grant_reading(
    connection: Connection, role: str = READER_ROLE, password: str | None = None
) -> None:
    """Let ``role`` (made if need be, without a login) read the views, and nothing else.

    With a password it may log in, for dashboards. The password is turned into its SCRAM verifier
    here: no statement, and so no log of the server, ever holds it.
    """
    quoted = connection.dialect.identifier_preparer.quote_identifier(role)
    known = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role})
    if known.first() is None:
        connection.execute(text(f"CREATE ROLE {quoted} NOLOGIN"))
    schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    connection.execute(text(f"GRANT USAGE ON SCHEMA {schema} TO {quoted}"))
    connection.execute(text(f"GRANT SELECT ON {', '.join(READABLE)} TO {quoted}"))
    if password is not None:
        _let_in(connection, role, quoted, password)


def _let_in(connection: Connection, role: str, quoted: str, password: str) -> None:
    """Give a role that only reads a login. Raises `StoreError` for a role that may do more."""
    powers = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    mighty = connection.execute(
        text(f"SELECT {powers} OR rolname = current_user FROM pg_roles WHERE rolname = :role"),  # noqa: S608 names of our own
        {"role": role},
    ).scalar_one()
    if mighty:
        raise StoreError("postgresql:…", f"the role {role} may do more than read: choose another")
    session = connection.connection.driver_connection
    assert session is not None
    verifier = session.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    literal = verifier.decode().replace("'", "''")
    connection.exec_driver_sql(f"ALTER ROLE {quoted} LOGIN PASSWORD '{literal}'")
    # A panel writes nothing, and none may keep the database busy for ever.
    connection.exec_driver_sql(f"ALTER ROLE {quoted} SET default_transaction_read_only = on")
    connection.exec_driver_sql(
        f"ALTER ROLE {quoted} SET statement_timeout = '{_READER_TIMEOUT_S}s'"
    )


def _secret(connection: Connection, shown: str) -> bytes:
    found: str | None = connection.execute(text("SELECT secret FROM telemetry_secret")).scalar()
    secret = bytes.fromhex(found or "")
    if len(secret) != SECRET_BYTES:
        raise StoreError(shown, "the table telemetry_secret is damaged")
    return secret
