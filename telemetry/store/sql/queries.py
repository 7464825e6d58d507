"""The questions that `SqlStore` asks, as SQLAlchemy statements; nothing here is executed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    false,
    func,
    or_,
    select,
    true,
)

from telemetry.domain import Owner
from telemetry.store.base import LEASE_EXPIRES_S
from telemetry.store.sql import mapping
from telemetry.store.sql.mapping import RecordTable, RoundKey
from telemetry.store.sql.tables import (
    deleted_runs,
    participants,
    reports,
    round_deliveries,
    round_noise,
    rounds,
    run_deliveries,
    run_totals,
    runs,
    training_metrics,
)

Query = Select[*tuple[Any, ...]]

CHUNK_ROWS: Final = 1000
"""Rows fetched at a time by whoever streams."""
_CANDIDATES: Final = 5
_ROUND: Final = [rounds.c[name] for name in mapping.ROUND_COLUMNS]
_TOTALS: Final = [column for column in run_totals.c if column.name != "run_id"]
_RUN: Final = select(*runs.c, *_TOTALS).join_from(runs, run_totals)


# --- runs --------------------------------------------------------------------------------------


def one_run(run_id: str) -> Query:
    """A run with its totals."""
    return _RUN.where(runs.c.run_id == run_id)


def all_runs() -> Query:
    """Every run with its totals, newest start first."""
    return _RUN.order_by(runs.c.started_at.desc(), runs.c.run_id.desc())


def page_of_runs(limit: int, start: tuple[datetime, str] | None) -> Query:
    """Runs with totals from ``start`` on, newest start first."""
    query = all_runs().limit(limit)
    if start is None:
        return query
    began, run_id = start
    same = and_(runs.c.started_at == began, runs.c.run_id <= run_id)
    return query.where(or_(runs.c.started_at < began, same))


def running_runs() -> Query:
    """Runs that have not ended and that servers write here themselves, locked against others."""
    here = runs.c.status == "running", runs.c.writer.is_(None)
    return _RUN.where(*here).order_by(runs.c.run_id).with_for_update()


def held_after_their_end() -> Query:
    """Runs that have ended and whose owner has not let go of them, locked against others."""
    held = runs.c.ended_at.is_not(None), runs.c.owner.is_not(None)
    return _RUN.where(*held).order_by(runs.c.run_id).with_for_update()


def pruned_at(run_id: str) -> Query:
    """When a run's rounds were deleted; NULL while they are kept."""
    return select(runs.c.pruned_at).where(runs.c.run_id == run_id)


def to_prune(before: datetime, *, keep_totals: bool) -> Query:
    """Runs that ended before then, locked against others; those that still have their rounds only,
    where nothing else is to go."""
    left = runs.c.pruned_at.is_(None) if keep_totals else true()
    return _RUN.where(runs.c.ended_at < before, left).order_by(runs.c.run_id).with_for_update()


def newest_run_ids() -> Query:
    """What to name when a run is not found."""
    newest_first = runs.c.started_at.desc(), runs.c.run_id.desc()
    return select(runs.c.run_id).order_by(*newest_first).limit(_CANDIDATES)


def deleted(run_id: str) -> Query:
    """When a run of that id was deleted."""
    return select(deleted_runs.c.deleted_at).where(deleted_runs.c.run_id == run_id)


def exposed_runs(now: datetime, owner: Owner | None, max_runs: int) -> Query:
    """The runs that ``/metrics`` of ``owner`` shows, with totals, oldest start first."""
    oldest_first = _RUN.order_by(runs.c.started_at, runs.c.run_id)
    if owner is None:
        return oldest_first
    mine, unheld = runs.c.owner == str(owner), _unheld(now, owner)
    last_ended = (
        select(runs.c.run_id)
        .where(runs.c.ended_at.is_not(None), unheld, _comes_first(now, owner))
        .order_by(runs.c.ended_at.desc(), runs.c.run_id.desc())
        .limit(max_runs)
    )
    return oldest_first.where(or_(mine, runs.c.run_id.in_(last_ended)))


def _comes_first(now: datetime, owner: Owner) -> ColumnElement[bool]:
    """Whether it is ``owner`` among the living who shows the runs that nobody holds (`rules`)."""
    first = (
        select(runs.c.owner)
        .where(or_(runs.c.owner == str(owner), ~_unheld(now, None)))
        .order_by(runs.c.started_at, runs.c.run_id)
        .limit(1)
        .scalar_subquery()
    )
    return func.coalesce(first, str(owner)) == str(owner)


def _unheld(now: datetime, owner: Owner | None) -> ColumnElement[bool]:
    """That no live owner but ``owner`` holds a run."""
    expired = runs.c.last_seen_at < now - timedelta(seconds=LEASE_EXPIRES_S)
    if owner is not None:
        expired = and_(runs.c.owner != str(owner), expired)
    return or_(runs.c.owner.is_(None), expired)


# --- rounds ------------------------------------------------------------------------------------


def of_round(table: Table, key: RoundKey) -> ColumnElement[bool]:
    """That a row belongs to one round."""
    run_id, number, attempt = key
    return and_(table.c.run_id == run_id, table.c.round == number, table.c.attempt == attempt)


_KEY: Final = and_(
    rounds.c.run_id == bindparam("run_id"),
    rounds.c.round == bindparam("round"),
    rounds.c.attempt == bindparam("attempt"),
)
ROUND: Final = select(*_ROUND).where(_KEY)
"""The flat row of one round. Built once, like all in capitals here: asked for again and again, and
building a statement takes longer than the database needs for it."""
DELETE_ROUND: Final = delete(rounds).where(_KEY)


def key_of(key: RoundKey) -> dict[str, Any]:
    """What `ROUND`, `NOISE` and `DELETE_ROUND` are executed with."""
    return dict(zip(("run_id", "round", "attempt"), key, strict=True))


def last_attempt(run_id: str, round_number: int) -> Query:
    """The number of a round's last attempt; NULL if it is not stored."""
    return select(func.max(rounds.c.attempt)).where(
        rounds.c.run_id == run_id, rounds.c.round == round_number
    )


def records_of(kind: RecordTable[Any], key: RoundKey) -> Query:
    """One round's records of a kind, in the order in which they were recorded."""
    columns = [kind.table.c[name] for name in kind.columns]
    return select(*columns).where(of_round(kind.table, key)).order_by(kind.table.c[kind.place])


def metrics_of(key: RoundKey) -> Query:
    """One round's training metrics."""
    columns = [training_metrics.c[name] for name in mapping.METRIC_COLUMNS]
    return select(*columns).where(of_round(training_metrics, key))


NOISE: Final = select(*(round_noise.c[name] for name in mapping.NOISE_COLUMNS)).where(
    round_noise.c.run_id == bindparam("run_id"),
    round_noise.c.round == bindparam("round"),
    round_noise.c.attempt == bindparam("attempt"),
)
"""The noise of one round, if it has one."""


def open_rounds(run_id: str) -> Query:
    """(round, attempt) of a run's open rounds, in their order."""
    key = rounds.c.round, rounds.c.attempt
    return select(*key).where(rounds.c.run_id == run_id, ~rounds.c.closed).order_by(*key)


def rounds_of(run_id: str, *, closed_only: bool, start: tuple[int, int] | None = None) -> Query:
    """A run's rounds from ``start`` on, flat, by (round, attempt)."""
    query = select(*_ROUND).where(rounds.c.run_id == run_id, _from(rounds, start))
    query = query.where(rounds.c.closed) if closed_only else query
    return query.order_by(rounds.c.round, rounds.c.attempt)


def _from(table: Table, start: tuple[int, int] | None) -> ColumnElement[bool]:
    """That a row belongs to the round and attempt ``start``, or to a later one."""
    if start is None:
        return true()
    number, attempt = start
    same = and_(table.c.round == number, table.c.attempt >= attempt)
    return or_(table.c.round > number, same)


def reports_of(run_id: str, start: tuple[int, int] | None = None) -> Query:
    """(round, attempt, *report) of a run's closed rounds from ``start`` on, by key."""
    key = reports.c.round, reports.c.attempt
    order = reports.c.node_id, reports.c.phase, reports.c.reported_round
    found = _of_closed(mapping.REPORTS, run_id).where(_from(reports, start))
    return found.order_by(*key, *order)


def participants_of(run_id: str) -> Query:
    """(round, attempt, *participant) of a run's closed rounds, by key."""
    key = participants.c.round, participants.c.attempt
    return _of_closed(mapping.PARTICIPANTS, run_id).order_by(*key, participants.c.node_id)


def _of_closed(kind: RecordTable[Any], run_id: str) -> Query:
    table = kind.table
    columns = [table.c[name] for name in ("round", "attempt", *kind.fields)]
    closed = (
        select(rounds.c.run_id)
        .where(
            rounds.c.closed,
            rounds.c.run_id == table.c.run_id,
            rounds.c.round == table.c.round,
            rounds.c.attempt == table.c.attempt,
        )
        .exists()
    )
    return select(*columns).where(table.c.run_id == run_id, closed)


def open_rounds_of(run_ids: Iterable[str]) -> Query:
    """The open rounds of runs, flat, by key."""
    of_runs = rounds.c.run_id.in_(sorted(run_ids))
    key = rounds.c.run_id, rounds.c.round, rounds.c.attempt
    return select(*_ROUND).where(of_runs, ~rounds.c.closed).order_by(*key)


def exposed_rounds(run_ids: Iterable[str], max_rounds: int) -> Query:
    """Of each run the last closed rounds from 1 on, oldest first.

    Of several attempts at a round the last counts. Keys are numbered first and joined with their
    rows afterwards, so that the wide rows are not sorted.
    """
    key = rounds.c.run_id, rounds.c.round, rounds.c.attempt
    attempt_no = func.row_number().over(
        partition_by=(rounds.c.run_id, rounds.c.round), order_by=rounds.c.attempt.desc()
    )
    attempts = (
        select(*key, attempt_no.label("attempt_no"))
        .where(rounds.c.run_id.in_(sorted(run_ids)), rounds.c.round > 0, rounds.c.closed)
        .subquery()
    )
    round_no = func.row_number().over(
        partition_by=attempts.c.run_id, order_by=attempts.c.round.desc()
    )
    numbered = select(attempts, round_no.label("round_no")).where(attempts.c.attempt_no == 1)
    last = numbered.subquery()
    same = and_(*(rounds.c[c.name] == last.c[c.name] for c in key))
    return (
        select(*_ROUND)
        .join_from(last, rounds, same)
        .where(last.c.round_no <= max_rounds)
        .order_by(*key)
    )


# --- what a service has acknowledged -------------------------------------------------------------


def deliverable_runs(service: str, now: datetime, owner: Owner | None) -> Query:
    """`untold_runs` that ``owner`` delivers."""
    held = _unheld(now, owner)
    if owner is not None:
        held = or_(runs.c.owner == str(owner), held)
    return untold_runs(service).where(held)


def untold_runs(service: str) -> Query:
    """Runs with totals of which something may be left to tell, whoever holds them.

    With ``known`` (whether the service knows the run) and ``known_end`` (the end that it knows).
    """
    told = and_(run_deliveries.c.service == service, run_deliveries.c.run_id == runs.c.run_id)
    return (
        _RUN.add_columns(
            run_deliveries.c.run_id.is_not(None).label("known"),
            run_deliveries.c.ended_at.label("known_end"),
        )
        .outerjoin(run_deliveries, told)
        .where(
            runs.c.client_rows,
            runs.c.pruned_at.is_(None),
            func.coalesce(run_deliveries.c.complete, false()).is_(False),
        )
    )


def delivery_of(service: str, run_id: str) -> Query:
    """(ended_at) as the service knows it; no row where it does not know the run."""
    return select(run_deliveries.c.ended_at).where(
        run_deliveries.c.service == service, run_deliveries.c.run_id == run_id
    )


def pending_rounds(service: str, run_id: str) -> Query:
    """Fields of `PendingRound` of the closed rounds that the service has not acknowledged."""
    has = round_deliveries
    known = (
        select(has.c.run_id)
        .where(
            has.c.service == service,
            has.c.run_id == rounds.c.run_id,
            has.c.round == rounds.c.round,
            has.c.attempt == rounds.c.attempt,
        )
        .exists()
    )
    return select(
        rounds.c.round,
        rounds.c.attempt,
        rounds.c.ended_at,
        rounds.c.started_at,
        rounds.c.cumulative_emissions_kg,
        rounds.c.sequence,
    ).where(rounds.c.run_id == run_id, rounds.c.closed, rounds.c.client_rows, ~known)


def delivered_rounds(service: str, run_id: str) -> Query:
    """(round, attempt) of what the service has acknowledged of a run."""
    has = round_deliveries
    return select(has.c.round, has.c.attempt).where(
        has.c.service == service, has.c.run_id == run_id
    )


def late_in_rounds(run_id: str) -> Query:
    """How many late reports stand in a run's closed rounds."""
    late = func.coalesce(func.sum(rounds.c.reports_late), 0)
    return select(late).where(rounds.c.run_id == run_id, rounds.c.closed)
