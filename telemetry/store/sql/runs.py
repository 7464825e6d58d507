"""Runs in a SQL database: each function works in the transaction of its connection."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from telemetry.domain import Owner, RoundSummary, RunInfo, RunStatus, RunTotals, StoredRun
from telemetry.errors import RunDeleted, RunIsLive, RunNotFound
from telemetry.progress import Tell, counted
from telemetry.store import rules
from telemetry.store.sql import acknowledged, direct, mapping, queries, tables
from telemetry.store.sql.bulk import insert_rows
from telemetry.store.sql.driver import is_sqlite


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedRun:
    """A run that no other writer touches until the end of the transaction."""

    status: RunStatus
    reason: str | None
    ended_at: datetime | None
    pruned_at: datetime | None
    writer: str | None
    totals: RunTotals


def lock(connection: Connection, run_ids: Iterable[str]) -> dict[str, LockedRun]:
    """Those of the runs that are there, by id, kept from other writers until the end.

    Locked in the order of their ids, so that no two who want some of the same wait for each other.
    """
    return {
        run_id: LockedRun(
            status=state["status"],
            reason=state["reason"],
            ended_at=state["ended_at"],
            pruned_at=state["pruned_at"],
            writer=state["writer"],
            totals=totals,
        )
        for run_id, state, totals in direct.lock_runs(connection, run_ids)
    }


def lock_one(connection: Connection, run_id: str, url: str) -> LockedRun:
    """`lock` of a run that has to be there; raises what `not_found` gives."""
    found = lock(connection, [run_id]).get(run_id)
    if found is None:
        raise not_found(connection, run_id, url)
    return found


def require(connection: Connection, run_id: str, url: str) -> None:
    """Raise what `not_found` gives where the run is not there."""
    if (
        connection.scalar(select(tables.runs.c.run_id).where(tables.runs.c.run_id == run_id))
        is None
    ):
        raise not_found(connection, run_id, url)


def not_found(connection: Connection, run_id: str, url: str) -> RunNotFound:
    """The error for a run that is not there, with the newest that are. Raises `RunDeleted`."""
    refuse_deleted(connection, run_id, url)
    newest = connection.execute(queries.newest_run_ids()).scalars().all()
    return RunNotFound(run_id, tuple(newest), url)


def refuse_deleted(connection: Connection, run_id: str, url: str) -> None:
    """Raise `RunDeleted` where a run of that id was."""
    deleted_at = connection.execute(queries.deleted(run_id)).scalar()
    if deleted_at is not None:
        raise RunDeleted(run_id, deleted_at, url)


def load(connection: Connection, run_id: str) -> StoredRun | None:
    """A run; None if it is not there."""
    values = connection.execute(queries.one_run(run_id)).mappings().first()
    return None if values is None else mapping.run_from_values(values)


def insert_run(connection: Connection, info: RunInfo, now: datetime, **held: str | None) -> None:
    """Store a run that is not there, ``running``; ``held`` says by whose ``owner`` or ``writer``."""
    values = {
        **mapping.values_from_info(info),
        "status": "running",
        "last_seen_at": now,
        **held,
    }
    connection.execute(insert(tables.runs).values(values))
    store_totals(connection, {info.run_id: RunTotals()})


def store_totals(connection: Connection, totals: Mapping[str, RunTotals]) -> None:
    """Write the totals of runs."""
    rows = [mapping.totals_row(run_id, of_run) for run_id, of_run in totals.items()]
    insert_rows(connection, tables.run_totals, mapping.TOTALS_COLUMNS, rows, or_update=True)


def seal(connection: Connection, run_id: str) -> None:
    """Write the seal of a run that has ended; of one that runs, nothing."""
    run = load(connection, run_id)
    if run is None or run.ended_at is None:
        return
    rows = connection.execute(queries.rounds_of(run_id, closed_only=True))
    closed = [mapping.summary_from_row(tuple(row)) for row in rows]
    right = {(row.round, row.attempt): row for row in rules.wrongly_added(closed)}
    store_figures(connection, right.values())
    sha256 = rules.sealed(run, [right.get((row.round, row.attempt), row) for row in closed])
    of_run = tables.runs.c.run_id == run_id
    connection.execute(update(tables.runs).where(of_run).values(sha256=sha256))
    acknowledged.reopen(connection, run_id)


def store_figures(connection: Connection, rounds: Iterable[RoundSummary]) -> None:
    """Over those of the same rounds, which are there; the rows of their clients stay."""
    as_text = is_sqlite(connection)
    rows = [
        mapping.round_row(one, one.cumulative_emissions_kg, times_as_text=as_text) for one in rounds
    ]
    insert_rows(connection, tables.rounds, mapping.ROUND_COLUMNS, rows, or_update=True)


def end(
    connection: Connection, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None
) -> None:
    """End a run and seal it; a no-op for one that has ended."""
    running = (tables.runs.c.run_id == run_id) & (tables.runs.c.status == "running")
    facts = {"status": status, "ended_at": ended_at, "reason": reason}
    if connection.execute(update(tables.runs).where(running).values(facts)).rowcount:
        seal(connection, run_id)


def interrupt(connection: Connection, run: StoredRun) -> None:
    """End a run whose server is gone, with its last word."""
    end(connection, run.run_id, "interrupted", run.last_seen_at, rules.GONE)
    of_run = tables.runs.c.run_id == run.run_id
    connection.execute(update(tables.runs).where(of_run).values(owner=None))


def release_gone(connection: Connection, now: datetime, is_alive: Callable[[Owner], bool]) -> None:
    """Let go of runs that have ended and whose owner is gone without doing so."""
    held = connection.execute(queries.held_after_their_end()).mappings().all()
    for run in map(mapping.run_from_values, held):
        if rules.is_gone(run, now, is_alive):
            of_run = tables.runs.c.run_id == run.run_id
            connection.execute(update(tables.runs).where(of_run).values(owner=None))


def take_up(connection: Connection, run_id: str, owner: Owner, now: datetime) -> None:
    """Let a run that ended go on, held by ``owner``."""
    again = {"status": "running", "ended_at": None, "reason": None, "sha256": None}
    held = {"owner": str(owner), "last_seen_at": now}
    of_run = tables.runs.c.run_id == run_id
    connection.execute(update(tables.runs).where(of_run).values(again | held))
    acknowledged.reopen(connection, run_id)


def remove(connection: Connection, run: StoredRun, now: datetime) -> None:
    """Delete a run but for its id and seal; its rows elsewhere go along (ON DELETE CASCADE)."""
    if not rules.may_delete(run, now):
        raise RunIsLive(run.run_id)
    left = {"run_id": run.run_id, "deleted_at": now, "sha256": run.sha256}
    connection.execute(insert(tables.deleted_runs).values(left))
    connection.execute(delete(tables.runs).where(tables.runs.c.run_id == run.run_id))


def prune(
    connection: Connection,
    before: datetime,
    now: datetime,
    tell: Tell,
    *,
    keep_totals: bool,
    spared: Collection[str],
) -> Sequence[str]:
    """See `Store.prune`; the rows of the rounds go along (ON DELETE CASCADE)."""
    query = queries.to_prune(before, keep_totals=keep_totals)
    found = map(mapping.run_from_values, connection.execute(query).mappings().all())
    old = [run for run in found if run.run_id not in spared]
    tell(0, len(old))
    for run in counted(old, tell):
        (_remove_rounds if keep_totals else remove)(connection, run, now)
    return [run.run_id for run in old]


def _remove_rounds(connection: Connection, run: StoredRun, now: datetime) -> None:
    """A run's rounds; its totals and its seal stay."""
    connection.execute(delete(tables.rounds).where(tables.rounds.c.run_id == run.run_id))
    of_run = tables.runs.c.run_id == run.run_id
    connection.execute(update(tables.runs).where(of_run).values(pruned_at=now))
