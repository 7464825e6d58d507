"""What a sender hands to a service's store: a run, some of its rounds, its end.

A delivery is stored whole or not at all, and may come again. ``writer`` says whose token it came
with; a run belongs to the writer who first delivered it, and to others it is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from telemetry.domain import RoundRecord, RunInfo, RunStatus

SERVICE: Final = "this service"
"""Where a run is not found; who asks is told of no other runs, nor of a database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredRun:
    """A run's facts."""

    writer: str
    info: RunInfo

    @property
    def run_id(self) -> str:
        """The run that it is about."""
        return self.info.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredRounds:
    """Rounds of one run."""

    writer: str
    run_id: str
    records: tuple[RoundRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredEnd:
    """The end of a run."""

    writer: str
    run_id: str
    status: RunStatus
    ended_at: datetime
    reason: str | None = None
    late_reports: int = 0
    """Reports that came when no round was open: a total, not what is new."""


Delivery = DeliveredRun | DeliveredRounds | DeliveredEnd
