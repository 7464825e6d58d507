"""A run's figures so far, from the records of its rounds: those of ``/metrics``, put together as there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import median
from typing import Final

from fedserver.terminal.view import FootprintView, MetricView
from fedserver.wording import headline_note
from telemetry.analysis.value import value_of
from telemetry.domain import GRAMS_PER_KG, ExposedRun, RoundRecord, RoundSummary, StoredRun
from telemetry.exporters.samples import RunView, budget_used_ratio, emissions_so_far_g

LIKE_ROUNDS: Final = 5
"""A round is expected to take the median of the last so many."""
HISTORY: Final = 60
"""Rounds of a sparkline."""


class Figures:
    """Worked out anew when a record comes, and only then. ``rounds`` are closed ones of before."""

    def __init__(self, run: StoredRun, rounds: Iterable[RoundSummary]) -> None:
        self._run = run
        self._closed = {row.round: row for row in rounds if row.round}  # of attempts the last
        self._open: RoundSummary | None = None
        self.metrics: tuple[MetricView, ...] = ()
        self.footprint: FootprintView | None = None
        """None where emissions are not tracked."""
        self.expected_s: float | None = None
        """What a round takes; None before one has ended."""
        self._work_out()

    @property
    def failed_rounds(self) -> int:
        """How many rounds have no new model."""
        return self._run.totals.rounds.get("failed", 0)

    def take(self, record: RoundRecord) -> None:
        """A round was recorded: how far it is, or for good."""
        row = record.summary()
        key = row.attempt, row.round
        if record.closed:
            self._run = replace(self._run, totals=self._run.totals.plus(row))
            if row.round:
                self._closed[row.round] = row
            if self._open is not None and (self._open.attempt, self._open.round) <= key:
                self._open = None
        else:
            self._open = row
        self._work_out()

    def _work_out(self) -> None:
        rows = tuple(row for _, row in sorted(self._closed.items()))
        exposed = ExposedRun(run=self._run, open_round=self._open, rounds=rows)
        shown = RunView(exposed, self._run.last_seen_at, None)
        self.metrics = tuple(_metrics(shown))
        self.footprint = _footprint(shown) if shown.tracked else None
        took = [row.duration_s for row in rows[-LIKE_ROUNDS:]]
        self.expected_s = median(took) if took else None


def _metrics(shown: RunView) -> Iterable[MetricView]:
    for name in shown.metric_names:
        value = value_of(shown.exposed.rounds, name)
        if value is not None:
            yield MetricView(
                name=name,
                last=value.steps[-1].value,
                best=value.best.value,
                best_round=value.best.round,
                history=tuple(step.value for step in value.steps[-HISTORY:]),
            )


def _footprint(shown: RunView) -> FootprintView:
    rows, info = shown.exposed.rounds, shown.exposed.run.info
    so_far_g = emissions_so_far_g(shown)
    asked = next((row for row in reversed(rows) if row.participants), None)
    known = asked is not None and asked.reported is not None
    return FootprintView(
        total_kg=None if so_far_g is None else so_far_g / GRAMS_PER_KG,
        rounds_kg=tuple(row.measured_emissions_kg for row in rows[-HISTORY:]),
        note=headline_note(info.factors),
        coverage=(asked.reported or 0, asked.participants) if asked is not None and known else None,
        coverage_round=asked.round if asked is not None and known else None,
        rejected=asked.rejected or 0 if asked is not None else 0,
        budget_kg=info.budget_kg,
        budget_used=budget_used_ratio(shown),
    )
