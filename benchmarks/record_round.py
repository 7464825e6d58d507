"""`record_round` of a round with 10,000 clients, from its record, against bare inserts of the same rows.

Each client took part and reported once: 10,000 rows in ``participants`` and 10,000 in ``reports``, every
column filled that a full report fills, no two times alike. Storing the record is all that the store does
with it: the checks, every sum, the digest of the rows (`RoundRecord.evidence_sha256`), the rows made of
records, the round's own row, the run's totals, one durable commit.

The other side has the same rows ready as tuples and does nothing but put them into the same two tables of
the same schema, the round's row being there: SQLite by ``sqlite3``'s ``executemany``, with the same
settings of the connection; PostgreSQL by psycopg's text ``COPY``. One durable commit, too.

Each repetition writes into a database of its own, both sides in turns; of PostgreSQL on three servers
started anew. The ratio is the median of the ratios of the pairs.

    python benchmarks/record_round.py [sqlite | postgresql]     (default: both)
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg

from benchmarks._databases import postgres, sqlite_url
from benchmarks.accounting import facts, wire
from telemetry.accounting import account
from telemetry.domain import RoundRecord
from telemetry.store import open_store
from telemetry.store.sql import mapping, tables
from telemetry.store.sql.driver import Row
from telemetry.store.sql.mapping import RoundRows
from telemetry.store.sql.sqlite import WAL_PAGES
from telemetry.testing import OWNER, START, make_run
from tests.postgres import PostgresServer

CLIENTS = 10_000
REPETITIONS = 11
SERVERS = 3
"""Of PostgreSQL, one after the other: against one and the same server the ratio was 0.86 to 1.07."""
MOST = {"SQLite": 1.5, "PostgreSQL": 1.0}
PARTS = (
    ("participants", mapping.PARTICIPANTS.columns),
    ("reports", mapping.REPORTS.columns),
)


def make_record() -> RoundRecord:
    """A closed round in which each of them reported."""
    record = account(facts([wire(node) for node in range(CLIENTS)]))

    def later(node: int, seconds: float) -> timedelta:
        return timedelta(seconds=seconds, microseconds=1237 * node)

    participants = tuple(
        replace(one, sent_at=START + later(n, 0), replied_at=START + later(n, 45))
        for n, one in enumerate(record.participants)
    )
    reports = tuple(
        replace(one, started_at=START + later(n, 2), ended_at=START + later(n, 32))
        for n, one in enumerate(record.reports)
    )
    return record.model_copy(
        update={"participants": participants, "reports": reports, "sequence": 1}
    )


def timed_s(work: Callable[[], object]) -> float:
    """How long it takes; the garbage is collected before."""
    gc.collect()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ours_s(url: str, record: RoundRecord) -> float:
    """`record_round` into an empty store."""
    with closing(open_store(url)) as store:
        store.start_run(make_run(record.run_id), OWNER, START)
        fresh = record.model_copy()  # nothing of it is worked out yet
        return timed_s(lambda: store.record_round(fresh))


def rows_of(record: RoundRecord, *, times_as_text: bool) -> RoundRows:
    """What the store makes of it."""
    summary = record.summary()
    total = summary.total_emissions_kg
    rows = mapping.rows_from_round(record, summary, total, times_as_text=times_as_text)
    return replace(rows, participants=list(rows.participants), reports=list(rows.reports))


def bare_sqlite_s(url: str, record: RoundRecord, rows: RoundRows) -> float:
    """The rows by ``executemany``."""
    with closing(open_store(url)) as store:  # makes the schema
        store.start_run(make_run(record.run_id), OWNER, START)
    database = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    with closing(database):
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        database.execute(insert("rounds", mapping.ROUND_COLUMNS, "?"), rows.round)

        def write() -> None:
            database.execute("BEGIN IMMEDIATE")
            for name, columns in PARTS:
                database.executemany(insert(name, columns, "?"), part(rows, name))
            database.execute("COMMIT")

        return timed_s(write)


def bare_postgres_s(url: str, record: RoundRecord, rows: RoundRows) -> float:
    """The rows by text ``COPY``."""
    with closing(open_store(url)) as store:
        store.start_run(make_run(record.run_id), OWNER, START)
    with psycopg.connect(url) as connection:
        connection.execute(insert("rounds", mapping.ROUND_COLUMNS, "%s"), rows.round)
        connection.commit()

        def write() -> None:
            with connection.cursor() as cursor:
                for name, columns in PARTS:
                    text = f"COPY {name} ({', '.join(columns)}) FROM STDIN"
                    with cursor.copy(text) as copy:
                        for row in part(rows, name):
                            copy.write_row(row)
            connection.commit()

        return timed_s(write)


def insert(table: str, columns: tuple[str, ...], mark: str) -> str:
    """The statement for one row."""
    marks = ", ".join([mark] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608  # our names


def part(rows: RoundRows, table: str) -> list[Row]:
    """The rows of one of the two tables."""
    found = rows.participants if table == tables.participants.name else rows.reports
    assert isinstance(found, list)
    return found


@contextmanager
def empty_postgres(server: PostgresServer) -> Iterator[str]:
    """URL of a database that is gone afterwards."""
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


Pair = tuple[float, float]
"""Bare and ours, seconds."""


def pairs_of(ours: Callable[[], float], bare: Callable[[], float]) -> list[Pair]:
    """Both sides in turns."""
    return [(bare(), ours()) for _ in range(REPETITIONS + 1)][1:]  # the first warms up


def on_sqlite(record: RoundRecord) -> list[Pair]:
    """Each in a file of its own."""

    def in_file(work: Callable[..., float], **options: Any) -> float:
        with sqlite_url() as url:
            return work(url, record, **options)

    rows = rows_of(record, times_as_text=True)
    return pairs_of(partial(in_file, ours_s), partial(in_file, bare_sqlite_s, rows=rows))


def on_postgres(record: RoundRecord) -> list[Pair]:
    """Each in a database of its own; none without a server."""
    rows = rows_of(record, times_as_text=False)
    pairs: list[Pair] = []
    for _ in range(SERVERS):
        with postgres() as server:
            if server is not None:

                def in_database(
                    work: Callable[..., float], server: PostgresServer = server, **options: Any
                ) -> float:
                    with empty_postgres(server) as url:
                        return work(url, record, **options)

                bare = partial(in_database, bare_postgres_s, rows=rows)
                pairs += pairs_of(partial(in_database, ours_s), bare)
    return pairs


def is_missed(kind: str, pairs: list[Pair]) -> bool:
    """Print both sides and the ratio; whether the target is missed."""
    bare_s, ours_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / bare for bare, ours in pairs)
    print(
        f"{kind}: record_round {ours_s * 1e3:.0f} ms, bare {bare_s * 1e3:.0f} ms: "
        f"{ratio:.2f} x (target: at most {MOST[kind]:.2f}; median of {len(pairs)})"
    )
    return ratio > MOST[kind]


KINDS = {"SQLite": on_sqlite, "PostgreSQL": on_postgres}


def main() -> int:
    """Print the ratios; 1 where one is above its target."""
    wanted = [word.lower() for word in sys.argv[1:]]
    record = make_record()
    print(f"{CLIENTS:,} participants and {CLIENTS:,} reports")
    missed = False
    for kind, measured in KINDS.items():
        if not wanted or kind.lower() in wanted:
            pairs = measured(record)
            missed |= bool(pairs) and is_missed(kind, pairs)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
