"""A round whose rows of clients are not kept: what they came to, and no row."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

from pydantic import model_validator

from telemetry.domain.round import RoundRecord
from telemetry.domain.summary import RoundSummary


class RowlessRound(RoundRecord):
    """A round without ``client_rows`` that waits outside a store, in a file for example.

    Its sums were computed by the record that had the rows, and are stored as they are. A store takes
    it for that record.
    """

    sums: RoundSummary

    @classmethod
    def of(cls, record: RoundRecord) -> Self:
        """The same round without its rows."""
        kept = set(RoundRecord.model_fields) - {"client_rows", "participants", "reports"}
        whole = record.model_copy(update={"client_rows": False})
        summary = whole.summary()
        sums = replace(  # plain mappings: those of a summary forbid changes, and are no JSON
            summary,
            phase_energy_kwh=dict(summary.phase_energy_kwh),
            train_metrics=dict(summary.train_metrics),
            evaluate_metrics=dict(summary.evaluate_metrics),
        )
        return cls(client_rows=False, sums=sums, **{name: getattr(record, name) for name in kept})

    @model_validator(mode="after")
    def _is_rowless(self) -> Self:
        if self.client_rows or self.participants or self.reports:
            raise ValueError("a round without rows holds rows of clients")
        key = self.run_id, self.round, self.attempt, self.closed
        sums = self.sums
        if (sums.run_id, sums.round, sums.attempt, sums.closed) != key:
            raise ValueError("the sums are those of another round")
        return self

    def summary(self, cumulative_emissions_kg: float | None = None) -> RoundSummary:
        """The sums as they were computed."""
        return replace(self.sums, cumulative_emissions_kg=cumulative_emissions_kg)
