"""Accounting of a round of 10,000 reports, against validating those reports once.

Accounting is all that makes a closed round's stored row from what was received: `account`, with the
host rule and the marks, and ``.summary()`` with every sum and the histogram. The other side is one
pydantic list adapter over the same 10,000 wire records of 16 fields: the least that anyone who
trusts no client has to do. Both in this process, in turns, the median of several; the garbage is
collected before each, not during it.

The digest of the rows (`RoundRecord.evidence_sha256`) is listed by itself: it is the seal's, and made
once a round, as is writing the round (SQLite, beside a bare ``executemany`` of the same report rows).

Target: accounting takes at most 2.0 times as long as the validation.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from telemetry.accounting import ParticipantFacts, ReceivedReport, RoundFacts, Rules, account
from telemetry.domain import ReportRecord, RoundRecord, field_names
from telemetry.domain.evidence import rows_sha256
from telemetry.marks import BareHistory
from telemetry.reports import ClientReport, read_report
from telemetry.store import open_store
from telemetry.testing import FACTORS, OWNER, START, make_lap, make_run

CLIENTS = 10_000
REPETITIONS = 21
SLOW_REPETITIONS = 5
MOST = 2.0
BEGIN = START.timestamp()


def wire(node: int) -> dict[str, Any]:
    """A full report, as our client helper sends it; every fourth client shares a host."""
    energy = 1e-3 * (1 + node % 97 / 97)
    return {
        "schema": 1, "emissions_kg": energy * 0.174, "energy_kwh": energy, "cpu_kwh": energy * 0.6,
        "gpu_kwh": energy * 0.3, "ram_kwh": energy * 0.1, "duration_s": 30.0,
        "started_at": f"2026-01-02T03:04:{5 + node % 7:02}.000001Z",
        "ended_at": f"2026-01-02T03:04:{35 + node % 7:02}.500001Z", "country": "ESP",
        "carbon_intensity_g_per_kwh": 174.0, "sensor": "rapl", "scope": "machine",
        "host_id": f"{node // 4 + 1:012x}", "client_name": f"client {node}",
        "tracker": "codecarbon 3.3.2",
    }  # fmt: skip


def facts(wires: list[dict[str, Any]]) -> RoundFacts:
    """What the server knows at the end of a round in which each of them reported."""
    received = [
        ReceivedReport(
            node_id=str(node), client=f"c-{node:08x}", phase="train", reported_round=1, late=False,
            report=read_report(values), sent_at=BEGIN, replied_at=BEGIN + 50, loopback=False,
        )
        for node, values in enumerate(wires)
    ]  # fmt: skip
    clients = [
        ParticipantFacts(
            node_id=str(node), client=f"c-{node:08x}", train=True, examples=100, sent_at=BEGIN,
            replied_at=BEGIN + 50, loopback=False, bytes_to=400_000, bytes_from=400_000,
        )
        for node in range(len(wires))
    ]  # fmt: skip
    return RoundFacts(
        run_id="20260102-030405-abcdef", round=1, attempt=1, revision=1, closed=True, tracked=True,
        status="completed", reason=None, started_at=BEGIN, ended_at=BEGIN + 60,
        connected=len(wires), factors=FACTORS, server_host_id="5e5e5e5e5e5e", rules=Rules(),
        participants=clients, reports=received, laps=(make_lap(0.01),),
        history=BareHistory().of, sequence=2,
    )  # fmt: skip


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of one call: on a shared machine, wall time is mostly the others'."""
    gc.collect()
    gc.disable()
    begin = time.process_time()
    work()
    taken = time.process_time() - begin
    gc.enable()
    return taken


def median_s(work: Callable[[], object], repetitions: int = REPETITIONS) -> float:
    """Median CPU time of several calls."""
    return statistics.median(cpu_s(work) for _ in range(repetitions))


def write_a_round(directory: Path, name: str, record: RoundRecord) -> float:
    """CPU time of `record_round` on a new SQLite store."""
    with closing(open_store(f"sqlite:///{directory / name}")) as store:
        store.start_run(make_run(record.run_id), OWNER, START)
        return cpu_s(lambda: store.record_round(record))


def write_bare_rows(directory: Path, name: str, record: RoundRecord) -> float:
    """CPU time of the same report rows by ``executemany`` into a table without any index."""
    columns = field_names(ReportRecord)
    values = attrgetter(*columns)
    rows = [
        tuple(v.isoformat() if isinstance(v, datetime) else v for v in values(row))
        for row in record.reports
    ]
    marks = ", ".join("?" * len(columns))
    with closing(sqlite3.connect(directory / name)) as database:
        database.execute(f"CREATE TABLE report ({', '.join(columns)})")

        def write() -> None:
            database.executemany(f"INSERT INTO report VALUES ({marks})", rows)  # noqa: S608
            database.commit()

        return cpu_s(write)


def main() -> int:
    """Print every figure; 1 if the ratio is above its target."""
    wires = [wire(node) for node in range(CLIENTS)]
    validate = TypeAdapter(list[ClientReport]).validate_python
    closed = facts(wires)
    # An open round has no digest: that one is listed by itself.
    still_open = replace(closed, closed=False, status="running")
    pairs = [
        (cpu_s(lambda: validate(wires)), cpu_s(lambda: account(still_open).summary()))
        for _ in range(REPETITIONS)
    ]
    validating, accounting = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / theirs for theirs, ours in pairs)
    record = account(closed)
    digest = median_s(
        lambda: rows_sha256(record.participants, record.reports, record.laps), SLOW_REPETITIONS
    )
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        takes = range(SLOW_REPETITIONS)
        stored = statistics.median(write_a_round(directory, f"s{i}.db", record) for i in takes)
        bare = statistics.median(write_bare_rows(directory, f"b{i}.db", record) for i in takes)

    print(f"{CLIENTS:,} reports, CPU time, medians")
    print(f"validate once (pydantic list adapter)  {validating * 1e3:8.1f} ms")
    print(f"account and sum up                     {accounting * 1e3:8.1f} ms   {ratio:.2f} x")
    print(f"digest of the rows, once a round       {digest * 1e3:8.1f} ms")
    print(f"record_round, SQLite                   {stored * 1e3:8.1f} ms")
    print(f"bare executemany of the report rows    {bare * 1e3:8.1f} ms")
    print(f"target: account and sum up in at most {MOST:.1f} x of the validation")
    return int(ratio > MOST)


if __name__ == "__main__":
    sys.exit(main())
