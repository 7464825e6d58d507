"""What a service has acknowledged, in the tables ``run_deliveries`` and ``round_deliveries``.

Each function works within the transaction of its connection; whoever writes has locked the run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, insert, select, update

from telemetry.domain import Owner, PendingRound, PendingRun
from telemetry.store import rules
from telemetry.store.sql import mapping, queries
from telemetry.store.sql.tables import round_deliveries, run_deliveries, runs


def pending(
    connection: Connection, service: str, now: datetime, owner: Owner | None
) -> list[PendingRun]:
    """See `Store.undelivered`."""
    found = connection.execute(queries.deliverable_runs(service, now, owner)).mappings().all()
    by_id = {values["run_id"]: values for values in found}
    stored = [mapping.run_from_values(values) for values in found]
    chosen = rules.deliverable_runs(stored, now, owner)
    all_of_them = [_pending(connection, service, by_id[run.run_id]) for run in chosen]
    return [run for run in all_of_them if not run.settled]


def unacknowledged(connection: Connection, services: Collection[str]) -> list[str]:
    """See `Store.unacknowledged`."""
    heard_of = connection.execute(select(run_deliveries.c.service).distinct()).scalars().all()
    return sorted(
        {
            run.run_id
            for service in {*services, *heard_of}
            for values in connection.execute(queries.untold_runs(service)).mappings().all()
            if values["known"] or service in services
            if not (run := _pending(connection, service, values)).settled
        }
    )


def know_end(connection: Connection, service: str, run_id: str, ended_at: datetime | None) -> None:
    """The service knows the run, and that it ended then (None: that it goes on)."""
    if connection.execute(queries.delivery_of(service, run_id)).first() is None:
        row = {"service": service, "run_id": run_id, "ended_at": ended_at, "complete": False}
        connection.execute(insert(run_deliveries).values(row))
    else:
        where = _of(service, run_id)
        connection.execute(update(run_deliveries).where(where).values(ended_at=ended_at))
    _settle(connection, service, run_id)


def know_rounds(
    connection: Connection, service: str, run_id: str, rounds: Iterable[tuple[int, int]]
) -> None:
    """The service has these closed rounds."""
    has = {tuple(row) for row in connection.execute(queries.delivered_rounds(service, run_id))}
    new = [
        {"service": service, "run_id": run_id, "round": number, "attempt": attempt}
        for number, attempt in dict.fromkeys(rounds)
        if (number, attempt) not in has
    ]
    if new:
        connection.execute(insert(round_deliveries), new)
    if connection.execute(queries.delivery_of(service, run_id)).first() is None:
        know_end(connection, service, run_id, None)
    else:
        _settle(connection, service, run_id)


def forget(connection: Connection, service: str, run_id: str) -> None:
    """The service has nothing of the run."""
    connection.execute(delete(run_deliveries).where(_of(service, run_id)))
    of_run = and_(round_deliveries.c.service == service, round_deliveries.c.run_id == run_id)
    connection.execute(delete(round_deliveries).where(of_run))


def reopen(connection: Connection, run_id: str) -> None:
    """Something may be left to tell again, to whichever service."""
    where = run_deliveries.c.run_id == run_id
    connection.execute(update(run_deliveries).where(where).values(complete=False))


def _settle(connection: Connection, service: str, run_id: str) -> None:
    """Note whether nothing is left to tell of a run."""
    ended_at = connection.execute(select(runs.c.ended_at).where(runs.c.run_id == run_id)).scalar()
    known_end = connection.execute(queries.delivery_of(service, run_id)).scalar()
    left = connection.execute(queries.pending_rounds(service, run_id).limit(1)).first()
    complete = ended_at is not None and known_end == ended_at and left is None
    connection.execute(update(run_deliveries).where(_of(service, run_id)).values(complete=complete))


def _pending(connection: Connection, service: str, values: RowMapping) -> PendingRun:
    run = mapping.run_from_values(values)
    rows: Sequence[RowMapping] = (
        connection.execute(queries.pending_rounds(service, run.run_id)).mappings().all()
    )
    late = 0
    if run.ended_at is not None:
        late = connection.execute(queries.late_in_rounds(run.run_id)).scalar_one()
    return rules.pending_run(
        run,
        [PendingRound(**dict(row)) for row in rows],
        values["known_end"],
        announced=values["known"],
        late_in_rounds=int(late),
    )


def _of(service: str, run_id: str) -> ColumnElement[bool]:
    return and_(run_deliveries.c.service == service, run_deliveries.c.run_id == run_id)
