"""The `Store` in a SQL database, in portable SQL.

What belongs to one database only stands elsewhere: `telemetry.store.sql.sqlite`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Lock
from typing import Final

from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import IntegrityError

from telemetry.domain import (
    ExposedRun,
    Owner,
    ParticipantRecord,
    PendingRun,
    ReportRecord,
    RoundRecord,
    RoundSummary,
    RunInfo,
    RunStatus,
    StoredRun,
)
from telemetry.errors import (
    RowsNotKept,
    RunExists,
    RunNotResumable,
    RunPruned,
    SchemaOutdated,
    StoreError,
    TelemetryError,
)
from telemetry.progress import Tell, nobody
from telemetry.store import rules
from telemetry.store.api_tokens import ApiToken
from telemetry.store.deliveries import Delivery
from telemetry.store.sql import (
    acknowledged,
    api_tokens,
    deliveries,
    exposing,
    mapping,
    queries,
    rounds,
    runs,
    tables,
)
from telemetry.store.sql.driver import Row
from telemetry.store.sql.exposing import Exposure
from telemetry.store.sql.problems import store_errors
from telemetry.store.sql.schema import SHIPPED, State

WRITES: Final = "telemetry_writes"
"""Execution option of a connection that is going to write: where the database wants to know that
at the beginning of a transaction, its module listens for it."""


class SqlStore:
    """Runs in the tables of `telemetry.store.sql.tables`.

    The engine is the store's own: `close` disposes of it. The schema must be there already.
    ``reader`` is the same engine with the options under which it reads. ``forget`` is called after a
    deletion: what the database has to do so that nothing is left.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        url: str,
        secret: bytes,
        reader: Engine | None = None,
        forget: Callable[[], None] | None = None,
    ) -> None:
        self._reader = engine if reader is None else reader
        self._writer = engine.execution_options(**{WRITES: True})
        self._url = url
        self._secret = secret
        self._forget = forget
        # Threads of this process queue here in turn; only other processes wait in the database.
        self._one_writer = Lock()
        self._exposure = Exposure()

    @property
    def url(self) -> str:
        """As it was opened, without a password."""
        return self._url

    @property
    def secret(self) -> bytes:
        """Kept beside the database."""
        return self._secret

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with store_errors(self._url), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._one_writer, store_errors(self._url), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _locking(self, run_id: str) -> Iterator[Connection]:
        """`_writing` of one run, which has to be there and which no other writer touches."""
        with self._writing() as connection:
            runs.lock_one(connection, run_id, self._url)
            yield connection

    # --- runs ----------------------------------------------------------------------------------

    def start_run(self, info: RunInfo, owner: Owner, now: datetime) -> None:
        """See `Store.start_run`."""
        try:
            self._start_run(info, owner, now)
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            self._start_run(info, owner, now)  # another process stored it in between: now we see it

    def _start_run(self, info: RunInfo, owner: Owner, now: datetime) -> None:
        with self._writing() as connection:
            known = runs.load(connection, info.run_id)
            if known is None:
                runs.refuse_deleted(connection, info.run_id, self._url)
                runs.insert_run(connection, info, now, owner=str(owner))
            elif known.info != info:
                raise RunExists(info.run_id)

    def renew_lease(self, run_id: str, owner: Owner, now: datetime) -> bool:
        """See `Store.renew_lease`."""
        with self._locking(run_id) as connection:
            held = (tables.runs.c.run_id == run_id) & (tables.runs.c.owner == str(owner))
            done = connection.execute(update(tables.runs).where(held).values(last_seen_at=now))
            return done.rowcount > 0

    def finish_run(
        self, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None = None
    ) -> None:
        """See `Store.finish_run`."""
        rules.require_end(status)
        with self._locking(run_id) as connection:
            runs.end(connection, run_id, status, ended_at, reason)

    def release(self, run_id: str, owner: Owner) -> None:
        """See `Store.release`."""
        with self._locking(run_id) as connection:
            held = (tables.runs.c.run_id == run_id) & (tables.runs.c.owner == str(owner))
            connection.execute(update(tables.runs).where(held).values(owner=None))

    def mark_interrupted(self, now: datetime, is_alive: Callable[[Owner], bool]) -> Sequence[str]:
        """See `Store.mark_interrupted`."""
        with self._writing() as connection:
            running = connection.execute(queries.running_runs()).mappings().all()
            stored = [mapping.run_from_values(values) for values in running]
            gone = [run for run in stored if rules.is_gone(run, now, is_alive)]
            for run in gone:
                rounds.close_open(connection, self._url, run.run_id, run.totals)
                runs.interrupt(connection, run)
            runs.release_gone(connection, now, is_alive)
            return [run.run_id for run in gone]

    def resume_run(self, run_id: str, owner: Owner, now: datetime) -> None:
        """See `Store.resume_run`."""
        with self._writing() as connection:
            run = runs.lock_one(connection, run_id, self._url)
            if run.pruned_at is not None:
                raise RunPruned(run_id)
            if not rules.may_resume(run.status):
                raise RunNotResumable(run_id, run.status)
            rounds.close_open(connection, self._url, run_id, run.totals)
            runs.take_up(connection, run_id, owner, now)

    def delete_run(self, run_id: str, now: datetime) -> None:
        """See `Store.delete_run`."""
        with self._locking(run_id) as connection:
            run = runs.load(connection, run_id)
            assert run is not None
            runs.remove(connection, run, now)
        if self._forget is not None:
            self._forget()

    def prune(
        self,
        before: datetime,
        now: datetime,
        tell: Tell = nobody,
        *,
        keep_totals: bool = True,
        spared: Collection[str] = (),
    ) -> Sequence[str]:
        """See `Store.prune`."""
        with self._writing() as connection:
            pruned = runs.prune(
                connection, before, now, tell, keep_totals=keep_totals, spared=spared
            )
        if pruned and self._forget is not None:
            self._forget()
        return pruned

    # --- of a service --------------------------------------------------------------------------

    def deliver(self, given: Sequence[Delivery], now: datetime) -> Sequence[int | TelemetryError]:
        """See `Store.deliver`: one commit for all of it; one by one where the database refuses it."""
        try:
            return self._deliver_together(given, now)
        except StoreError as error:
            if len(given) == 1 and not isinstance(error.__cause__, IntegrityError):
                return [error]
        return list(self._deliver_singly(given, now))

    def _deliver_together(
        self, given: Sequence[Delivery], now: datetime
    ) -> list[int | TelemetryError]:
        with self._writing() as connection:
            return deliveries.take_all(connection, self._url, given, now)

    def _deliver_singly(
        self, given: Sequence[Delivery], now: datetime
    ) -> Iterator[int | TelemetryError]:
        broken: TelemetryError | None = None
        for delivery in given:
            if broken is not None:
                yield broken
                continue
            try:
                taken = self._deliver_one(delivery, now)
            except TelemetryError as error:
                # The database, not the delivery: the others would only wait for it in turn.
                broken = error if type(error) is StoreError else None
                yield error
            else:
                yield taken

    def _deliver_one(self, delivery: Delivery, now: datetime) -> int | TelemetryError:
        try:
            return self._deliver_together([delivery], now)[0]
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
        # Another service stored the same in between: now it is seen.
        return self._deliver_together([delivery], now)[0]

    def add_token(self, token: ApiToken) -> None:
        """See `Store.add_token`."""
        with self._writing() as connection:
            api_tokens.add(connection, token)

    def api_tokens(self) -> Sequence[ApiToken]:
        """See `Store.api_tokens`."""
        with self._reading() as connection:
            return api_tokens.stored(connection)

    def revoke_token(self, label: str, now: datetime) -> None:
        """See `Store.revoke_token`."""
        with self._writing() as connection:
            api_tokens.revoke(connection, label, now)

    # --- reading runs --------------------------------------------------------------------------

    def runs(self) -> Sequence[StoredRun]:
        """See `Store.runs`."""
        with self._reading() as connection:
            found = connection.execute(queries.all_runs()).mappings().all()
        return [mapping.run_from_values(values) for values in found]

    def page_of_runs(
        self, limit: int, start: tuple[datetime, str] | None = None
    ) -> Sequence[StoredRun]:
        """See `Store.page_of_runs`."""
        with self._reading() as connection:
            found = connection.execute(queries.page_of_runs(limit, start)).mappings().all()
        return [mapping.run_from_values(values) for values in found]

    def run(self, run_id: str) -> StoredRun:
        """See `Store.run`."""
        with self._reading() as connection:
            run = runs.load(connection, run_id)
            if run is None:
                raise runs.not_found(connection, run_id, self._url)
        return run

    # --- rounds --------------------------------------------------------------------------------

    def record_round(self, record: RoundRecord) -> bool:
        """See `Store.record_round`."""
        run_id = record.run_id
        with self._writing() as connection:
            run = runs.lock_one(connection, run_id, self._url)
            if run.pruned_at is not None:
                raise RunPruned(run_id)
            batch = rounds.RoundBatch(connection, self._url, {run_id: run.totals})
            news = batch.take([record])
            batch.write()
            if news and record.closed and run.ended_at is not None:
                runs.seal(connection, run_id)
            return bool(news)

    def add_late_reports(self, run_id: str, count: int) -> None:
        """See `Store.add_late_reports`."""
        with self._writing() as connection:
            totals = runs.lock_one(connection, run_id, self._url).totals
            runs.store_totals(connection, {run_id: totals.with_late_reports(count)})

    def rounds(
        self, run_id: str, *, closed_only: bool = True, start: tuple[int, int] | None = None
    ) -> Iterator[RoundSummary]:
        """See `Store.rounds`."""
        self.run(run_id)
        rows = self._stream(queries.rounds_of(run_id, closed_only=closed_only, start=start))
        return (mapping.summary_from_row(row) for row in rows)

    def round(self, run_id: str, round_number: int, attempt: int | None = None) -> RoundRecord:
        """See `Store.round`."""
        with self._reading() as connection:
            wanted = attempt
            if wanted is None:
                wanted = connection.scalar(queries.last_attempt(run_id, round_number))
            key = None if wanted is None else (run_id, round_number, wanted)
            record = None if key is None else rounds.load(connection, key)
            if record is None:
                runs.require(connection, run_id, self._url)
                if key is not None and rounds.load_summary(connection, key) is not None:
                    raise RowsNotKept(run_id)
                raise rules.no_such_round(self._url, run_id, round_number, attempt)
        return record

    def reports(
        self, run_id: str, *, start: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, int, ReportRecord]]:
        """See `Store.reports`."""
        self.run(run_id)
        rows = self._stream(queries.reports_of(run_id, start))
        return ((row[0], row[1], mapping.REPORTS.record(row[2:])) for row in rows)

    def participants(self, run_id: str) -> Iterator[tuple[int, int, ParticipantRecord]]:
        """See `Store.participants`."""
        self.run(run_id)
        rows = self._stream(queries.participants_of(run_id))
        return ((row[0], row[1], mapping.PARTICIPANTS.record(row[2:])) for row in rows)

    def _stream(self, query: queries.Query) -> Iterator[Row]:
        """Rows in chunks from a cursor on the server; the connection goes back with the last."""
        with self._reading() as connection:
            streaming = connection.execution_options(yield_per=queries.CHUNK_ROWS)
            with streaming.execute(query) as result:  # closed, too, where nobody reads on
                yield from map(tuple, result)

    # --- views ---------------------------------------------------------------------------------

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """See `Store.exposed`."""
        with self._reading() as connection:
            return self._exposure.of(
                connection, now, owner, max_runs=max_runs, max_rounds=max_rounds
            )

    def latest(self, runs: Sequence[StoredRun], *, max_rounds: int) -> Sequence[ExposedRun]:
        """See `Store.latest`."""
        with self._reading() as connection:
            return exposing.latest(connection, runs, max_rounds)

    def check(self) -> None:
        """See `Store.check`."""
        with self._reading() as connection:
            if SHIPPED.state(connection, self._url) is not State.CURRENT:
                raise SchemaOutdated(self._url, "has another schema than this program")

    # --- what a service has acknowledged ------------------------------------------------------

    def undelivered(self, service: str, now: datetime, owner: Owner | None) -> Sequence[PendingRun]:
        """See `Store.undelivered`."""
        with self._reading() as connection:
            return acknowledged.pending(connection, service, now, owner)

    def unacknowledged(self, services: Collection[str]) -> Sequence[str]:
        """See `Store.unacknowledged`."""
        with self._reading() as connection:
            return acknowledged.unacknowledged(connection, services)

    def mark_announced(self, service: str, run_id: str) -> None:
        """See `Store.mark_announced`."""
        with self._locking(run_id) as connection:
            acknowledged.know_end(connection, service, run_id, None)

    def mark_delivered(self, service: str, run_id: str, rounds: Sequence[tuple[int, int]]) -> None:
        """See `Store.mark_delivered`."""
        with self._locking(run_id) as connection:
            acknowledged.know_rounds(connection, service, run_id, rounds)

    def mark_ended(self, service: str, run_id: str, ended_at: datetime) -> None:
        """See `Store.mark_ended`."""
        with self._locking(run_id) as connection:
            acknowledged.know_end(connection, service, run_id, ended_at)

    def forget_delivered(self, service: str, run_id: str) -> None:
        """See `Store.forget_delivered`."""
        with self._locking(run_id) as connection:
            acknowledged.forget(connection, service, run_id)

    def close(self) -> None:
        """Give back the connections."""
        self._reader.dispose()
