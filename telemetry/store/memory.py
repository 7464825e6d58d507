"""A store in memory: for tests, for trials, and where nothing may be written to disk."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock
from typing import Final

from telemetry.domain import (
    ExposedRun,
    Owner,
    ParticipantRecord,
    PendingRound,
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
    BadTokenFact,
    EndConflict,
    RoundConflict,
    RowsNotKept,
    RunDeleted,
    RunExists,
    RunIsLive,
    RunNotFound,
    RunNotResumable,
    RunPruned,
    TelemetryError,
    ValueRefused,
)
from telemetry.progress import Tell, counted, nobody
from telemetry.store import rules
from telemetry.store.api_tokens import ApiToken
from telemetry.store.deliveries import SERVICE, DeliveredEnd, DeliveredRun, Delivery

_CANDIDATES: Final = 5
_Key = tuple[int, int]
"""(round, attempt)"""


@dataclass
class _Known:
    """What a service has acknowledged of a run."""

    ended_at: datetime | None = None
    rounds: set[_Key] = field(default_factory=set)


@dataclass
class _Run:
    """A run and its rounds; every value in it is immutable and only ever replaced."""

    stored: StoredRun
    rounds: dict[_Key, RoundSummary] = field(default_factory=dict)
    records: dict[_Key, RoundRecord] = field(default_factory=dict)
    """Of the rounds that keep their rows."""
    known_to: dict[str, _Known] = field(default_factory=dict)
    """Service → what it has acknowledged."""

    def copy(self) -> _Run:
        """As it is now; what is stored later does not change it."""
        known = {to: _Known(has.ended_at, set(has.rounds)) for to, has in self.known_to.items()}
        return _Run(self.stored, dict(self.rounds), dict(self.records), known)

    def put(self, record: RoundRecord) -> None:
        """Store a round that may be stored."""
        if record.client_rows:
            self.records[record.round, record.attempt] = record
        self.put_summary(record.summary())

    def put_summary(self, summary: RoundSummary) -> None:
        """Store a round's figures; a closed one enters the totals, and renews the seal of an end."""
        if summary.closed:
            totals = self.stored.totals.plus(summary)
            self.stored = replace(self.stored, totals=totals)
            summary = replace(summary, cumulative_emissions_kg=totals.total_emissions_kg)
        self.rounds[summary.round, summary.attempt] = summary
        if summary.closed:
            self.seal()

    def prune(self, now: datetime) -> None:
        """Keep the totals and the seal alone."""
        self.rounds.clear()
        self.records.clear()
        self.stored = replace(self.stored, pruned_at=now)

    def seal(self) -> None:
        """Write the seal of a run that has ended; of one that runs, none."""
        sha256 = rules.sealed(self.stored, self.summaries(closed=True))
        self.stored = replace(self.stored, sha256=sha256)

    def summaries(self, *, closed: bool) -> list[RoundSummary]:
        """The closed or the open rounds by (round, attempt)."""
        return [row for _, row in sorted(self.rounds.items()) if row.closed is closed]

    def closed_records(self) -> list[RoundRecord]:
        """The closed rounds, whole, by (round, attempt)."""
        return [record for _, record in sorted(self.records.items()) if record.closed]


class InMemoryStore:
    """A whole `Store` without a file; its content ends with the object."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._deleted: dict[str, datetime] = {}
        self._tokens: list[ApiToken] = []
        self._lock = Lock()
        self._secret = secrets.token_bytes(32)

    @property
    def url(self) -> str:
        """Always ``memory://``."""
        return "memory://"

    @property
    def secret(self) -> bytes:
        """Random, for this object's life."""
        return self._secret

    # --- runs ----------------------------------------------------------------------------------

    def start_run(self, info: RunInfo, owner: Owner, now: datetime) -> None:
        """See `Store.start_run`."""
        with self._lock:
            known = self._runs.get(info.run_id)
            if known is None:
                self._refuse_deleted(info.run_id)
                self._runs[info.run_id] = _Run(_started(info, owner, now))
            elif known.stored.info != info:
                raise RunExists(info.run_id)

    def renew_lease(self, run_id: str, owner: Owner, now: datetime) -> bool:
        """See `Store.renew_lease`."""
        with self._lock:
            run = self._find(run_id)
            if run.stored.owner != owner:
                return False
            run.stored = replace(run.stored, last_seen_at=now)
            return True

    def finish_run(
        self, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None = None
    ) -> None:
        """See `Store.finish_run`."""
        rules.require_end(status)
        with self._lock:
            run = self._find(run_id)
            if run.stored.status == "running":
                run.stored = replace(run.stored, status=status, ended_at=ended_at, reason=reason)
                run.seal()

    def release(self, run_id: str, owner: Owner) -> None:
        """See `Store.release`."""
        with self._lock:
            run = self._find(run_id)
            if run.stored.owner == owner:
                run.stored = replace(run.stored, owner=None)

    def mark_interrupted(self, now: datetime, is_alive: Callable[[Owner], bool]) -> Sequence[str]:
        """See `Store.mark_interrupted`."""
        with self._lock:
            running = [
                run
                for run in self._runs.values()
                if run.stored.status == "running" and run.stored.writer is None
            ]
            gone = [run for run in running if rules.is_gone(run.stored, now, is_alive)]
            for run in gone:
                _interrupt(run)
            for run in self._runs.values():
                held = run.stored.ended_at is not None and run.stored.owner is not None
                if held and rules.is_gone(run.stored, now, is_alive):
                    run.stored = replace(run.stored, owner=None)
            return [run.stored.run_id for run in gone]

    def resume_run(self, run_id: str, owner: Owner, now: datetime) -> None:
        """See `Store.resume_run`."""
        with self._lock:
            run = self._find(run_id)
            if run.stored.pruned_at is not None:
                raise RunPruned(run_id)
            if not rules.may_resume(run.stored.status):
                raise RunNotResumable(run_id, run.stored.status)
            _close_open_rounds(run)
            run.stored = replace(
                run.stored,
                status="running",
                reason=None,
                ended_at=None,
                owner=owner,
                last_seen_at=now,
                sha256=None,
            )

    def delete_run(self, run_id: str, now: datetime) -> None:
        """See `Store.delete_run`."""
        with self._lock:
            if not rules.may_delete(self._find(run_id).stored, now):
                raise RunIsLive(run_id)
            del self._runs[run_id]
            self._deleted[run_id] = now

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
        with self._lock:
            old = [
                run_id
                for run_id, run in sorted(self._runs.items())
                if rules.may_prune(run.stored, before, keep_totals=keep_totals)
                and run_id not in spared
            ]
            tell(0, len(old))
            for run_id in counted(old, tell):
                if keep_totals:
                    self._runs[run_id].prune(now)
                else:
                    del self._runs[run_id]
                    self._deleted[run_id] = now
            return old

    # --- of a service --------------------------------------------------------------------------

    def deliver(
        self, deliveries: Sequence[Delivery], now: datetime
    ) -> Sequence[int | TelemetryError]:
        """See `Store.deliver`."""
        with self._lock:
            return [self._taken(delivery, now) for delivery in deliveries]

    def _taken(self, delivery: Delivery, now: datetime) -> int | TelemetryError:
        before = self._runs.get(delivery.run_id)
        kept = None if before is None else before.copy()
        try:
            return self._take(delivery, now)
        except TelemetryError as error:
            if kept is not None:
                self._runs[delivery.run_id] = kept
            return error

    def _take(self, delivery: Delivery, now: datetime) -> int:
        if isinstance(delivery, DeliveredRun):
            return self._take_run(delivery, now)
        self._refuse_deleted(delivery.run_id)
        run = self._runs.get(delivery.run_id)
        if run is None or run.stored.writer != delivery.writer:
            raise RunNotFound(delivery.run_id, (), SERVICE)
        run.stored = replace(run.stored, last_seen_at=now)
        if isinstance(delivery, DeliveredEnd):
            return _take_end(run, delivery)
        if run.stored.pruned_at is not None:
            raise RunPruned(delivery.run_id)
        attempts = max((attempt for _, attempt in run.rounds), default=0)
        news = [record for record in delivery.records if self._record(run, record)]
        if rules.resumes(run.stored.status, run.stored.ended_at, attempts, news):
            run.stored = replace(
                run.stored, status="running", ended_at=None, reason=None, sha256=None
            )
        return len(news)

    def _take_run(self, delivery: DeliveredRun, now: datetime) -> int:
        self._refuse_deleted(delivery.run_id)
        known = self._runs.get(delivery.run_id)
        if known is None:
            started = _started(delivery.info, None, now)
            self._runs[delivery.run_id] = _Run(replace(started, writer=delivery.writer))
            return 1
        if known.stored.writer != delivery.writer:
            raise RunNotFound(delivery.run_id, (), SERVICE)
        if known.stored.info != delivery.info:
            raise RunExists(delivery.run_id)
        known.stored = replace(known.stored, last_seen_at=now)
        return 0

    def add_token(self, token: ApiToken) -> None:
        """See `Store.add_token`."""
        with self._lock:
            if any(t.label == token.label and t.revoked_at is None for t in self._tokens):
                raise BadTokenFact(f"there is a token labelled {token.label}: revoke it first")
            self._tokens.append(token)

    def api_tokens(self) -> Sequence[ApiToken]:
        """See `Store.api_tokens`."""
        with self._lock:
            return sorted(self._tokens, key=lambda token: (token.created_at, token.sha256))

    def revoke_token(self, label: str, now: datetime) -> None:
        """See `Store.revoke_token`."""
        with self._lock:
            for place, token in enumerate(self._tokens):
                if token.label == label and token.revoked_at is None:
                    self._tokens[place] = replace(token, revoked_at=now)
                    return
        raise BadTokenFact(f"no token labelled {label[:64]!r} that holds")

    # --- reading runs --------------------------------------------------------------------------

    def runs(self) -> Sequence[StoredRun]:
        """See `Store.runs`."""
        with self._lock:
            return sorted((run.stored for run in self._runs.values()), key=_start, reverse=True)

    def page_of_runs(
        self, limit: int, start: tuple[datetime, str] | None = None
    ) -> Sequence[StoredRun]:
        """See `Store.page_of_runs`."""
        return [run for run in self.runs() if start is None or _start(run) <= start][:limit]

    def run(self, run_id: str) -> StoredRun:
        """See `Store.run`."""
        with self._lock:
            return self._find(run_id).stored

    # --- rounds --------------------------------------------------------------------------------

    def record_round(self, record: RoundRecord) -> bool:
        """See `Store.record_round`."""
        with self._lock:
            return self._record(self._find(record.run_id), record)

    def _record(self, run: _Run, record: RoundRecord) -> bool:
        if run.stored.pruned_at is not None:
            raise RunPruned(record.run_id)
        if problem := rules.impossible(record):
            raise ValueRefused(self.url, f"round {record.round} of run {record.run_id} {problem}")
        key = record.round, record.attempt
        stored = run.rounds.get(key)
        if stored is not None and not _replaces(record, stored, run.records.get(key)):
            return False
        run.put(record)
        return True

    def add_late_reports(self, run_id: str, count: int) -> None:
        """See `Store.add_late_reports`."""
        with self._lock:
            run = self._find(run_id)
            totals = run.stored.totals.with_late_reports(count)
            run.stored = replace(run.stored, totals=totals)

    def rounds(
        self, run_id: str, *, closed_only: bool = True, start: tuple[int, int] | None = None
    ) -> Iterator[RoundSummary]:
        """See `Store.rounds`."""
        with self._lock:
            run = self._find(run_id)
            found = run.summaries(closed=True)
            if not closed_only:
                found = sorted([*found, *run.summaries(closed=False)], key=_round_key)
        return iter([row for row in found if start is None or _round_key(row) >= start])

    def round(self, run_id: str, round_number: int, attempt: int | None = None) -> RoundRecord:
        """See `Store.round`."""
        with self._lock:
            run = self._find(run_id)
            attempts = [of for number, of in run.rounds if number == round_number]
            wanted = max(attempts, default=None) if attempt is None else attempt
            if wanted not in attempts:
                raise rules.no_such_round(self.url, run_id, round_number, attempt)
            record = run.records.get((round_number, wanted))
        if record is None:
            raise RowsNotKept(run_id)
        return record

    def reports(
        self, run_id: str, *, start: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, int, ReportRecord]]:
        """See `Store.reports`."""
        with self._lock:
            records = self._find(run_id).closed_records()
        return (
            (record.round, record.attempt, report)
            for record in records
            if start is None or (record.round, record.attempt) >= start
            for report in sorted(record.reports, key=_report_key)
        )

    def participants(self, run_id: str) -> Iterator[tuple[int, int, ParticipantRecord]]:
        """See `Store.participants`."""
        with self._lock:
            records = self._find(run_id).closed_records()
        return (
            (record.round, record.attempt, participant)
            for record in records
            for participant in sorted(record.participants, key=lambda p: p.node_id)
        )

    # --- views ---------------------------------------------------------------------------------

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """See `Store.exposed`."""
        with self._lock:
            chosen = rules.chosen_runs(
                [run.stored for run in self._runs.values()], now, owner, max_runs
            )
            detailed = rules.detailed_runs(chosen, max_runs)
            return [
                _expose(self._runs[run.run_id], max_rounds)
                if run.run_id in detailed
                else ExposedRun(run=run, open_round=None, rounds=())
                for run in chosen
            ]

    def latest(self, runs: Sequence[StoredRun], *, max_rounds: int) -> Sequence[ExposedRun]:
        """See `Store.latest`."""
        with self._lock:
            return [
                _expose(self._runs[run.run_id], max_rounds)
                if run.run_id in self._runs
                else ExposedRun(run=run, open_round=None, rounds=())
                for run in runs
            ]

    def check(self) -> None:
        """It is always there."""

    # --- what a service has acknowledged ------------------------------------------------------

    def undelivered(self, service: str, now: datetime, owner: Owner | None) -> Sequence[PendingRun]:
        """See `Store.undelivered`."""
        with self._lock:
            runs = [run.stored for run in self._runs.values()]
            chosen = rules.deliverable_runs(runs, now, owner)
            pending = [_pending(self._runs[run.run_id], service) for run in chosen]
        return [run for run in pending if not run.settled]

    def unacknowledged(self, services: Collection[str]) -> Sequence[str]:
        """See `Store.unacknowledged`."""
        with self._lock:
            return [
                run_id
                for run_id, run in sorted(self._runs.items())
                if rules.is_deliverable(run.stored)
                and not all(_pending(run, to).settled for to in {*services, *run.known_to})
            ]

    def mark_announced(self, service: str, run_id: str) -> None:
        """See `Store.mark_announced`."""
        with self._lock:
            self._find(run_id).known_to.setdefault(service, _Known()).ended_at = None

    def mark_delivered(self, service: str, run_id: str, rounds: Sequence[tuple[int, int]]) -> None:
        """See `Store.mark_delivered`."""
        with self._lock:
            known = self._find(run_id).known_to.setdefault(service, _Known())
            known.rounds.update(rounds)

    def mark_ended(self, service: str, run_id: str, ended_at: datetime) -> None:
        """See `Store.mark_ended`."""
        with self._lock:
            self._find(run_id).known_to.setdefault(service, _Known()).ended_at = ended_at

    def forget_delivered(self, service: str, run_id: str) -> None:
        """See `Store.forget_delivered`."""
        with self._lock:
            self._find(run_id).known_to.pop(service, None)

    def close(self) -> None:
        """Nothing to let go of."""

    def _find(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            self._refuse_deleted(run_id)
            newest = sorted((r.stored for r in self._runs.values()), key=_start, reverse=True)
            raise RunNotFound(run_id, tuple(r.run_id for r in newest[:_CANDIDATES]), self.url)
        return run

    def _refuse_deleted(self, run_id: str) -> None:
        if run_id in self._deleted:
            raise RunDeleted(run_id, self._deleted[run_id], self.url)


def _take_end(run: _Run, end: DeliveredEnd) -> int:
    late = 0
    if run.stored.pruned_at is None:
        inside = sum(row.reports_late for row in run.summaries(closed=True))
        missing = inside + end.late_reports - run.stored.totals.reports_late
        if missing > 0:
            totals = run.stored.totals.with_late_reports(missing)
            run.stored = replace(run.stored, totals=totals)
            late = 1
    known = run.stored.status, run.stored.ended_at, run.stored.reason
    if known == (end.status, end.ended_at, end.reason):
        return late
    if not rules.may_end_again(run.stored.status):
        raise EndConflict(end.run_id, run.stored.status)
    run.stored = replace(run.stored, status=end.status, ended_at=end.ended_at, reason=end.reason)
    if run.stored.pruned_at is None:
        run.seal()
    return 1


def _started(info: RunInfo, owner: Owner | None, now: datetime) -> StoredRun:
    return StoredRun(
        info=info,
        status="running",
        reason=None,
        ended_at=None,
        owner=owner,
        last_seen_at=now,
        totals=RunTotals(),
    )


def _replaces(record: RoundRecord, stored: RoundSummary, rows: RoundRecord | None) -> bool:
    """Whether ``record`` is to be stored over ``stored``, of which ``rows`` may be kept."""
    match rules.decide(record, stored.revision, stored.closed):
        case rules.Write.REPLACE:
            return True
        case rules.Write.SKIP:
            return False
        case rules.Write.COMPARE:
            if rows is not None and rules.same_content(rows, record):
                return False
            if rows is None and rules.same_figures(record, stored):
                return False
            raise RoundConflict(record.run_id, record.round, record.attempt)


def _close_open_rounds(run: _Run) -> None:
    for summary in run.summaries(closed=False):
        record = run.records.get((summary.round, summary.attempt))
        if record is None:
            run.put_summary(rules.summary_closed_by_interruption(summary))
        else:
            run.put(rules.closed_by_interruption(record))


def _interrupt(run: _Run) -> None:
    _close_open_rounds(run)
    run.stored = replace(
        run.stored,
        status="interrupted",
        reason=rules.GONE,
        ended_at=run.stored.last_seen_at,
        owner=None,
    )
    run.seal()


def _expose(run: _Run, max_rounds: int) -> ExposedRun:
    last_attempts = {s.round: s for s in run.summaries(closed=True) if s.round > 0}
    closed = list(last_attempts.values())
    opened = run.summaries(closed=False)
    return ExposedRun(
        run=run.stored,
        open_round=opened[-1] if opened else None,
        rounds=tuple(closed[max(0, len(closed) - max_rounds) :]),
    )


def _pending(run: _Run, service: str) -> PendingRun:
    closed = run.summaries(closed=True)
    known = run.known_to.get(service)
    has = set() if known is None else known.rounds
    return rules.pending_run(
        run.stored,
        [
            PendingRound.of(row)
            for row in closed
            if row.client_rows and (row.round, row.attempt) not in has
        ],
        None if known is None else known.ended_at,
        announced=known is not None,
        late_in_rounds=sum(row.reports_late for row in closed),
    )


def _start(run: StoredRun) -> tuple[datetime, str]:
    return run.info.started_at, run.run_id


def _round_key(summary: RoundSummary) -> tuple[int, int]:
    return summary.round, summary.attempt


def _report_key(report: ReportRecord) -> tuple[str, str, int]:
    return report.node_id, report.phase, report.reported_round
