"""What a service has not acknowledged of a run, and what is told to it at the run's end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from telemetry.domain.run import StoredRun
from telemetry.domain.summary import RoundSummary
from telemetry.domain.vocabulary import RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRound:
    """A closed round that a service has not acknowledged."""

    round: int
    attempt: int
    ended_at: datetime
    started_at: datetime
    cumulative_emissions_kg: float | None
    sequence: int | None = None

    @property
    def key(self) -> tuple[int, int]:
        """(round, attempt)"""
        return self.round, self.attempt

    @property
    def closing_order(self) -> tuple[float, ...]:
        """Sorts rounds as their server closed them, so that a receiver adds them up in the same order.

        Those that do not say their place as `RoundSummary.closing_order` does, but starts decide.
        """
        if self.sequence is not None:
            return 1, self.sequence, self.attempt, self.round
        known = self.cumulative_emissions_kg
        started = self.started_at.timestamp()
        return 0, -1.0 if known is None else known, started, self.round, self.attempt

    @classmethod
    def of(cls, row: RoundSummary) -> PendingRound:
        """What is needed of a stored round."""
        return cls(
            round=row.round,
            attempt=row.attempt,
            ended_at=row.ended_at,
            started_at=row.started_at,
            cumulative_emissions_kg=row.cumulative_emissions_kg,
            sequence=row.sequence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run ended, as a service is told."""

    status: RunStatus
    ended_at: datetime
    reason: str | None
    late_reports: int
    """Reports of the run that came when no round was open."""

    @classmethod
    def of(cls, run: StoredRun, in_rounds: int) -> RunEnd | None:
        """The end of a run of whose late reports so many are in its rounds; None while it runs."""
        if run.ended_at is None:
            return None
        late = run.totals.reports_late - in_rounds
        return cls(status=run.status, ended_at=run.ended_at, reason=run.reason, late_reports=late)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRun:
    """A run of which a service has not acknowledged everything."""

    run: StoredRun
    announced: bool
    """Whether the service knows that the run is there and, if so, goes on."""
    rounds: tuple[PendingRound, ...]
    """Closed, in the order in which they were closed."""
    end: RunEnd | None
    """What is still to be told of the end; None where it is known, or has not come."""

    @property
    def run_id(self) -> str:
        """Shorthand for ``run.run_id``."""
        return self.run.run_id

    @property
    def settled(self) -> bool:
        """Whether nothing is left to tell."""
        return self.announced and not self.rounds and self.end is None
