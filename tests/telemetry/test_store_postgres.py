"""What belongs to PostgreSQL alone; that it is a store like the others, the contract's tests say."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Connection,
    MetaData,
    NullPool,
    event,
    insert,
    text,
)

from telemetry.domain import Owner
from telemetry.errors import RunExists, SchemaOutdated, SchemaUnknown, StoreError
from telemetry.store import Store, open_store
from telemetry.store.deliveries import DeliveredRounds, DeliveredRun
from telemetry.store.sql import driver
from telemetry.store.sql.postgres import grant_reading, make_engine, open_postgres, parse
from telemetry.store.sql.schema import REVISION, VERSION_TABLE, Migrations
from telemetry.store.sql.store import SqlStore
from telemetry.store.sql.tables import metadata
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from tests.postgres import PostgresServer, postgres_server, wait_until_gone
from tests.telemetry.test_store_contract import LOOKS, OWNERS, STEPS, done, everything

PAST_SCHEMAS = Path(__file__).parent / "schemas"
CLIENTS: dict[str, float | str] = {"1": 0.5, "2": "missing", "3": "negative"}
VIEWS = ("v_run", "v_round", "v_client_round", "v_report", "v_run_value")


@pytest.fixture
def bare_url(postgres: PostgresServer) -> Iterator[str]:
    """URL of a database without any table."""
    name = postgres.create_database()
    yield postgres.url(name)
    postgres.drop_database(name)


def connected(url: str) -> Any:
    """A transaction of SQLAlchemy's on a database."""
    return make_engine(parse(url)[0], poolclass=NullPool).begin()


# --- schema --------------------------------------------------------------------------------------


def test_migrations_make_what_the_models_describe(postgres_url: str):
    """Alembic finds no difference here either."""
    with connected(postgres_url) as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "include_name": lambda name, kind, _: (kind, name) != ("table", "telemetry_secret"),
            },
        )
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("revision", sorted(path.stem for path in PAST_SCHEMAS.glob("*.sql")))
def test_a_database_of_each_past_schema_is_upgraded_when_asked(
    bare_url: str, tmp_path: Path, revision: str
):
    """Not by opening it; and afterwards its rounds read as they were written."""
    from telemetry.store.sql import postgres as module

    with connected(bare_url) as connection:
        module.upgrade(connection, Migrations(head=revision))
        copy_from_sqlite(connection, past_file(tmp_path, revision))
    with pytest.raises(SchemaOutdated, match="fedserver telemetry migrate"):
        open_store(bare_url)
    with connected(bare_url) as connection:
        module.upgrade(connection)
    with closing(open_store(bare_url)) as store:
        assert store.run(RUN_ID).info == make_run()
        assert store.round(RUN_ID, 1) == make_round(
            1, clients=CLIENTS, train_metrics={"accuracy": 0.5}, privacy_epsilon=1.25
        )
        assert store.record_round(make_round(2, revision=1)) is True


def past_file(tmp_path: Path, revision: str) -> Path:
    """A SQLite file as that revision's program wrote it."""
    path = tmp_path / "past.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((PAST_SCHEMAS / f"{revision}.sql").read_text(encoding="utf-8"))
    return path


def copy_from_sqlite(connection: Connection, path: Path) -> None:
    """Every row of every table; the tables are there already."""
    known = MetaData()
    known.reflect(connection)
    with closing(sqlite3.connect(path)) as source:
        source.row_factory = sqlite3.Row
        for table in known.sorted_tables:
            if table.name in (VERSION_TABLE, "telemetry_secret"):
                continue
            for row in source.execute(f"SELECT * FROM {table.name}"):
                values = {
                    name: bool(value)
                    if isinstance(table.c[name].type, Boolean) and value is not None
                    else datetime.fromisoformat(value)
                    if name.endswith("_at") and value is not None
                    else value
                    for name, value in dict(row).items()
                }
                connection.execute(insert(table).values(values))


def test_another_programs_database_is_left_alone(bare_url: str):
    """No table of ours appears in it."""
    with psycopg.connect(bare_url) as connection:
        connection.execute("CREATE TABLE theirs (x INT)")
    with pytest.raises(SchemaUnknown, match="another program"):
        open_store(bare_url)
    with psycopg.connect(bare_url) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
    assert found == [("theirs",)]


def test_a_newer_schema_is_left_alone(postgres_url: str):
    """By a program that does not know it."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaUnknown, match="9999"):
        open_store(postgres_url)


def test_an_empty_database_is_made_once_by_many_at_once(bare_url: str):
    """Eight processes that start together find one schema and one secret."""
    with ThreadPoolExecutor(8) as threads:
        stores = list(threads.map(lambda _: open_store(bare_url), range(8)))
    assert len({store.secret for store in stores}) == 1
    for store in stores:
        store.close()
    with connected(bare_url) as connection:
        revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one()
    assert revision == REVISION


def test_nothing_is_made_where_a_store_is_only_read(bare_url: str):
    """``create=False`` says what to do instead."""
    with pytest.raises(StoreError, match="telemetry migrate"):
        open_store(bare_url, create=False)
    with psycopg.connect(bare_url) as connection:
        tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        assert connection.execute(tables).fetchone() == (0,)


# --- like the other stores ------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(owners=st.tuples(OWNERS, OWNERS), steps=st.lists(STEPS, max_size=12), look=LOOKS)
def test_it_cannot_be_told_from_memory(postgres_url: str, owners, steps, look):
    """Whatever is done to them, both answer and hold the same."""
    with connected(postgres_url) as connection:
        connection.execute(text("TRUNCATE runs, deleted_runs CASCADE"))
    with closing(open_store(postgres_url)) as sql, closing(open_store("memory://")) as memory:
        for store in (sql, memory):
            for run_id, owner in zip(("run-a", "run-b"), owners, strict=True):
                store.start_run(make_run(run_id), owner, START)
        for step in steps:
            assert done(sql, step) == done(memory, step)
        assert everything(sql, *look) == everything(memory, *look)


def test_many_clients_go_by_copy_and_come_back_equal(postgres_url: str):
    """More rows than an ordinary insert takes, with unknown values among them."""
    clients: dict[str, float | str] = {
        str(number): "missing" if number % 7 == 0 else "negative" if number % 11 == 0 else 0.25
        for number in range(300)
    }
    record = make_round(1, clients=clients)
    with closing(open_store(postgres_url)) as store:
        store.start_run(make_run(), OWNER, START)
        assert store.record_round(record) is True
        assert store.round(RUN_ID, 1) == record
        assert len(list(store.participants(RUN_ID))) == len(clients)


@pytest.mark.parametrize("value", [5e-324, 1.7976931348623157e308, 0.1 + 0.2, -1e16])
def test_a_number_comes_back_to_the_last_bit(postgres_url: str, value: float):
    """Of a small round, whose rows travel as decimals; its digest is that of the rows read back."""
    record = make_round(
        1, clients={"1": abs(value) if value < 1e6 else 0.5}, train_metrics={"a": value}
    )
    with closing(open_store(postgres_url)) as store:
        store.start_run(make_run(), OWNER, START)
        store.record_round(record)
        stored = store.round(RUN_ID, 1)
        assert repr(stored) == repr(record)
        assert store.run(RUN_ID).totals.rounds == {"completed": 1}


def test_a_round_that_fails_half_way_leaves_nothing(postgres_url: str):
    """Not even the rows that were copied before the fault."""
    clients: dict[str, float | str] = {str(number): 0.25 for number in range(200)}
    with closing(open_store(postgres_url)) as store:
        store.start_run(make_run(), OWNER, START)
        with psycopg.connect(postgres_url) as connection:
            connection.execute("ALTER TABLE reports ADD CONSTRAINT too_many CHECK (position < 150)")
        with pytest.raises(StoreError, match="too_many"):
            store.record_round(make_round(1, clients=clients))
        assert list(store.rounds(RUN_ID, closed_only=False)) == []
        assert store.run(RUN_ID).totals.total_emissions_kg is None
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute("SELECT count(*) FROM participants").fetchone() == (0,)
            connection.execute("ALTER TABLE reports DROP CONSTRAINT too_many")
        assert store.record_round(make_round(1, clients=clients)) is True


def test_the_same_run_started_by_two_at_once_is_one_run(postgres_url: str):
    """The facts of the first hold: the same again is no error, others are."""
    stores = [open_store(postgres_url) for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        for number in range(12):
            info = make_run(f"run-{number}")
            list(threads.map(lambda store, i=info: store.start_run(i, OWNER, START), stores * 4))
    assert len(stores[0].runs()) == 12
    with pytest.raises(RunExists):
        stores[1].start_run(make_run("run-3", run_name="another"), OWNER, START)
    for store in stores:
        store.close()


def test_rounds_from_two_stores_count_once_each(postgres_url: str):
    """Two services on one database: each round enters the totals exactly once."""
    stores = [open_store(postgres_url) for _ in range(2)]
    stores[0].start_run(make_run(), OWNER, START)
    records = [make_round(n, server_kwh=0.5**n) for n in range(1, 21)]
    with ThreadPoolExecutor(8) as threads:
        told = list(
            threads.map(lambda pair: pair[0].record_round(pair[1]),
                        [(store, record) for record in records for store in stores])
        )  # fmt: skip
    assert sorted(told) == [False] * 20 + [True] * 20
    totals = stores[1].run(RUN_ID).totals
    assert totals.rounds == {"completed": 20}
    assert totals.server_energy_kwh == pytest.approx(sum(0.5**n for n in range(1, 21)), rel=1e-12)
    for store in stores:
        store.close()


def test_a_scrape_sees_one_state_of_the_database(postgres_url: str):
    """A round that closes between its queries is in none of them."""
    with closing(open_store(postgres_url)) as store, closing(open_store(postgres_url)) as writer:
        store.start_run(make_run(), OWNER, START)
        store.record_round(make_round(1))
        asked: list[str] = []

        def close_a_round(*call: Any) -> None:
            asked.append(call[2])
            if len(asked) == 1:
                writer.record_round(make_round(2))

        event.listen(store._reader, "after_cursor_execute", close_a_round)  # type: ignore[attr-defined]
        [shown] = store.exposed(START, OWNER, max_runs=5, max_rounds=5)
        assert len(asked) == 3
        assert [row.round for row in shown.rounds] == [1]
        assert shown.run.totals.rounds == {"completed": 1}


# --- views ----------------------------------------------------------------------------------------


def test_views_show_the_same_as_those_of_sqlite(postgres_url: str, sqlite_url: str):
    """Column by column, row by row."""
    shown = []
    for url in (postgres_url, sqlite_url):
        with closing(open_store(url)) as store:
            store.start_run(make_run(), OWNER, START)
            store.record_round(make_round(1, clients=CLIENTS))
            store.record_round(make_round(2, closed=False, server_kwh=None))
            with store._reader.connect() as connection:  # type: ignore[attr-defined]
                shown.append({name: rows_of(connection, name) for name in VIEWS})
    assert shown[0] == shown[1]


def rows_of(connection: Connection, view: str) -> list[dict[str, Any]]:
    """A view's rows, in an order, values in one form."""
    rows = connection.execute(text(f"SELECT * FROM {view}")).mappings().all()
    plain = [{name: plain_value(name, value) for name, value in row.items()} for row in rows]
    return sorted(plain, key=str)


def plain_value(name: str, value: Any) -> Any:
    """Times as times and truth as numbers, whatever the database has for them."""
    if value is not None and name.endswith("_at"):
        return datetime.fromisoformat(value) if isinstance(value, str) else value
    return int(value) if isinstance(value, bool) else value


def test_the_reading_role_reads_views_and_nothing_else(postgres_url: str):
    """No table with nodes, hosts, owners or the secret, and no writing."""
    with closing(open_store(postgres_url)) as store:
        store.start_run(make_run(), OWNER, START)
        store.record_round(make_round(1, clients=CLIENTS, train_metrics={"accuracy": 0.5}))
    with connected(postgres_url) as connection:
        grant_reading(connection, "a reader")
        grant_reading(connection, "a reader")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute('SET ROLE "a reader"')
        for readable in (*VIEWS, "training_metrics"):
            assert connection.execute(f"SELECT count(*) FROM {readable}").fetchone() != (0,)
        for hidden in ("runs", "reports", "participants", "round_noise", "telemetry_secret"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {hidden}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM training_metrics")


# --- trouble --------------------------------------------------------------------------------------


def test_a_database_without_an_encoding_keeps_text_as_it_is(postgres: PostgresServer):
    """SQL_ASCII is what a server in the C locale makes."""
    name = f"plain_{os.getpid()}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII'")
    try:
        with closing(open_store(postgres.url(name))) as store:
            store.start_run(make_run(run_name="Größe"), OWNER, START)
            assert store.runs()[0].info.run_name == "Größe"
    finally:
        postgres.drop_database(name)


def test_passwords_are_shown_nowhere(postgres: PostgresServer):
    """Neither in a store's address nor in its errors."""
    address = postgres.url("nowhere").replace("postgres@", "postgres:secret-word@")
    with pytest.raises(StoreError) as caught:
        open_store(address)
    assert "secret-word" not in f"{caught.value} {caught.value.url}"
    assert "does not exist" in str(caught.value)
    for wrong in ("postgresql://host:port/x", "postgresql:///x?password=secret-word"):
        with pytest.raises(StoreError) as caught:
            open_store(wrong)
        assert "secret-word" not in str(caught.value)


def test_a_server_that_comes_back_is_used_again():
    """Errors while it is away are `StoreError`, and nothing has to be opened again."""
    with postgres_server(
        settings=("fsync=off",)
    ) as server:  # a commit survives a crash of its process
        url = server.url(server.create_database())
        with closing(open_store(url)) as store:
            store.start_run(make_run(), OWNER, START)
            server.stop("immediate")
            wait_until_gone(server)
            with pytest.raises(StoreError):
                store.record_round(make_round(1))
            server.start()
            assert store.record_round(make_round(1)) is True
            assert store.renew_lease(RUN_ID, OWNER, START) is True


def test_a_connection_that_is_lost_is_not_used_again(postgres_url: str):
    """Whoever delivers learns why, and the next delivery has another one."""
    with closing(open_store(postgres_url)) as store:
        assert isinstance(store, SqlStore)
        store.deliver([DeliveredRun(writer="", info=make_run())], START)
        pid = "SELECT pg_backend_pid()"

        def lose(process: int) -> None:
            with store._writing() as connection:
                assert driver.execute(connection, pid) == [(process,)]
                with psycopg.connect(postgres_url) as other:
                    other.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))
                driver.execute(connection, pid)

        with store._writer.begin() as connection:  # the one that the store keeps
            [[mine]] = driver.execute(connection, pid)
        with pytest.raises(StoreError, match=r"administrator|closed the connection"):
            lose(mine)
        delivered = DeliveredRounds(writer="", run_id=RUN_ID, records=(make_round(1),))
        assert store.deliver([delivered], START) == [1]
        with store._writer.begin() as connection:
            assert driver.execute(connection, pid) != [(mine,)]


def test_a_lock_that_is_held_is_not_waited_for_for_ever(postgres_url: str):
    """``busy_timeout_s`` bounds a write, as it does with SQLite."""
    with (
        closing(open_postgres(postgres_url, busy_timeout_s=0.2)) as store,
        psycopg.connect(postgres_url) as other,
    ):
        store.start_run(make_run(), OWNER, START)
        other.execute("SELECT * FROM runs FOR UPDATE")
        with pytest.raises(StoreError, match="another process keeps"):
            store.renew_lease(RUN_ID, Owner(host="h", pid=1, token="t"), START)


def test_sqlalchemy_without_psycopg_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """The driver is an extra."""

    def without(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr("telemetry.store.sql.postgres.create_engine", without)
    with pytest.raises(StoreError, match=r"fedserver-telemetry\[postgres\]"):
        open_store("postgresql://host/database")


def test_services_that_are_told_of_the_same_runs_at_once_agree(postgres_url: str):
    """Each run is news to one of them, and no delivery fails."""
    with (
        closing(open_store(postgres_url)) as one,
        closing(open_store(postgres_url)) as other,
        closing(open_store(postgres_url)) as third,
        ThreadPoolExecutor(3) as pool,
    ):
        for turn in range(12):
            runs = [DeliveredRun(writer="a", info=make_run(f"run-{turn}-{n}")) for n in range(6)]
            batches = [[[run] for run in runs], [runs], [runs[:3], runs[3:]]]

            def told(store: Store, parts: list[list[DeliveredRun]]) -> list[Any]:
                return [news for part in parts for news in store.deliver(part, START)]

            came_to = list(pool.map(told, (one, other, third), batches))
            assert [sum(news) for news in zip(*came_to, strict=True)] == [1] * 6


def test_services_that_take_rounds_of_one_run_at_once_lose_none(postgres_url: str):
    """Whoever waited for the other sees what it added: totals hold each round once."""
    each, names = 12, ("a", "b")
    with ExitStack() as open_ones, ThreadPoolExecutor(3) as pool:
        stores = [open_ones.enter_context(closing(open_store(postgres_url))) for _ in range(3)]
        stores[0].deliver([DeliveredRun(writer="w", info=make_run(name)) for name in names], START)

        def told(place: int) -> list[Any]:
            came_to: list[Any] = []
            for number in range(1, each + 1):
                # Every second round comes to all of them.
                shared = number % 2 == 0
                given = [
                    DeliveredRounds(
                        writer="w",
                        run_id=name,
                        records=(
                            make_round(
                                number if shared else number + 100 * place,
                                run_id=name,
                                server_kwh=0.25,
                                clients=CLIENTS,
                            ),
                        ),
                    )
                    for name in (names if place else reversed(names))
                ]
                came_to += stores[place].deliver(given, START)
            return came_to

        news = [one for came_to in pool.map(told, range(3)) for one in came_to]
        rounds = 3 * each // 2 + each // 2
        assert sum(news) == rounds * len(names)
        for name in names:
            totals = stores[0].run(name).totals
            assert totals.rounds == {"completed": rounds}
            assert totals.server_energy_kwh == 0.25 * rounds
            assert len(list(stores[0].rounds(name))) == rounds
