"""Export of 1,000,000 clients' reports as CSV, against ``csv.writer`` fed from a bare cursor.

Ours is what its user runs, ``fedserver runs export RUN --format clients-csv -o FILE``, and what a service
streams at ``/api/v1/runs/RUN/export?format=clients-csv``: both write by the same exporter. Its memory is
that of the whole process at its largest (``VmHWM``).

The other side is a process that imports the database's driver and ``csv`` and hands the cursor with the
same columns in the same order to ``csv.writer.writerows``; on PostgreSQL a cursor of the server's, 1,000
rows at a time. It neutralises nothing, names no outcome, and writes times as the driver gives them: text
on SQLite, ``str`` of a time on PostgreSQL, where ours writes two ISO times a row.

Times are of whole processes, their start included, into a file; sides take turns, the ratio is of medians.
The rows are put straight into the tables (100 rounds of 10,000 reports, full ones) and are gone afterwards.

    python benchmarks/export.py [sqlite] [postgresql]     (default: sqlite; each takes over a minute)
"""

from __future__ import annotations

import http.client
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from benchmarks._databases import postgres, sqlite_url
from benchmarks.record_round import insert, make_record, rows_of
from telemetry.store import open_store
from telemetry.store.sql import mapping
from telemetry.store.sql.driver import Row
from telemetry.testing import OWNER, START, make_run

ROUNDS = 100
"""Of 10,000 reports each."""
PASSES = {"SQLite": 2, "PostgreSQL": 1}
LEAST = 0.55
MOST_MB = 100
LOOK_S = 0.02
RUN = "20260102-030405-abcdef"
COLUMNS = mapping.REPORTS.columns
BARE = (
    "run_id, (SELECT run_name FROM runs WHERE runs.run_id = reports.run_id), round, attempt, "
    "reported_round, client, phase, late, rejection, rejected_value, emissions_kg, energy_kwh, "
    "cpu_kwh, gpu_kwh, ram_kwh, counted_emissions_kg, counted_energy_kwh, on_server_host, duration_s, "
    "started_at, ended_at, country, carbon_intensity_g_per_kwh, sensor, scope, tracker, "
    "schema_version, dropped_fields, outlier"
)
"""As many cells a row as ours has."""
QUERY = (
    f"SELECT {BARE} FROM reports ORDER BY run_id, round, attempt, node_id, phase, reported_round"  # noqa: S608
)


# --- rows ------------------------------------------------------------------------------------------


def rounds(*, times_as_text: bool) -> Iterator[tuple[Row, list[Row]]]:
    """A round's row and its reports', again and again with the next number."""
    rows = rows_of(make_record(), times_as_text=times_as_text)
    reports = list(rows.reports)
    number = mapping.ROUND_COLUMNS.index("round")
    for place in range(1, ROUNDS + 1):
        head = (*rows.round[:number], place, *rows.round[number + 1 :])
        yield head, [(row[0], place, *row[2:]) for row in reports]


def begin(url: str) -> None:
    """Make the schema and the run."""
    with closing(open_store(url)) as store:
        store.start_run(make_run(RUN), OWNER, START)


def fill_sqlite(url: str) -> None:
    """A file with all of the rows."""
    begin(url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.execute("PRAGMA synchronous = OFF")
        for head, reports in rounds(times_as_text=True):
            database.execute(insert("rounds", mapping.ROUND_COLUMNS, "?"), head)
            reports.sort(key=lambda row: row[COLUMNS.index("node_id")])
            database.executemany(insert("reports", COLUMNS, "?"), reports)
            database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill_postgres(url: str) -> None:
    """A database with all of the rows."""
    begin(url)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for head, reports in rounds(times_as_text=False):
            cursor.execute(insert("rounds", mapping.ROUND_COLUMNS, "%s"), head)
            with cursor.copy(f"COPY reports ({', '.join(COLUMNS)}) FROM STDIN") as copy:
                for row in reports:
                    copy.write_row(row)
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE rounds, reports")


# --- sides -----------------------------------------------------------------------------------------


def run(*command: str) -> tuple[float, float]:
    """Run a command to its end: seconds, and MB resident at its largest."""
    largest = 0.0
    begin = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        # Not `ru_maxrss` of a child: it counts what its parent had when it was started.
        while process.poll() is None:
            with suppress(OSError, StopIteration):  # it has just ended
                largest = resident_mb(process.pid, "VmHWM")
            time.sleep(LOOK_S)
    taken = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return taken, largest


def ours(url: str, path: Path) -> tuple[float, float]:
    """The command that a user runs."""
    target = ("--format", "clients-csv", "--output", str(path), "--store", url)
    return run(sys.executable, "-m", "fedserver", "runs", "export", RUN, *target)


def bare(url: str, path: Path) -> tuple[float, float]:
    """The other side."""
    return run(
        sys.executable, str(Path(__file__).with_name("_bare_export.py")), url, QUERY, str(path)
    )


@contextmanager
def service(url: str) -> Iterator[tuple[int, str]]:
    """A service over the store: its process, and where it answers."""
    command = (sys.executable, "-m", "fedserver", "telemetry", "serve", "--port", "0")
    with subprocess.Popen(
        [*command, "--store", url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.pid, urlsplit(process.stdout.readline().split()[-1]).netloc
        finally:
            process.terminate()


def streamed(url: str) -> tuple[float, int, float, float]:
    """By a service: seconds, bytes, and MB resident before and at its largest."""
    with service(url) as (process, address), closing(http.client.HTTPConnection(address)) as to:
        before = resident_mb(process, "VmRSS")
        begin = time.perf_counter()
        to.request("GET", f"/api/v1/runs/{RUN}/export?format=clients-csv")
        answer = to.getresponse()
        size = 0
        while part := answer.read(1 << 16):
            size += len(part)
        return time.perf_counter() - begin, size, before, resident_mb(process, "VmHWM")


def resident_mb(process: int, what: str) -> float:
    """A line of ``/proc/…/status``, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def measure(kind: str, url: str) -> bool:
    """Print the figures of one database; whether a target is missed."""
    with tempfile.TemporaryDirectory(prefix="fl-bench-") as folder:
        path = Path(folder) / "clients.csv"
        pairs = []
        for _ in range(PASSES[kind]):
            bare_s, _ = bare(url, path)
            ours_s, resident = ours(url, path)
            pairs.append((bare_s, ours_s, resident))
        size = path.stat().st_size
        with path.open(encoding="utf-8") as written:
            lines = sum(1 for _ in written)
    bare_s, ours_s = (statistics.median(side) for side in list(zip(*pairs, strict=True))[:2])
    resident = max(pair[2] for pair in pairs)
    speed = bare_s / ours_s
    print(
        f"{kind}: {lines - 1:,} rows, {size / 1e6:.0f} MB in {ours_s:.1f} s, bare {bare_s:.1f} s: "
        f"{speed:.2f} of its speed (target: at least {LEAST}), {resident:.0f} MB resident "
        f"(target: below {MOST_MB})"
    )
    stream_s, stream_size, before, largest = streamed(url)
    print(
        f"{kind}, by a service: {stream_size / 1e6:.0f} MB in {stream_s:.1f} s, {largest:.0f} MB "
        f"resident, {before:.0f} MB before (target: below {MOST_MB})"
    )
    complete = lines == ROUNDS * 10_000 + 1 and stream_size == size
    if not complete:
        print("the export is not complete", file=sys.stderr)
    return speed < LEAST or max(resident, largest) >= MOST_MB or not complete


def main() -> int:
    """Print all figures; 1 where a target is missed."""
    wanted = [word.lower() for word in sys.argv[1:]] or ["sqlite"]
    missed = False
    if "sqlite" in wanted:
        with sqlite_url() as url:
            fill_sqlite(url)
            missed |= measure("SQLite", url)
    if "postgresql" in wanted:
        with postgres() as server:
            if server is not None:
                url = server.url(server.create_database())
                fill_postgres(url)
                missed |= measure("PostgreSQL", url)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
