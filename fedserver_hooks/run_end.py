"""How a run ends in its store: now if that can be had, later if not, and what is left if neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from telemetry.domain import Owner, RoundRecord, RunStatus
from telemetry.errors import StoreError
from telemetry.store.base import Store
from telemetry.writer import Failures, RoundWriter

_MOST_NAMED: Final = 20


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    status: RunStatus
    ended_at: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The last things that a run's record needs of its store. What goes wrong is noted, not raised."""

    run_id: str
    owner: Owner
    store: Store
    writer: RoundWriter
    failures: Failures

    def write(self, ending: Ending, unplaced: int, timeout_s: float) -> None:
        """Have all rounds written and then the end, with ``unplaced`` late reports; tried on until done."""

        def last() -> None:  # is tried again when it fails: each part must count once
            nonlocal unplaced
            if unplaced:
                self.store.add_late_reports(self.run_id, unplaced)
                unplaced = 0
            self.store.finish_run(self.run_id, ending.status, ending.ended_at, ending.reason)

        if not self.writer.close(timeout_s, last):
            left = self.writer.undelivered_rounds
            self.failures.note("store", f"{left} round(s) are not stored yet at the end")

    def tell_lost(self, lost: Sequence[RoundRecord]) -> None:
        """Say what nobody keeps and the store has not taken."""
        if not lost:
            return
        names = ", ".join(str(record.round) for record in lost[:_MOST_NAMED])
        more = " …" if len(lost) > _MOST_NAMED else ""
        self.failures.note(
            "store",
            f"{len(lost)} round(s) of run {self.run_id} are lost, "
            f"the store would not take them: {names}{more}",
        )

    def release(self) -> None:
        """The process is about to go: let others serve the run."""
        try:
            self.store.release(self.run_id, self.owner)
        except StoreError as error:
            self.failures.note("store", str(error))
