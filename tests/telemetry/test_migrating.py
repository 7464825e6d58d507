"""Looking at a database's schema, and bringing it up to date: what ``telemetry migrate`` does."""

from __future__ import annotations

import hashlib
import hmac
import shutil
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from telemetry.errors import SchemaOutdated, SchemaUnknown, StoreError
from telemetry.store import open_store
from telemetry.store.sql import migrating, schema
from telemetry.store.sql.schema import REVISION, Migrations, State
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from tests.postgres import PostgresServer

VERSIONS = Path(schema.__file__).parent / "migrations" / "versions"
READER = "migrating_reader"


@pytest.fixture
def past(tmp_path: Path) -> Migrations:
    """The shipped revisions but for the newest."""
    folder = tmp_path / "past"
    folder.mkdir()
    for file in VERSIONS.glob("*.*"):
        if not file.name.startswith(REVISION):
            shutil.copy(file, folder)
    return Migrations(head=f"{int(REVISION) - 1:04}", folders=(folder,))


@pytest.fixture
def bare_url(postgres: PostgresServer) -> str:
    """URL of a database without any table."""
    return postgres.url(postgres.create_database())


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database that has nothing in it yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new.db"
    found: str = request.getfixturevalue("bare_url")
    return found


def test_an_older_database_goes_all_the_way_and_keeps_what_it_holds(
    empty_url: str, past: Migrations
):
    """Its revisions before and after are told; once more changes nothing."""
    assert migrating.upgrade(empty_url, past) == (None, past.head)
    assert migrating.facts(empty_url).state is State.OLDER
    assert migrating.facts(empty_url).revision == past.head
    if empty_url.startswith("postgresql"):
        with pytest.raises(SchemaOutdated, match="fedserver telemetry migrate"):
            open_store(empty_url)
    assert migrating.upgrade(empty_url) == (past.head, REVISION)
    assert migrating.facts(empty_url).state is State.CURRENT
    with closing(open_store(empty_url)) as store:
        store.start_run(make_run(), OWNER, START)
        store.record_round(make_round(1))
    assert migrating.upgrade(empty_url) == (REVISION, REVISION)
    with closing(open_store(empty_url)) as store:
        assert store.round(RUN_ID, 1) == make_round(1)


def test_a_newer_or_foreign_database_is_left_alone(
    bare_url: str, postgres_url: str, past: Migrations
):
    """By looking and by upgrading."""
    with psycopg.connect(bare_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE of_others (x INT)")
    for url, migrations in ((bare_url, schema.SHIPPED), (postgres_url, past)):
        for act in (migrating.facts, migrating.upgrade):
            with pytest.raises(SchemaUnknown):
                act(url, migrations)


def test_many_processes_upgrade_once(bare_url: str, past: Migrations):
    """Each waits for the one before; none fails, and the schema is whole."""
    migrating.upgrade(bare_url, past)
    with ThreadPoolExecutor(4) as pool:
        came_to = list(pool.map(migrating.upgrade, [bare_url] * 4))
    assert sorted(came_to) == [(past.head, REVISION), *[(REVISION, REVISION)] * 3]
    open_store(bare_url).close()


def test_a_reader_reads_the_views_and_nothing_else(postgres_url: str, postgres: PostgresServer):
    """Made if need be; no token's hash, no secret."""
    for _ in range(2):
        migrating.grant_reading(postgres_url, READER)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {READER}")
        assert connection.execute("SELECT count(*) FROM v_run").fetchone() == (0,)
        for table in ("api_tokens", "telemetry_secret", "runs", "reports", "round_noise"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT count(*) FROM {table}")


def test_a_reader_with_a_password_logs_in_and_reads(postgres_url: str, postgres: PostgresServer):
    """Its views, with that password alone; a new password replaces it, and no log holds either."""
    role = f"{READER}_login"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
    for password in ("first-'word", "second-word"):
        migrating.grant_reading(postgres_url, role, password)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET log_statement")
        connection.execute("SELECT pg_reload_conf()")
        stored = connection.execute(
            "SELECT a.rolcanlogin, a.rolpassword, r.rolconfig "
            "FROM pg_authid a JOIN pg_roles r USING (rolname) WHERE rolname = %s",
            (role,),
        ).fetchone()
        assert stored is not None
        can_login, verifier, settings = stored
        assert can_login
        assert verifier.startswith("SCRAM-SHA-256$")
        assert set(settings) == {"default_transaction_read_only=on", "statement_timeout=30s"}
        known = {p: fits(verifier, p) for p in ("first-'word", "second-word")}
        assert known == {"first-'word": False, "second-word": True}
    log = (postgres.folder / "log").read_text(errors="replace")
    assert f'ALTER ROLE "{role}" LOGIN PASSWORD' in log
    assert "second-word" not in log
    with psycopg.connect(postgres_url.replace("postgres@", f"{role}@")) as connection:
        assert connection.execute("SELECT count(*) FROM v_run").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(*) FROM api_tokens")


def fits(verifier: str, password: str) -> bool:
    """Whether a SCRAM-SHA-256 verifier is that of a password (RFC 5802, StoredKey)."""
    iterations, salt, keys = verifier.removeprefix("SCRAM-SHA-256$").replace("$", ":").split(":", 2)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(salt), int(iterations))
    client = hmac.digest(salted, b"Client Key", "sha256")
    return b64encode(hashlib.sha256(client).digest()).decode() == keys.split(":")[0]


def test_no_mighty_role_gets_a_password(postgres_url: str):
    """Least of all the one that is connected: its own would be changed."""
    with pytest.raises(StoreError, match="may do more than read"):
        migrating.grant_reading(postgres_url, "postgres", "word")


def test_what_has_no_roles_or_is_not_there_says_so(sqlite_url: str, bare_url: str, tmp_path: Path):
    """Plain sentences; looking at a file that is not there makes none."""
    with pytest.raises(StoreError, match="only PostgreSQL has roles"):
        migrating.grant_reading(sqlite_url, READER)
    with pytest.raises(StoreError, match="migrate up"):
        migrating.grant_reading(bare_url, READER)
    with pytest.raises(StoreError, match="no such file"):
        migrating.facts(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_the_history_tells_every_revision_in_order():
    """With what it brought."""
    told = migrating.history()
    assert [revision for revision, _ in told] == [f"{n:04}" for n in range(1, int(REVISION) + 1)]
    assert all(text for _, text in told)
