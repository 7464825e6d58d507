"""A run as `InMemoryStore` keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from telemetry.domain import (
    ExposedRun,
    PendingRound,
    PendingRun,
    RoundRecord,
    RoundSummary,
    StoredRun,
)
from telemetry.errors import EndConflict
from telemetry.store import rules
from telemetry.store.deliveries import DeliveredEnd

RoundKey = tuple[int, int]
"""(round, attempt)"""


@dataclass
class Known:
    """What a service has acknowledged of a run."""

    ended_at: datetime | None = None
    rounds: set[RoundKey] = field(default_factory=set)


@dataclass
class MemoryRun:
    """A run and its rounds; every value in it is immutable and only ever replaced."""

    stored: StoredRun
    rounds: dict[RoundKey, RoundSummary] = field(default_factory=dict)
    records: dict[RoundKey, RoundRecord] = field(default_factory=dict)
    """Of the rounds that keep their rows."""
    known_to: dict[str, Known] = field(default_factory=dict)
    """Service → what it has acknowledged."""

    def copy(self) -> MemoryRun:
        """As it is now; what is stored later does not change it."""
        known = {to: Known(has.ended_at, set(has.rounds)) for to, has in self.known_to.items()}
        return MemoryRun(self.stored, dict(self.rounds), dict(self.records), known)

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
        if self.stored.ended_at is not None:
            for row in rules.wrongly_added(self.summaries(closed=True)):
                self.rounds[row.round, row.attempt] = row
        sha256 = rules.sealed(self.stored, self.summaries(closed=True))
        self.stored = replace(self.stored, sha256=sha256)

    def summaries(self, *, closed: bool) -> list[RoundSummary]:
        """The closed or the open rounds by (round, attempt)."""
        return [row for _, row in sorted(self.rounds.items()) if row.closed is closed]

    def closed_records(self) -> list[RoundRecord]:
        """The closed rounds, whole, by (round, attempt)."""
        return [record for _, record in sorted(self.records.items()) if record.closed]

    def take_end(self, end: DeliveredEnd) -> int:
        """Let a service's delivery end the run: how much of it was news. Raises `EndConflict`."""
        late = 0
        if self.stored.pruned_at is None:
            inside = sum(row.reports_late for row in self.summaries(closed=True))
            missing = inside + end.late_reports - self.stored.totals.reports_late
            if missing > 0:
                totals = self.stored.totals.with_late_reports(missing)
                self.stored = replace(self.stored, totals=totals)
                late = 1
        known = self.stored.status, self.stored.ended_at, self.stored.reason
        if known == (end.status, end.ended_at, end.reason):
            return late
        if not rules.may_end_again(self.stored.status):
            raise EndConflict(end.run_id, self.stored.status)
        self.stored = replace(
            self.stored, status=end.status, ended_at=end.ended_at, reason=end.reason
        )
        if self.stored.pruned_at is None:
            self.seal()
        return 1

    def close_open_rounds(self) -> None:
        """Close what is open, as a server leaves it that is gone."""
        for summary in self.summaries(closed=False):
            record = self.records.get((summary.round, summary.attempt))
            if record is None:
                self.put_summary(rules.summary_closed_by_interruption(summary))
            else:
                self.put(rules.closed_by_interruption(record))

    def interrupt(self) -> None:
        """End the run of a server that is gone, with its last word."""
        self.close_open_rounds()
        self.stored = replace(
            self.stored,
            status="interrupted",
            reason=rules.GONE,
            ended_at=self.stored.last_seen_at,
            owner=None,
        )
        self.seal()

    def exposed(self, max_rounds: int) -> ExposedRun:
        """See `Store.exposed`."""
        last_attempts = {s.round: s for s in self.summaries(closed=True) if s.round > 0}
        closed = list(last_attempts.values())
        opened = self.summaries(closed=False)
        return ExposedRun(
            run=self.stored,
            open_round=opened[-1] if opened else None,
            rounds=tuple(closed[max(0, len(closed) - max_rounds) :]),
        )

    def pending(self, service: str) -> PendingRun:
        """What a service has not acknowledged; see `Store.undelivered`."""
        closed = self.summaries(closed=True)
        known = self.known_to.get(service)
        has = set() if known is None else known.rounds
        return rules.pending_run(
            self.stored,
            [
                PendingRound.of(row)
                for row in closed
                if row.client_rows and (row.round, row.attempt) not in has
            ],
            None if known is None else known.ended_at,
            announced=known is not None,
            late_in_rounds=sum(row.reports_late for row in closed),
        )
