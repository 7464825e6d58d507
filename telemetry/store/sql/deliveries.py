"""Deliveries into a SQL database: each function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, func, insert, select, update

from telemetry.domain import RoundRecord, RunTotals
from telemetry.errors import EndConflict, RunExists, RunNotFound, RunPruned
from telemetry.store import rules
from telemetry.store.deliveries import SERVICE, DeliveredEnd, DeliveredRounds, DeliveredRun
from telemetry.store.sql import mapping, queries, tables

_RUNS = tables.runs.c
_STATE = (
    select(_RUNS.writer, _RUNS.status, _RUNS.ended_at, _RUNS.reason, _RUNS.pruned_at)
    .where(_RUNS.run_id == bindparam("of_run"))
    .with_for_update()
)
_HEARD = update(tables.runs).where(_RUNS.run_id == bindparam("of_run"))


def take_run(connection: Connection, delivery: DeliveredRun, now: datetime) -> int:
    """Store a run that is not there, or hear of one that is."""
    known = connection.execute(queries.one_run(delivery.run_id)).mappings().first()
    if known is None:
        values = {
            **mapping.values_from_info(delivery.info),
            "status": "running",
            "last_seen_at": now,
            "writer": delivery.writer,
        }
        connection.execute(insert(tables.runs).values(values))
        totals = {"run_id": delivery.run_id, **mapping.values_from_totals(RunTotals())}
        connection.execute(insert(tables.run_totals).values(totals))
        return 1
    if known["writer"] != delivery.writer:
        raise RunNotFound(delivery.run_id, (), SERVICE)
    if mapping.info_from_values(known) != delivery.info:
        raise RunExists(delivery.run_id)
    _heard(connection, delivery.run_id, now)
    return 0


def take_rounds(
    connection: Connection,
    delivery: DeliveredRounds,
    now: datetime,
    record: Callable[[Connection, RoundRecord], bool],
) -> int:
    """Store rounds by ``record``; how many were news."""
    state = _locked(connection, delivery.run_id, delivery.writer)
    if state.pruned_at is not None:
        raise RunPruned(delivery.run_id)
    attempts = 0
    if state.ended_at is not None:
        of_run = tables.rounds.c.run_id == delivery.run_id
        attempts = connection.scalar(select(func.max(tables.rounds.c.attempt)).where(of_run)) or 0
    _heard(connection, delivery.run_id, now)
    news = [one for one in delivery.records if record(connection, one)]
    if rules.resumes(state.status, state.ended_at, attempts, news):
        again = {"status": "running", "ended_at": None, "reason": None, "sha256": None}
        connection.execute(_update(delivery.run_id).values(again))
    return len(news)


def take_end(
    connection: Connection,
    delivery: DeliveredEnd,
    now: datetime,
    seal: Callable[[Connection, str], None],
) -> int:
    """End a run, or end it otherwise; 0 if that was known."""
    state = _locked(connection, delivery.run_id, delivery.writer)
    _heard(connection, delivery.run_id, now)
    late = _add_late_reports(connection, delivery) if state.pruned_at is None else 0
    said = delivery.status, delivery.ended_at, delivery.reason
    if (state.status, state.ended_at, state.reason) == said:
        return late
    if not rules.may_end_again(state.status):
        raise EndConflict(delivery.run_id, state.status)
    end = {"status": delivery.status, "ended_at": delivery.ended_at, "reason": delivery.reason}
    connection.execute(_update(delivery.run_id).values(end))
    if state.pruned_at is None:
        seal(connection, delivery.run_id)
    return 1


def _add_late_reports(connection: Connection, delivery: DeliveredEnd) -> int:
    totals = tables.run_totals
    inside = (
        select(func.coalesce(func.sum(tables.rounds.c.reports_late), 0))
        .where(tables.rounds.c.run_id == delivery.run_id, tables.rounds.c.closed)
        .scalar_subquery()
    )
    of_run = totals.c.run_id == delivery.run_id
    # Not where the sum would fall: a counter never does.
    less = totals.c.reports_late < inside + delivery.late_reports
    more = update(totals).where(of_run, less).values(reports_late=inside + delivery.late_reports)
    return min(1, connection.execute(more).rowcount)


def _locked(connection: Connection, run_id: str, writer: str) -> Row[*tuple[Any, ...]]:
    """The state of a writer's run, locked against other writers."""
    found = connection.execute(_STATE, {"of_run": run_id}).first()
    if found is None or found.writer != writer:
        raise RunNotFound(run_id, (), SERVICE)
    return found


def _heard(connection: Connection, run_id: str, now: datetime) -> None:
    """The run's server lives: a delivery is its word."""
    connection.execute(_HEARD, {"of_run": run_id, "last_seen_at": now})


def _update(run_id: str) -> Update:
    return update(tables.runs).where(_RUNS.run_id == run_id)
