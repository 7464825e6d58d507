"""How a file comes to this program's schema, and what happens to one that has another."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

from telemetry.domain import NoiseRecord
from telemetry.errors import SchemaUnknown
from telemetry.store.sql import schema
from telemetry.store.sql.schema import REVISION, VERSION_TABLE, Migrations
from telemetry.store.sql.sqlite import make_engine, open_sqlite
from telemetry.store.sql.tables import metadata
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

PAST_SCHEMAS = Path(__file__).parent / "schemas"
"""A database of each past schema with a run, a closed and an open round, as SQL."""
SHIPPED_FOLDER = Path(schema.__file__).parent / "migrations" / "versions"

ONE_MORE = '''
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "0008", "0007", None, None

def upgrade():
    """Add a column, and rebuild a table that others refer to: what needs most care in SQLite."""
    connection = op.get_bind()
    views = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'view'")
    kept = views.all()
    for name, _ in kept:
        op.execute(f"DROP VIEW {name}")
    op.add_column("runs", sa.Column("colour", sa.Text()))
    with op.batch_alter_table("rounds", recreate="always") as rounds:
        rounds.add_column(sa.Column("weather", sa.Text()))
    for _, sql in kept:
        op.execute(sa.text(sql))
'''
BROKEN = ONE_MORE + '\n    raise RuntimeError("made to fail")\n'
ORPHANS = ONE_MORE + '\n    op.execute("DELETE FROM runs")\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is going to be."""
    return tmp_path / "telemetry.db"


@pytest.fixture
def filled(sqlite_url: str) -> str:
    """URL of a closed store with a run and a round."""
    with closing(open_sqlite(sqlite_url)) as store:
        store.start_run(make_run(), OWNER, START)
        store.record_round(make_round(1, clients={"1": 0.5, "2": "missing"}))
    return sqlite_url


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A folder for revisions that are not shipped."""
    folder = tmp_path / "100% later"  # Alembic's configuration gives % a meaning
    folder.mkdir()
    return folder


def with_one_more(later: Path, revision: str = ONE_MORE) -> Migrations:
    """The shipped revisions and one more."""
    (later / "0008_eighth.py").write_text(revision)
    return Migrations(head="0008", folders=(SHIPPED_FOLDER, later))


def content(path: Path) -> list[str]:
    """Everything in a database, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def tables_of(path: Path) -> dict[str, str]:
    """Statement of each table and index, without its layout."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql <> ''"
        ).fetchall()
    return {n: re.sub(r"\s+", "", sql) for n, sql in found if n != VERSION_TABLE}


# --- the shipped schema ------------------------------------------------------------------------


def test_the_stated_revision_is_the_newest():
    """There is one line of revisions and it ends where the program says."""
    script = ScriptDirectory(str(SHIPPED_FOLDER.parent))
    assert script.get_heads() == [REVISION]


def test_migrations_make_what_the_models_describe(filled: str, path: Path):
    """Alembic finds no difference."""
    engine = make_engine(path, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def test_migrations_make_the_same_checks_as_the_models(filled: str, path: Path, tmp_path: Path):
    """Constraints and table options, too, which Alembic does not compare."""
    metadata.create_all(create_engine(f"sqlite:///{tmp_path}/models.db", poolclass=NullPool))
    by_models, by_migrations = tables_of(tmp_path / "models.db"), tables_of(path)
    assert by_migrations.keys() == by_models.keys()
    for name, statement in by_models.items():
        assert sorted(by_migrations[name]) == sorted(statement), name
        for check in re.findall(r"CONSTRAINTck_.*?(?=,CONSTRAINT|\)\Z)", statement):
            assert check in by_migrations[name]


def test_opening_an_up_to_date_file_changes_nothing(filled: str, path: Path):
    """Neither its content nor its companions."""
    before, files = content(path), sorted(path.parent.iterdir())
    open_sqlite(filled).close()
    assert content(path) == before
    assert sorted(path.parent.iterdir()) == files


# --- upgrades ----------------------------------------------------------------------------------


def test_no_past_schema_is_forgotten():
    """There is a database of each revision but the newest."""
    script = ScriptDirectory(str(SHIPPED_FOLDER.parent))
    known = {revision.revision for revision in script.walk_revisions()}
    assert known - {REVISION} == {path.stem for path in PAST_SCHEMAS.glob("*.sql")}


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005", "0006"])
def test_a_file_of_each_past_schema_is_upgraded(path: Path, revision: str):
    """Its rounds read as they were written, an open one goes on, and new facts can be stored."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((PAST_SCHEMAS / f"{revision}.sql").read_text(encoding="utf-8"))
    with closing(open_sqlite(f"sqlite:///{path}")) as store:
        assert store.run(RUN_ID).info == make_run()
        clients: dict[str, float | str] = {"1": 0.5, "2": "missing", "3": "negative"}
        assert store.round(RUN_ID, 1) == make_round(
            1, clients=clients, train_metrics={"accuracy": 0.5}, privacy_epsilon=1.25
        )
        noisy = make_round(2, revision=1, noise=NoiseRecord(noise_stdv=0.5, distance=2.0))
        assert store.record_round(noisy) is True
        assert store.round(RUN_ID, 2) == noisy
        assert [row.round for row in store.rounds(RUN_ID)][:2] == [1, 2]
    assert path.with_name(f"telemetry.db.before-{REVISION}").exists()


def test_the_noise_of_a_round_is_in_no_view_and_goes_with_its_round(filled: str, path: Path):
    """Who reads rounds or views does not read it; a replaced or deleted round leaves none behind."""
    with closing(open_sqlite(filled)) as store:
        noise = NoiseRecord(noise_stdv=0.5, distance=2.0)
        store.record_round(make_round(2, closed=False, noise=noise))
        store.record_round(make_round(2, closed=False, revision=1))
        store.record_round(make_round(3, noise=noise))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT round FROM round_noise").fetchall() == [(3,)]
        for name in ("rounds", "v_round", "v_run", "v_client_round", "v_report", "v_run_value"):
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            assert columns
            assert not columns & {"noise", "noise_stdv", "distance"}
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM runs")
        assert connection.execute("SELECT * FROM round_noise").fetchall() == []


def test_an_older_file_is_upgraded_after_a_copy(filled: str, path: Path, later: Path):
    """All data is there before and after, and the copy is a whole database of the old schema."""
    before = content(path)
    with closing(open_sqlite(filled, migrations=with_one_more(later))) as store:
        assert store.round(RUN_ID, 1) == make_round(1, clients={"1": 0.5, "2": "missing"})
        assert store.record_round(make_round(2)) is True
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT colour FROM runs").fetchall() == [(None,)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("SELECT count(*) FROM v_client_round").fetchone() == (2,)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO rounds DEFAULT VALUES")
    copy = path.with_name("telemetry.db.before-0008")
    assert content(copy) == before
    with closing(open_sqlite(f"sqlite:///{copy}")) as store:
        assert store.round(RUN_ID, 1).status == "completed"


def test_an_upgraded_file_is_not_copied_again(filled: str, path: Path, later: Path):
    """The copy is of the state before the upgrade and stays that."""
    migrations = with_one_more(later)
    open_sqlite(filled, migrations=migrations).close()
    copy = path.with_name("telemetry.db.before-0008")
    copy.unlink()
    open_sqlite(filled, migrations=migrations).close()
    assert not copy.exists()


def test_an_older_file_without_runs_is_not_copied(path: Path, later: Path):
    """There is nothing to lose."""
    url = f"sqlite:///{path}"
    open_sqlite(url).close()
    open_sqlite(url, migrations=with_one_more(later)).close()
    assert not list(path.parent.glob("*before*"))


def test_a_new_file_gets_the_newest_schema(path: Path, later: Path):
    """All revisions at once."""
    open_sqlite(f"sqlite:///{path}", migrations=with_one_more(later)).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT colour FROM runs").fetchall() == []
        assert connection.execute(f"SELECT * FROM {VERSION_TABLE}").fetchall() == [("0008",)]


@pytest.mark.parametrize(("revision", "says"), [(BROKEN, "made to fail"), (ORPHANS, "upgrade")])
def test_a_failed_upgrade_leaves_the_file_as_it_was(
    filled: str, path: Path, later: Path, revision: str, says: str
):
    """An error half-way, or rows that lost what they refer to: back to the old schema."""
    before = content(path)
    with pytest.raises(Exception, match=says):
        open_sqlite(filled, migrations=with_one_more(later, revision))
    assert content(path) == before
    open_sqlite(filled).close()


def test_a_newer_file_is_refused_and_left_alone(filled: str, path: Path, later: Path):
    """The message says which schema it has and what to do."""
    open_sqlite(filled, migrations=with_one_more(later)).close()
    before = path.read_bytes()
    with pytest.raises(SchemaUnknown, match=r"schema 0008.*newest is 0007.*newer"):
        open_sqlite(filled)
    assert path.read_bytes() == before
