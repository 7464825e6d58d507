"""Deliveries into a SQL database, as many as came together, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from telemetry.domain import RoundRecord
from telemetry.errors import (
    EndConflict,
    RunExists,
    RunNotFound,
    RunPruned,
    TelemetryError,
)
from telemetry.store import rules
from telemetry.store.deliveries import (
    SERVICE,
    DeliveredEnd,
    DeliveredRounds,
    DeliveredRun,
    Delivery,
)
from telemetry.store.sql import direct, mapping, queries, runs, tables
from telemetry.store.sql.rounds import RoundBatch


def take_all(
    connection: Connection, url: str, given: Sequence[Delivery], now: datetime
) -> list[int | TelemetryError]:
    """See `Store.deliver`: of each what was news in it, or why nothing of it is stored.

    Whatever the database itself refuses is raised, and the transaction is then lost as a whole.
    """
    # By run, as another service does that has some of the same: no two wait for each other.
    order = sorted(range(len(given)), key=lambda place: given[place].run_id)
    came_to: list[int | TelemetryError] = [0] * len(given)
    group = _Group(connection, url, given, now)
    for place in order:
        try:
            came_to[place] = group.take(given[place])
        except TelemetryError as error:  # of what was asked, before anything of it was written
            came_to[place] = error
    group.write()
    return came_to


class _Group:
    """Deliveries of one transaction. Rounds wait, and are written with those of other runs.

    Whatever a delivery may be refused for is found before anything of it is written.
    """

    def __init__(
        self, connection: Connection, url: str, given: Sequence[Delivery], now: datetime
    ) -> None:
        self._connection = connection
        self._url = url
        self._now = now
        self._runs = runs.lock(connection, (delivery.run_id for delivery in given))
        self._totals = {run_id: run.totals for run_id, run in self._runs.items()}
        self._rounds = RoundBatch(connection, url, self._totals)
        self._rounds.look_up(
            record
            for delivery in given
            if isinstance(delivery, DeliveredRounds) and delivery.run_id in self._runs
            for record in delivery.records
        )
        self._heard: set[str] = set()

    def take(self, delivery: Delivery) -> int:
        """Store a delivery, or let it wait for `write`: how much of it was news."""
        match delivery:
            case DeliveredRun():
                return self._take_run(delivery)
            case DeliveredRounds():
                return self._take_rounds(delivery)
            case DeliveredEnd():
                return self._take_end(delivery)

    def write(self) -> None:
        """Store what waits."""
        for run_id in self._rounds.write():
            # Closed after the end: that renews the seal.
            if self._runs[run_id].ended_at is not None:
                runs.seal(self._connection, run_id)
        if self._heard:  # each delivery is a word of the run's server
            direct.hear(self._connection, self._heard, self._now)
            self._heard.clear()

    def _take_run(self, delivery: DeliveredRun) -> int:
        run_id = delivery.run_id
        known = self._connection.execute(queries.one_run(run_id)).mappings().first()
        if known is None:
            runs.refuse_deleted(self._connection, run_id, self._url)
            runs.insert_run(self._connection, delivery.info, self._now, writer=delivery.writer)
            self._look_again(run_id)
            return 1
        if known["writer"] != delivery.writer:
            raise RunNotFound(run_id, (), SERVICE)
        if mapping.info_from_values(known) != delivery.info:
            raise RunExists(run_id)
        self._heard.add(run_id)
        return 0

    def _take_rounds(self, delivery: DeliveredRounds) -> int:
        run = self._of_writer(delivery)
        if run.pruned_at is not None:
            raise RunPruned(delivery.run_id)
        if run.ended_at is None:
            news = self._rounds.take(delivery.records)
        else:
            news = self._take_after_the_end(delivery, run)
        self._heard.add(delivery.run_id)
        return len(news)

    def _take_after_the_end(
        self, delivery: DeliveredRounds, run: runs.LockedRun
    ) -> list[RoundRecord]:
        self.write()
        of_run = tables.rounds.c.run_id == delivery.run_id
        attempts = self._connection.scalar(select(func.max(tables.rounds.c.attempt)).where(of_run))
        news = self._rounds.take(delivery.records)
        self.write()
        if rules.resumes(run.status, run.ended_at, attempts or 0, news):
            self._update(delivery.run_id, status="running", ended_at=None, reason=None, sha256=None)
            self._look_again(delivery.run_id)
        return news

    def _take_end(self, delivery: DeliveredEnd) -> int:
        run = self._of_writer(delivery)
        said = {"status": delivery.status, "ended_at": delivery.ended_at, "reason": delivery.reason}
        known = said == {"status": run.status, "ended_at": run.ended_at, "reason": run.reason}
        if not known and not rules.may_end_again(run.status):
            raise EndConflict(delivery.run_id, run.status)
        self.write()
        news = self._add_late_reports(delivery) if run.pruned_at is None else 0
        if not known:
            self._update(delivery.run_id, **said)
            if run.pruned_at is None:
                runs.seal(self._connection, delivery.run_id)
            news = 1
        self._heard.add(delivery.run_id)
        self._look_again(delivery.run_id)
        return news

    def _add_late_reports(self, delivery: DeliveredEnd) -> int:
        totals = tables.run_totals
        inside = (
            select(func.coalesce(func.sum(tables.rounds.c.reports_late), 0))
            .where(tables.rounds.c.run_id == delivery.run_id, tables.rounds.c.closed)
            .scalar_subquery()
        )
        of_run = totals.c.run_id == delivery.run_id
        # Not where the sum would fall: a counter never does.
        less = totals.c.reports_late < inside + delivery.late_reports
        late = inside + delivery.late_reports
        more = update(totals).where(of_run, less).values(reports_late=late)
        return min(1, self._connection.execute(more).rowcount)

    def _of_writer(self, delivery: DeliveredRounds | DeliveredEnd) -> runs.LockedRun:
        run = self._runs.get(delivery.run_id)
        if run is None or run.writer != delivery.writer:
            runs.refuse_deleted(self._connection, delivery.run_id, self._url)
            raise RunNotFound(delivery.run_id, (), SERVICE)
        return run

    def _look_again(self, run_id: str) -> None:
        """The run is not as it was when the group began."""
        self._runs |= runs.lock(self._connection, [run_id])
        self._totals[run_id] = self._runs[run_id].totals

    def _update(self, run_id: str, **values: Any) -> None:
        of_run = tables.runs.c.run_id == run_id
        self._connection.execute(update(tables.runs).where(of_run).values(values))
