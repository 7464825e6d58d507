"""What is special about the store in a SQLite file."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import event

from telemetry.domain import Owner, RunTotals
from telemetry.errors import SchemaUnknown, StoreError
from telemetry.store import open_store
from telemetry.store.sql import mapping, queries
from telemetry.store.sql.sqlite import make_engine, open_sqlite
from telemetry.store.sql.store import SqlStore
from telemetry.testing import OWNER, RUN_ID, START, make_report, make_round, make_run

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is going to be."""
    return tmp_path / "telemetry.db"


@pytest.fixture
def store(path: Path, sqlite_url: str) -> Iterator[SqlStore]:
    """A store in that file with one running run."""
    store = open_sqlite(sqlite_url, busy_timeout_s=0.05)
    store.start_run(make_run(), OWNER, START)
    yield store
    store.close()
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    assert asked(path, "PRAGMA foreign_key_check") == []


def asked(path: Path, question: str) -> list[tuple]:
    """The answer of the file itself, past the store."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Without the rights of root, to whom every file is writable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach (pytest's own are private to who runs it)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# --- opening -----------------------------------------------------------------------------------


def test_a_store_is_created_once_and_found_again(path: Path):
    """Runs and secret are there at the next opening, and the file needs nothing else."""
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.start_run(make_run(), OWNER, START)
        secret = store.secret
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert store.run(RUN_ID).info == make_run()
        assert store.secret == secret


def test_a_relative_path_stays_where_it_was_opened(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A process that moves elsewhere afterwards keeps its store."""
    monkeypatch.chdir(tmp_path)
    with closing(open_store("sqlite:///telemetry.db")) as store:
        monkeypatch.chdir("/")
        store.start_run(make_run(), OWNER, START)
        assert store.url == "sqlite:///telemetry.db"
    assert asked(path, "SELECT run_id FROM runs") == [(RUN_ID,)]


def test_the_secret_is_for_the_owner_only(store: SqlStore, path: Path):
    """32 bytes as hex, readable by nobody else, and nothing half-written beside it."""
    secret_path = path.with_name("telemetry.db.secret")
    assert stat.S_IMODE(secret_path.stat().st_mode) == 0o600
    assert bytes.fromhex(secret_path.read_text()) == store.secret
    assert not list(path.parent.glob("*.unfinished"))


@pytest.mark.parametrize("content", ["", "abcd", "x" * 64])
def test_a_damaged_secret_is_not_replaced(store: SqlStore, path: Path, content: str):
    """With another key every client would get another name, so a person has to decide."""
    path.with_name("telemetry.db.secret").write_text(content)
    with pytest.raises(StoreError, match=r"telemetry\.db\.secret beside it is damaged"):
        open_store(store.url)
    assert path.with_name("telemetry.db.secret").read_text() == content


def test_a_file_is_not_created_where_that_is_not_wanted(path: Path):
    """Whoever only wants to look leaves nothing behind."""
    with pytest.raises(StoreError, match="there is no such file"):
        open_store(f"sqlite:///{path}", create=False)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://", "needs a file"),
        ("sqlite:///", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:///a.db?mode=ro", "options after"),
        ("telemetry.db", "known: memory, postgresql, sqlite"),
        ("oracle://me:secret@host/db", "known: memory, postgresql, sqlite"),
    ],
)
def test_a_wrong_url_is_refused(url: str, says: str):
    """The message says what would be right, and shows no password."""
    with pytest.raises(StoreError, match=says) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert "secret" not in caught.value.url


def test_settings_hold_on_every_connection(store: SqlStore, path: Path):
    """Foreign keys on, each commit on disk, and a log that lets readers go on."""
    with closing(open_store(store.url, busy_timeout_s=1.5)) as other:
        assert isinstance(other, SqlStore)
        with other._reading() as connection:
            ask = connection.exec_driver_sql
            assert ask("PRAGMA foreign_keys").scalar() == 1
            assert ask("PRAGMA synchronous").scalar() == 2
            assert ask("PRAGMA busy_timeout").scalar() == 1500
    assert asked(path, "PRAGMA journal_mode") == [("wal",)]


def test_nobody_pays_for_what_they_do_not_use(sqlite_url: str):
    """SQLAlchemy is loaded when a database is opened, Alembic when a schema is to be changed."""
    program = (
        "import sys; from telemetry.store import open_store; open_store('memory://');"
        "assert 'sqlalchemy' not in sys.modules; open_store(sys.argv[1]).close();"
        "assert 'sqlalchemy' in sys.modules; assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, sqlite_url], check=True, timeout=60)


# --- files that cannot be used -----------------------------------------------------------------


def test_a_file_that_is_no_database_is_refused(path: Path):
    """And left as it is, to the byte."""
    path.write_bytes(b"not a database, but longer than the header of one" * 40)
    before = path.read_bytes()
    with pytest.raises(SchemaUnknown, match="not an SQLite database"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(path: Path):
    """Even where that program uses Alembic, too; it is left as it is, to the byte."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO alembic_version VALUES ('0001'); CREATE TABLE runs (x)"
        )
    before = path.read_bytes()
    with pytest.raises(SchemaUnknown, match="another program"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_folder_is_refused(path: Path):
    """In one sentence."""
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(f"sqlite:///{path}")


def test_a_missing_folder_is_refused(path: Path):
    """It is not made: it is probably misspelt."""
    with pytest.raises(StoreError, match="its directory does not exist"):
        open_store(f"sqlite:///{path.parent}/nowhere/telemetry.db")


def test_an_unwritable_folder_is_refused(public_folder: Path):
    """Before anything is created."""
    public_folder.chmod(0o555)
    with as_ordinary_user(), pytest.raises(StoreError, match="Permission denied"):
        open_store(f"sqlite:///{public_folder}/telemetry.db")
    public_folder.chmod(0o755)
    assert list(public_folder.iterdir()) == []


def test_a_read_only_file_is_refused(public_folder: Path):
    """With the reason, as soon as something is to be written."""
    url = f"sqlite:///{public_folder}/telemetry.db"
    with closing(open_store(url)) as store:
        store.start_run(make_run(), OWNER, START)
    public_folder.chmod(0o777)
    for companion in public_folder.iterdir():
        companion.chmod(0o666)
    (public_folder / "telemetry.db").chmod(0o444)
    with (
        as_ordinary_user(),
        closing(open_store(url)) as store,
        pytest.raises(StoreError, match="the file is read-only"),
    ):
        store.record_round(make_round(1))


def test_a_locked_database_is_an_error_after_the_timeout(store: SqlStore, path: Path):
    """Nothing of the write is stored; readers go on, and later writes work."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process keeps the database locked"):
            store.record_round(make_round(1))
        assert list(store.rounds(RUN_ID)) == []
        other.rollback()
    assert store.record_round(make_round(1)) is True


def test_a_full_disk_is_an_error_and_costs_that_round_only(store: SqlStore, path: Path):
    """Nothing of the write is stored, and what was stored stays."""
    store.record_round(make_round(1))
    pages = asked(path, "PRAGMA page_count")[0][0]
    engine = make_engine(path)
    event.listen(engine, "connect", lambda c, _: c.execute(f"PRAGMA max_page_count = {pages + 2}"))
    full = SqlStore(engine, url=store.url, secret=store.secret)
    large = make_round(2, clients={str(node): 0.5 for node in range(200)})
    with pytest.raises(StoreError, match="the disk is full"):
        full.record_round(large)
    full.close()
    assert [s.round for s in store.rounds(RUN_ID)] == [1]
    assert store.record_round(large) is True


def test_errors_show_no_statement_and_no_values(store: SqlStore, path: Path):
    """One line, fit for a log that other people read."""
    asked(path, "DROP VIEW v_client_round")
    asked(path, "DROP TABLE reports")
    with pytest.raises(StoreError) as caught:
        store.record_round(make_round(1, clients={"node-1": 0.5}))
    assert str(caught.value) == f"telemetry store {store.url}: no such table: reports"


@pytest.mark.parametrize(
    "report",
    [
        make_report("2", emissions_kg=-0.5),
        make_report("2", sensor="astrology"),
        make_report("2", schema_version=2**64),
        make_report("2", tracker="\ud800"),
    ],
)
def test_what_the_tables_refuse_is_refused_whole(store: SqlStore, report):
    """Records that were never validated: nothing of the round is stored, no total changed."""
    record = make_round(1, reports=(make_report("1", 0.5), report))
    with pytest.raises(StoreError):
        store.record_round(record)
    assert list(store.rounds(RUN_ID, closed_only=False)) == []
    assert store.run(RUN_ID).totals == RunTotals()


# --- several processes -------------------------------------------------------------------------

_WRITER = """
import sys
from telemetry.store import open_store
from telemetry.testing import OWNER, START, make_round, make_run
name, url = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
store = open_store(url)
for run_id in (name, "both"):
    store.start_run(make_run(run_id), OWNER, START)
for number in range(1, 26):
    store.record_round(make_round(number, run_id=name, server_kwh=0.5))
    store.add_late_reports("both", 1)
print(store.secret.hex())
store.close()
"""


def test_two_processes_use_one_file_at_once(path: Path):
    """Both create it at the same moment, agree on the secret, and lose none of their writes."""
    url = f"sqlite:///{path}"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    answers = [writer.communicate(timeout=50) for writer in writers]
    assert [errors for _, errors in answers] == ["", ""]
    with closing(open_store(url)) as store:
        assert [secret.strip() for secret, _ in answers] == [store.secret.hex()] * 2
        for name in ("one", "two"):
            assert store.run(name).totals.rounds == {"completed": 25}
            assert store.run(name).totals.server_energy_kwh == 12.5
        assert store.run("both").totals.reports_late == 50
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]


def test_threads_of_one_process_wait_for_each_other(store: SqlStore):
    """However long a write takes, another thread's comes after it: the timeout is for others."""
    inside, go_on, done = Event(), Event(), Event()

    def ask_slowly(_: Owner) -> bool:
        inside.set()
        return go_on.wait(10)

    def write() -> None:
        store.record_round(make_round(1))
        done.set()

    slow = Thread(target=store.mark_interrupted, args=(START, ask_slowly))
    slow.start()
    assert inside.wait(10)
    quick = Thread(target=write)
    quick.start()
    assert not done.wait(0.2)  # longer than this store's busy timeout
    go_on.set()
    slow.join()
    quick.join()
    assert done.is_set()


def test_opening_waits_for_another_process_no_longer_than_the_timeout(store: SqlStore, path: Path):
    """Whoever holds the file's lock for longer is named as the reason."""
    import fcntl

    with path.with_name("telemetry.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another process is opening or upgrading it"):
            open_store(store.url, busy_timeout_s=0.05)
    open_store(store.url, busy_timeout_s=0.05).close()


# --- what is stored, and how it is read --------------------------------------------------------


def test_times_are_text_that_sorts(store: SqlStore, path: Path):
    """Fixed width, microseconds and Z, in UTC whatever zone they came in; read back in UTC."""
    tokyo = START.astimezone(timezone(timedelta(hours=9)))
    store.start_run(make_run("tokyo", started_at=tokyo), OWNER, START)
    later = START + timedelta(microseconds=1)
    report = make_report("1", 0.5, started_at=tokyo, ended_at=later)
    store.record_round(make_round(1, reports=(report,)))
    stored = asked(path, "SELECT started_at FROM runs WHERE run_id = 'tokyo'")
    assert stored == [("2026-01-02T03:04:05.000000Z",)]
    stored = asked(path, "SELECT started_at, ended_at FROM reports")
    assert stored == [("2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:05.000001Z")]
    read = store.run("tokyo").info.started_at
    assert (read, read.utcoffset()) == (START, timedelta(0))
    [(_, _, found)] = store.reports(RUN_ID)
    assert (found.started_at, found.ended_at) == (START, later)


def test_streams_hold_a_chunk_and_not_the_whole(store: SqlStore):
    """Reading row by row takes a fraction of the memory of the list."""
    size = 5 * queries.CHUNK_ROWS
    store.record_round(make_round(1, clients={str(node): 0.5 for node in range(size)}))
    list(store.reports(RUN_ID))
    tracemalloc.start()
    try:
        assert sum(1 for _ in store.reports(RUN_ID)) == size
        streamed = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        assert len(list(store.reports(RUN_ID))) == size
        listed = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert streamed < listed / 2


@pytest.mark.parametrize(
    "query",
    [
        queries.rounds_of(RUN_ID, closed_only=True),
        queries.reports_of(RUN_ID),
        queries.participants_of(RUN_ID),
    ],
)
def test_streams_are_read_in_the_order_in_which_they_lie(store: SqlStore, query):
    """Nothing is sorted, so the first row comes at once, however long the run."""
    with store._reading() as connection:
        sql = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all()
    steps = [row[-1] for row in plan]
    assert steps
    assert not [step for step in steps if "TEMP B-TREE" in step or step.startswith("SCAN")]


def test_a_scrape_is_three_queries_and_two_where_no_round_was_closed_since(store: SqlStore):
    """However many runs and rounds there are; and what was remembered is what the database says."""
    for number in range(1, 4):
        store.start_run(make_run(f"run-{number}"), OWNER, START)
        store.record_round(make_round(1, run_id=f"run-{number}"))
    asked_for: list[str] = []
    event.listen(store._reader, "before_cursor_execute", lambda *call: asked_for.append(call[2]))
    found = store.exposed(START, OWNER, max_runs=5, max_rounds=5)
    assert len(found) == 4
    assert selects(asked_for) == 3
    assert store.exposed(START, OWNER, max_runs=5, max_rounds=5) == found
    assert selects(asked_for) == 2
    store.record_round(make_round(2, run_id="run-2"))
    asked_for.clear()
    again = store.exposed(START, OWNER, max_runs=5, max_rounds=5)
    assert selects(asked_for) == 3
    with closing(open_store(store.url)) as other:
        assert other.exposed(START, OWNER, max_runs=5, max_rounds=5) == again
    [changed] = [shown for shown in again if shown.run.run_id == "run-2"]
    assert [row.round for row in changed.rounds] == [1, 2]


def selects(asked_for: list[str]) -> int:
    """How many statements were sent since the last call; none of them writes."""
    found = [sql.split()[0] for sql in asked_for if not sql.startswith("BEGIN")]
    asked_for.clear()
    assert set(found) <= {"SELECT", "WITH"}
    return len(found)


def test_a_round_with_many_clients_is_replaced_whole(store: SqlStore, path: Path):
    """No row of the older revision stays in any table."""
    many = make_round(1, closed=False, clients={str(node): 0.5 for node in range(50)})
    store.record_round(many)
    store.record_round(make_round(1, closed=False, revision=1, laps=()))
    for table in ("participants", "reports", "round_phases", "training_metrics"):
        assert asked(path, f"SELECT count(*) FROM {table}") == [(0,)]
    assert store.round(RUN_ID, 1).participants == ()


def test_a_participant_keeps_its_own_facts(store: SqlStore):
    """Columns that lie apart from their order in the record come back where they belong."""
    record = make_round(1, clients={"1": 0.5})
    whole = replace(
        record.participants[0],
        sent_at=START,
        replied_at=START + timedelta(seconds=1),
        loopback=True,
        bytes_to=1,
        bytes_from=2,
        reason="none",
    )
    record = record.model_copy(update={"participants": (whole,)})
    store.record_round(record)
    assert store.round(RUN_ID, 1).participants == (whole,)
    assert list(store.participants(RUN_ID)) == [(1, 1, whole)]


def test_a_column_that_had_no_value_yet_takes_one_when_it_comes(store: SqlStore, path: Path):
    """On one connection, where a statement has said NULL for it; and NULL where none is given later."""
    record = make_round(1, clients={"1": 0.5, "2": 0.25})
    bare, other = record.participants
    whole = replace(bare, loopback=False, bytes_to=1, reason="none")
    for number, participants in enumerate([(bare, other), (whole, other), (bare, other)], start=1):
        store.record_round(make_round(number).model_copy(update={"participants": participants}))
        assert store.round(RUN_ID, number).participants == participants
    kept = asked(path, "SELECT train, loopback FROM participants ORDER BY round, position")
    assert kept == [(1, None), (1, None), (1, 0), (1, None), (1, None), (1, None)]
    kinds = asked(path, "SELECT DISTINCT typeof(train) FROM participants")
    assert kinds == [("integer",)]


# --- deletion ----------------------------------------------------------------------------------


def traces(path: Path, words: bytes) -> dict[str, int]:
    """How often something stands in the database and each of its companions."""
    beside = path.parent.glob(f"{path.name}*")
    return {found.name: found.read_bytes().count(words) for found in beside}


def test_nothing_of_a_deleted_run_is_left_in_the_file(
    store: SqlStore, path: Path, caplog: pytest.LogCaptureFixture
):
    """Neither rows nor older states of them, in no page and no log; other runs stay."""
    # Some builds of SQLite zero what they free; it must not be those alone that forget.
    event.listen(store._reader, "connect", lambda c, _: c.execute("PRAGMA secure_delete = OFF"))
    store._reader.dispose()
    gone, kept = make_report("a"), make_report("b")
    store.start_run(make_run("other-run"), OWNER, START)
    store.record_round(make_round(1, run_id="other-run", clients={"b": 0.5}))
    for revision in range(3):
        opened = make_round(1, clients={"a": 0.5, "c": 0.25}, closed=False, revision=revision)
        store.record_round(opened)
    store.record_round(make_round(1, clients={"a": 0.5}, revision=9))
    store.finish_run(RUN_ID, "completed", START)
    pseudonym = gone.client.encode()
    assert sum(traces(path, pseudonym).values()) > 1
    store.delete_run(RUN_ID, START)
    assert set(traces(path, pseudonym).values()) == {0}
    assert set(traces(path, make_report("c").client.encode()).values()) == {0}
    assert traces(path, kept.client.encode())["telemetry.db"] > 0
    assert len(list(store.rounds("other-run"))) == 1
    assert caplog.records == []


def test_a_deletion_that_leaves_traces_says_so(
    store: SqlStore, path: Path, caplog: pytest.LogCaptureFixture
):
    """Somebody reads the file meanwhile: the run is gone, its traces go with the next deletion."""
    store.record_round(make_round(1, clients={"a": 0.5}))
    store.start_run(make_run("other-run"), OWNER, START)
    for run_id in (RUN_ID, "other-run"):
        store.finish_run(run_id, "completed", START)
    pseudonym = make_report("a").client.encode()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM reports").fetchone() == (1,)
        store.delete_run(RUN_ID, START)
        assert "free space" in caplog.text
        assert sum(traces(path, pseudonym).values()) > 0
    store.delete_run("other-run", START)
    assert set(traces(path, pseudonym).values()) == {0}


def test_totals_are_those_of_the_row_that_is_read(store: SqlStore, path: Path):
    """What was written last is remembered and taken for it, but never for another row."""
    store.record_round(make_round(1, sequence=1, clients={"a": 0.1}))
    totals = store.run(RUN_ID).totals
    row = mapping.totals_row(RUN_ID, totals)
    assert mapping.totals_from_row(row) is totals
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE run_totals SET reports_late = 7")
    store.record_round(make_round(2, sequence=2, clients={"a": 0.2}))
    assert store.run(RUN_ID).totals.reports_late == 7
    other = (*row[:-1], '{"total_emissions_kg": [1e-30]}')
    assert mapping.totals_from_row(other) == replace(totals, rests={"total_emissions_kg": (1e-30,)})


def test_not_every_run_that_ever_was_is_remembered():
    """A service sees ever new ones."""
    for number in range(3 * mapping.MAX_REMEMBERED):
        mapping.totals_row(f"run-{number}", RunTotals())
        assert len(mapping._last_written) <= mapping.MAX_REMEMBERED
