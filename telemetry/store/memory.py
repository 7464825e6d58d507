"""A store in memory: for tests, for trials, and where nothing may be written to disk."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock
from typing import Final

from telemetry.domain import (
    ExposedRun,
    Owner,
    ParticipantRecord,
    ReportRecord,
    RoundRecord,
    RoundSummary,
    RunInfo,
    RunStatus,
    RunTotals,
    StoredRun,
)
from telemetry.errors import RoundConflict, RunExists, RunNotFound, RunNotResumable, StoreError
from telemetry.store import rules

_CANDIDATES: Final = 5


@dataclass
class _Run:
    """A run and its rounds; every value in it is immutable and only ever replaced."""

    stored: StoredRun
    records: dict[tuple[int, int], RoundRecord] = field(default_factory=dict)
    cumulative_kg: dict[tuple[int, int], float | None] = field(default_factory=dict)

    def put(self, record: RoundRecord) -> None:
        """Store a round that may be stored; a closed one enters the totals."""
        key = record.round, record.attempt
        self.records[key] = record
        if record.closed:
            totals = self.stored.totals.plus(record.summary())
            self.stored = replace(self.stored, totals=totals)
            self.cumulative_kg[key] = totals.total_emissions_kg

    def summaries(self, *, closed: bool) -> list[RoundSummary]:
        """The closed or the open rounds by (round, attempt)."""
        return [
            record.summary(self.cumulative_kg.get(key))
            for key, record in sorted(self.records.items())
            if record.closed is closed
        ]

    def closed_records(self) -> list[RoundRecord]:
        """The closed rounds, whole, by (round, attempt)."""
        return [record for _, record in sorted(self.records.items()) if record.closed]


class InMemoryStore:
    """A whole `Store` without a file; its content ends with the object."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
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

    def release(self, run_id: str, owner: Owner) -> None:
        """See `Store.release`."""
        with self._lock:
            run = self._find(run_id)
            if run.stored.owner == owner:
                run.stored = replace(run.stored, owner=None)

    def mark_interrupted(self, now: datetime, is_alive: Callable[[Owner], bool]) -> Sequence[str]:
        """See `Store.mark_interrupted`."""
        with self._lock:
            running = [run for run in self._runs.values() if run.stored.status == "running"]
            gone = [run for run in running if rules.is_gone(run.stored, now, is_alive)]
            for run in gone:
                _interrupt(run)
            return [run.stored.run_id for run in gone]

    def resume_run(self, run_id: str, owner: Owner, now: datetime) -> None:
        """See `Store.resume_run`."""
        with self._lock:
            run = self._find(run_id)
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
            )

    def runs(self) -> Sequence[StoredRun]:
        """See `Store.runs`."""
        with self._lock:
            return sorted((run.stored for run in self._runs.values()), key=_start, reverse=True)

    def run(self, run_id: str) -> StoredRun:
        """See `Store.run`."""
        with self._lock:
            return self._find(run_id).stored

    # --- rounds --------------------------------------------------------------------------------

    def record_round(self, record: RoundRecord) -> bool:
        """See `Store.record_round`."""
        with self._lock:
            run = self._find(record.run_id)
            if problem := rules.impossible(record):
                raise StoreError(self.url, f"round {record.round} of run {record.run_id} {problem}")
            stored = run.records.get((record.round, record.attempt))
            if stored is not None and not _replaces(record, stored):
                return False
            run.put(record)
            return True

    def add_late_reports(self, run_id: str, count: int) -> None:
        """See `Store.add_late_reports`."""
        with self._lock:
            run = self._find(run_id)
            totals = run.stored.totals.with_late_reports(count)
            run.stored = replace(run.stored, totals=totals)

    def rounds(self, run_id: str, *, closed_only: bool = True) -> Iterator[RoundSummary]:
        """See `Store.rounds`."""
        with self._lock:
            run = self._find(run_id)
            found = run.summaries(closed=True)
            if not closed_only:
                found = sorted([*found, *run.summaries(closed=False)], key=_round_key)
        return iter(found)

    def round(self, run_id: str, round_number: int, attempt: int | None = None) -> RoundRecord:
        """See `Store.round`."""
        with self._lock:
            records = self._find(run_id).records
            attempts = [of for number, of in records if number == round_number]
            wanted = max(attempts, default=None) if attempt is None else attempt
            if wanted not in attempts:
                raise rules.no_such_round(self.url, run_id, round_number, attempt)
            return records[round_number, wanted]

    def reports(self, run_id: str) -> Iterator[tuple[int, int, ReportRecord]]:
        """See `Store.reports`."""
        with self._lock:
            records = self._find(run_id).closed_records()
        return (
            (record.round, record.attempt, report)
            for record in records
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

    def close(self) -> None:
        """Nothing to let go of."""

    def _find(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            newest = sorted((r.stored for r in self._runs.values()), key=_start, reverse=True)
            raise RunNotFound(run_id, tuple(r.run_id for r in newest[:_CANDIDATES]), self.url)
        return run


def _started(info: RunInfo, owner: Owner, now: datetime) -> StoredRun:
    return StoredRun(
        info=info,
        status="running",
        reason=None,
        ended_at=None,
        owner=owner,
        last_seen_at=now,
        totals=RunTotals(),
    )


def _replaces(record: RoundRecord, stored: RoundRecord) -> bool:
    """Whether ``record`` is to be stored over ``stored``."""
    match rules.decide(record, stored.revision, stored.closed):
        case rules.Write.REPLACE:
            return True
        case rules.Write.SKIP:
            return False
        case rules.Write.COMPARE:
            if rules.same_content(stored, record):
                return False
            raise RoundConflict(record.run_id, record.round, record.attempt)


def _close_open_rounds(run: _Run) -> None:
    for key, record in sorted(run.records.items()):
        if not record.closed:
            run.records.pop(key)
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


def _expose(run: _Run, max_rounds: int) -> ExposedRun:
    last_attempts = {s.round: s for s in run.summaries(closed=True) if s.round > 0}
    closed = list(last_attempts.values())
    opened = run.summaries(closed=False)
    return ExposedRun(
        run=run.stored,
        open_round=opened[-1] if opened else None,
        rounds=tuple(closed[max(0, len(closed) - max_rounds) :]),
    )


def _start(run: StoredRun) -> tuple[datetime, str]:
    return run.info.started_at, run.run_id


def _round_key(summary: RoundSummary) -> tuple[int, int]:
    return summary.round, summary.attempt


def _report_key(report: ReportRecord) -> tuple[str, str, int]:
    return report.node_id, report.phase, report.reported_round
