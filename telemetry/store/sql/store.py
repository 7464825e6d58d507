"""The `Store` in a SQL database, in portable SQL.

What belongs to one database only stands elsewhere: `telemetry.store.sql.sqlite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, RowMapping, delete, insert, select, update
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
    RunTotals,
    StoredRun,
)
from telemetry.errors import (
    RoundConflict,
    RowsNotKept,
    RunDeleted,
    RunExists,
    RunIsLive,
    RunNotFound,
    RunNotResumable,
    RunPruned,
    SchemaOutdated,
    StoreError,
    TelemetryError,
    ValueRefused,
)
from telemetry.progress import Tell, counted, nobody
from telemetry.store import rules
from telemetry.store.api_tokens import ApiToken
from telemetry.store.deliveries import DeliveredEnd, DeliveredRounds, DeliveredRun, Delivery
from telemetry.store.sql import acknowledged, api_tokens, deliveries, mapping, queries, tables
from telemetry.store.sql.bulk import insert_rows, time_form
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
        self._time = time_form(engine.dialect)
        self._url = url
        self._secret = secret
        self._forget = forget
        # Threads of this process queue here in turn; only other processes wait in the database.
        self._one_writer = Lock()

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
            known = connection.execute(queries.one_run(info.run_id)).mappings().first()
            if known is None:
                self._refuse_deleted(connection, info.run_id)
                _insert_run(connection, info, owner, now)
            elif mapping.info_from_values(known) != info:
                raise RunExists(info.run_id)

    def renew_lease(self, run_id: str, owner: Owner, now: datetime) -> bool:
        """See `Store.renew_lease`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            held = (tables.runs.c.run_id == run_id) & (tables.runs.c.owner == str(owner))
            done = connection.execute(update(tables.runs).where(held).values(last_seen_at=now))
            return done.rowcount > 0

    def finish_run(
        self, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None = None
    ) -> None:
        """See `Store.finish_run`."""
        rules.require_end(status)
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            running = (tables.runs.c.run_id == run_id) & (tables.runs.c.status == "running")
            end = {"status": status, "ended_at": ended_at, "reason": reason}
            if connection.execute(update(tables.runs).where(running).values(end)).rowcount:
                _seal(connection, run_id)

    def release(self, run_id: str, owner: Owner) -> None:
        """See `Store.release`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            held = (tables.runs.c.run_id == run_id) & (tables.runs.c.owner == str(owner))
            connection.execute(update(tables.runs).where(held).values(owner=None))

    def mark_interrupted(self, now: datetime, is_alive: Callable[[Owner], bool]) -> Sequence[str]:
        """See `Store.mark_interrupted`."""
        with self._writing() as connection:
            running = connection.execute(queries.running_runs()).mappings().all()
            stored = [mapping.run_from_values(values) for values in running]
            gone = [run for run in stored if rules.is_gone(run, now, is_alive)]
            for run in gone:
                self._interrupt(connection, run)
            return [run.run_id for run in gone]

    def resume_run(self, run_id: str, owner: Owner, now: datetime) -> None:
        """See `Store.resume_run`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            of_run = tables.runs.c.run_id == run_id
            if connection.scalar(queries.pruned_at(run_id)) is not None:
                raise RunPruned(run_id)
            status = connection.execute(select(tables.runs.c.status).where(of_run)).scalar_one()
            if not rules.may_resume(status):
                raise RunNotResumable(run_id, status)
            self._close_open_rounds(connection, run_id)
            again = {"status": "running", "ended_at": None, "reason": None, "sha256": None}
            held = {"owner": str(owner), "last_seen_at": now}
            connection.execute(update(tables.runs).where(of_run).values(again | held))
            acknowledged.reopen(connection, run_id)

    def _close_open_rounds(self, connection: Connection, run_id: str) -> None:
        for number, attempt in connection.execute(queries.open_rounds(run_id)).all():
            key = run_id, number, attempt
            opened = _load_round(connection, key)
            if opened is not None:
                self._put(connection, rules.closed_by_interruption(opened), replaces=True)
            else:  # without its rows
                summary = rules.summary_closed_by_interruption(_load_summary(connection, key))
                values = mapping.round_row(_counted(connection, summary))
                row = dict(zip(mapping.ROUND_COLUMNS, values, strict=True))
                where = queries.of_round(tables.rounds, key)
                connection.execute(update(tables.rounds).where(where).values(row))

    def _interrupt(self, connection: Connection, run: StoredRun) -> None:
        self._close_open_rounds(connection, run.run_id)
        connection.execute(
            update(tables.runs)
            .where(tables.runs.c.run_id == run.run_id)
            .values(status="interrupted", reason=rules.GONE, ended_at=run.last_seen_at, owner=None)
        )
        _seal(connection, run.run_id)

    def delete_run(self, run_id: str, now: datetime) -> None:
        """See `Store.delete_run`; the rows in the other tables go along (ON DELETE CASCADE)."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            run = _load_run(connection, run_id)
            if not rules.may_delete(run, now):
                raise RunIsLive(run_id)
            left = {"run_id": run_id, "deleted_at": now, "sha256": run.sha256}
            connection.execute(insert(tables.deleted_runs).values(left))
            connection.execute(delete(tables.runs).where(tables.runs.c.run_id == run_id))
        if self._forget is not None:
            self._forget()

    def prune(self, before: datetime, now: datetime, tell: Tell = nobody) -> Sequence[str]:
        """See `Store.prune`; the rows in the other tables go along (ON DELETE CASCADE)."""
        with self._writing() as connection:
            old = connection.execute(queries.to_prune(before)).scalars().all()
            tell(0, len(old))
            for run_id in counted(old, tell):
                connection.execute(delete(tables.rounds).where(tables.rounds.c.run_id == run_id))
                of_run = tables.runs.c.run_id == run_id
                connection.execute(update(tables.runs).where(of_run).values(pruned_at=now))
            return old

    # --- of a service --------------------------------------------------------------------------

    def deliver(self, given: Sequence[Delivery], now: datetime) -> Sequence[int | TelemetryError]:
        """See `Store.deliver`: one commit for all of it; one by one where something is wrong."""
        try:
            return self._deliver_together(given, now)
        except TelemetryError as error:
            if len(given) == 1 and not isinstance(error.__cause__, IntegrityError):
                return [error]
        return list(self._deliver_singly(given, now))

    def _deliver_together(self, given: Sequence[Delivery], now: datetime) -> Sequence[int]:
        stored = [0] * len(given)
        with self._writing() as connection:
            # By run, as another service does that has some of the same: no two wait for each other.
            for place in sorted(range(len(given)), key=lambda place: given[place].run_id):
                stored[place] = self._take(connection, given[place], now)
        return stored

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

    def _deliver_one(self, delivery: Delivery, now: datetime) -> int:
        try:
            return self._deliver_together([delivery], now)[0]
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
        # Another service stored the same in between: now it is seen.
        return self._deliver_together([delivery], now)[0]

    def _take(self, connection: Connection, delivery: Delivery, now: datetime) -> int:
        try:
            match delivery:
                case DeliveredRun():
                    self._refuse_deleted(connection, delivery.run_id)
                    return deliveries.take_run(connection, delivery, now)
                case DeliveredRounds():
                    return deliveries.take_rounds(connection, delivery, now, self._record)
                case DeliveredEnd():
                    return deliveries.take_end(connection, delivery, now, _seal)
        except RunNotFound:
            self._refuse_deleted(connection, delivery.run_id)
            raise

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
            values = connection.execute(queries.one_run(run_id)).mappings().first()
            if values is None:
                raise self._not_found(connection, run_id)
        return mapping.run_from_values(values)

    # --- rounds --------------------------------------------------------------------------------

    def record_round(self, record: RoundRecord) -> bool:
        """See `Store.record_round`."""
        with self._writing() as connection:
            self._lock_run(connection, record.run_id)
            if connection.scalar(queries.pruned_at(record.run_id)) is not None:
                raise RunPruned(record.run_id)
            return self._record(connection, record)

    def _record(self, connection: Connection, record: RoundRecord) -> bool:
        """`record_round` of a run that the transaction has locked."""
        key = record.run_id, record.round, record.attempt
        if problem := rules.impossible(record):
            raise ValueRefused(self._url, f"round {record.round} of run {key[0]} {problem}")
        stored = connection.execute(queries.REVISION, queries.key_of(key)).first()
        if stored is not None and not _replaces(connection, record, *stored):
            return False
        self._put(connection, record, replaces=stored is not None)
        if record.closed:
            _seal(connection, record.run_id)
        return True

    def _put(self, connection: Connection, record: RoundRecord, *, replaces: bool) -> None:
        """Store a round that may be stored; a closed one enters the totals."""
        summary = _counted(connection, record.summary())
        rows = mapping.rows_from_round(record, summary, self._time)
        if replaces:
            # Its rows in the other tables go with it (ON DELETE CASCADE).
            key = record.run_id, record.round, record.attempt
            connection.execute(delete(tables.rounds).where(queries.of_round(tables.rounds, key)))
        _insert_round(connection, rows)

    def add_late_reports(self, run_id: str, count: int) -> None:
        """See `Store.add_late_reports`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            totals = _load_totals(connection, run_id).with_late_reports(count)
            _store_totals(connection, run_id, totals)

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
            record = None if key is None else _load_round(connection, key)
            if record is None:
                self._require_run(connection, run_id)
                if (
                    key is not None
                    and connection.execute(queries.REVISION, queries.key_of(key)).first()
                ):
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

    def _stream(self, query: queries.Query) -> Iterator[mapping.Row]:
        """Rows in chunks from a cursor on the server; the connection goes back with the last."""
        with self._reading() as connection:
            streaming = connection.execution_options(yield_per=queries.CHUNK_ROWS)
            with streaming.execute(query) as result:  # closed, too, where nobody reads on
                yield from map(tuple, result)

    # --- views ---------------------------------------------------------------------------------

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """See `Store.exposed`: one query for the runs, one for all their rounds."""
        with self._reading() as connection:
            chosen = [
                mapping.run_from_values(values)
                for values in connection.execute(
                    queries.exposed_runs(now, owner, max_runs)
                ).mappings()
            ]
            detailed = rules.detailed_runs(chosen, max_runs)
            rows = connection.execute(queries.exposed_rounds(detailed, max_rounds)).all()
        return _exposed(chosen, rows)

    def latest(self, runs: Sequence[StoredRun], *, max_rounds: int) -> Sequence[ExposedRun]:
        """See `Store.latest`: one query for all rounds."""
        ids = [run.run_id for run in runs]
        with self._reading() as connection:
            rows = connection.execute(queries.exposed_rounds(ids, max_rounds)).all()
        return _exposed(runs, rows)

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

    def mark_announced(self, service: str, run_id: str) -> None:
        """See `Store.mark_announced`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            acknowledged.know_end(connection, service, run_id, None)

    def mark_delivered(self, service: str, run_id: str, rounds: Sequence[tuple[int, int]]) -> None:
        """See `Store.mark_delivered`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            acknowledged.know_rounds(connection, service, run_id, rounds)

    def mark_ended(self, service: str, run_id: str, ended_at: datetime) -> None:
        """See `Store.mark_ended`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            acknowledged.know_end(connection, service, run_id, ended_at)

    def forget_delivered(self, service: str, run_id: str) -> None:
        """See `Store.forget_delivered`."""
        with self._writing() as connection:
            self._lock_run(connection, run_id)
            acknowledged.forget(connection, service, run_id)

    def close(self) -> None:
        """Give back the connections."""
        self._reader.dispose()

    # --- runs that are not there ---------------------------------------------------------------

    def _lock_run(self, connection: Connection, run_id: str) -> None:
        """Make sure that the run is there, and keep other writers off it until the end."""
        self._require_run(connection, run_id, lock=True)

    def _require_run(self, connection: Connection, run_id: str, *, lock: bool = False) -> None:
        query = select(tables.runs.c.run_id).where(tables.runs.c.run_id == run_id)
        if connection.execute(query.with_for_update() if lock else query).first() is None:
            raise self._not_found(connection, run_id)

    def _refuse_deleted(self, connection: Connection, run_id: str) -> None:
        deleted_at = connection.execute(queries.deleted(run_id)).scalar()
        if deleted_at is not None:
            raise RunDeleted(run_id, deleted_at, self._url)

    def _not_found(self, connection: Connection, run_id: str) -> RunNotFound:
        self._refuse_deleted(connection, run_id)
        newest = connection.execute(queries.newest_run_ids()).scalars().all()
        return RunNotFound(run_id, tuple(newest), self._url)


def _insert_run(connection: Connection, info: RunInfo, owner: Owner, now: datetime) -> None:
    values = {
        **mapping.values_from_info(info),
        "status": "running",
        "owner": str(owner),
        "last_seen_at": now,
    }
    connection.execute(insert(tables.runs).values(values))
    totals = {"run_id": info.run_id, **mapping.values_from_totals(RunTotals())}
    connection.execute(insert(tables.run_totals).values(totals))


def _load_totals(connection: Connection, run_id: str) -> RunTotals:
    values: RowMapping = connection.execute(queries.TOTALS, {"of_run": run_id}).mappings().one()
    return mapping.totals_from_values(values)


def _store_totals(connection: Connection, run_id: str, totals: RunTotals) -> None:
    values: dict[str, Any] = mapping.values_from_totals(totals)
    connection.execute(queries.STORE_TOTALS, {**values, "of_run": run_id})


def _load_run(connection: Connection, run_id: str) -> StoredRun:
    return mapping.run_from_values(connection.execute(queries.one_run(run_id)).mappings().one())


def _seal(connection: Connection, run_id: str) -> None:
    """Write the seal of a run that has ended; of one that runs, nothing."""
    if connection.execute(queries.STATUS, {"of_run": run_id}).scalar_one() == "running":
        return
    of_run = tables.runs.c.run_id == run_id
    rows = connection.execute(queries.rounds_of(run_id, closed_only=True))
    summaries = (mapping.summary_from_row(tuple(row)) for row in rows)
    seal = rules.sealed(_load_run(connection, run_id), summaries)
    connection.execute(update(tables.runs).where(of_run).values(sha256=seal))
    acknowledged.reopen(connection, run_id)


def _counted(connection: Connection, summary: RoundSummary) -> RoundSummary:
    """The round as it is stored: a closed one enters the totals, which gives its cumulative figure."""
    if not summary.closed:
        return summary
    totals = _load_totals(connection, summary.run_id).plus(summary)
    _store_totals(connection, summary.run_id, totals)
    return replace(summary, cumulative_emissions_kg=totals.total_emissions_kg)


def _load_summary(connection: Connection, key: mapping.RoundKey) -> RoundSummary:
    return mapping.summary_from_row(tuple(connection.execute(queries.round_row(key)).one()))


def _insert_round(connection: Connection, rows: mapping.RoundRows) -> None:
    insert_rows(connection, tables.rounds, mapping.ROUND_COLUMNS, [rows.round])
    insert_rows(connection, tables.round_phases, mapping.LAPS.columns, rows.laps)
    insert_rows(connection, tables.training_metrics, mapping.METRIC_COLUMNS, rows.metrics)
    insert_rows(connection, tables.round_noise, mapping.NOISE_COLUMNS, rows.noise)
    insert_rows(connection, tables.participants, mapping.PARTICIPANTS.columns, rows.participants)
    insert_rows(connection, tables.reports, mapping.REPORTS.columns, rows.reports)


def _load_round(connection: Connection, key: mapping.RoundKey) -> RoundRecord | None:
    """A round with its rows; None where it is not stored, or without them."""

    def rows(query: queries.Query) -> list[mapping.Row]:
        return [tuple(row) for row in connection.execute(query)]

    found = rows(queries.round_row(key))
    if not found or not mapping.summary_from_row(found[0]).client_rows:
        return None
    return mapping.round_from_rows(
        mapping.RoundRows(
            round=found[0],
            laps=rows(queries.records_of(mapping.LAPS, key)),
            metrics=rows(queries.metrics_of(key)),
            noise=rows(queries.noise_of(key)),
            participants=rows(queries.records_of(mapping.PARTICIPANTS, key)),
            reports=rows(queries.records_of(mapping.REPORTS, key)),
        )
    )


def _replaces(connection: Connection, record: RoundRecord, revision: int, closed: bool) -> bool:
    """Whether ``record`` is to be stored over the round of that revision and state."""
    match rules.decide(record, revision, closed):
        case rules.Write.REPLACE:
            return True
        case rules.Write.SKIP:
            return False
        case rules.Write.COMPARE:
            key = record.run_id, record.round, record.attempt
            stored = _load_round(connection, key)
            if stored is not None and rules.same_content(stored, record):
                return False
            if stored is None and rules.same_figures(record, _load_summary(connection, key)):
                return False
            raise RoundConflict(record.run_id, record.round, record.attempt)


def _exposed(runs: Sequence[StoredRun], rows: Sequence[Row[Any]]) -> list[ExposedRun]:
    by_run: dict[str, list[RoundSummary]] = {run.run_id: [] for run in runs}
    for row in rows:
        by_run[row[0]].append(mapping.summary_from_row(tuple(row)))
    return [_expose(run, by_run[run.run_id]) for run in runs]


def _expose(run: StoredRun, rounds: list[RoundSummary]) -> ExposedRun:
    return ExposedRun(
        run=run,
        open_round=next((summary for summary in rounds if not summary.closed), None),
        rounds=tuple(summary for summary in rounds if summary.closed),
    )
