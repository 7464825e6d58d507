"""A round as it is stored and shown: `RoundSummary`, one flat row with every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from telemetry.domain.frozen import quickly_built
from telemetry.domain.parts import Factors, Histogram
from telemetry.domain.vocabulary import SERVER_PHASES, RoundStatus, ServerPhase

if TYPE_CHECKING:
    from telemetry.domain.round import RoundRecord


@quickly_built
@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSummary:
    """One stored round as a flat row: what exports, ``/metrics`` and tables are views of.

    Made by `RoundRecord.summary` only, or read back from the store.
    """

    run_id: str
    round: int
    attempt: int
    revision: int
    closed: bool
    tracked: bool
    client_rows: bool
    status: RoundStatus
    reason: str | None
    started_at: datetime
    ended_at: datetime
    duration_s: float
    connected: int | None
    participants: int
    reported: int | None
    missing: int | None
    rejected: int | None
    failed: int
    coverage: float | None
    complete: bool | None
    evaluate_reported: int | None
    reports_without_host: int | None
    reports_accepted: int
    reports_rejected: int
    reports_repeated: int
    reports_late: int
    metered_share: float | None
    host_energy_kwh: float | None
    server_energy_kwh: float | None
    clients_energy_kwh: float | None
    clients_energy_reports: int | None
    server_emissions_kg: float | None
    clients_emissions_kg: float | None
    total_emissions_kg: float | None
    cumulative_emissions_kg: float | None
    clients_reported_emissions_kg: float | None
    factors: Factors
    bytes_to_clients: int | None
    bytes_from_clients: int | None
    communication_emissions_kg_estimated: float | None
    imputed_emissions_kg: float | None
    imputed_low_emissions_kg: float | None
    imputed_high_emissions_kg: float | None
    imputed_clients: int | None
    estimated_total_emissions_kg: float | None
    reports_flagged: int | None
    flagged_emissions_kg: float | None
    evidence_sha256: str | None
    privacy_epsilon: float | None
    client_histogram: Histogram
    phase_energy_kwh: Mapping[ServerPhase, float | None]
    train_metrics: Mapping[str, float]
    evaluate_metrics: Mapping[str, float]
    sequence: int | None = None
    """See `RoundRecord.sequence`."""

    @classmethod
    def of(cls, record: RoundRecord, evidence_sha256: str | None) -> RoundSummary:
        """A round's figures, each worked out once, with the digest of its rows; no cumulative one."""
        imputed = record.imputation
        return cls(
            run_id=record.run_id,
            round=record.round,
            attempt=record.attempt,
            revision=record.revision,
            closed=record.closed,
            tracked=record.tracked,
            client_rows=record.client_rows,
            status=record.status,
            reason=record.reason,
            started_at=record.started_at,
            ended_at=record.ended_at,
            duration_s=record.duration_s,
            connected=record.connected,
            participants=len(record.trained),
            reported=record.outcome_count("reported"),
            missing=record.outcome_count("missing"),
            rejected=record.outcome_count("rejected"),
            failed=record.outcome_count("failed") or 0,
            coverage=record.coverage,
            complete=record.complete,
            evaluate_reported=record.evaluate_reported,
            reports_without_host=record.reports_without_host,
            reports_accepted=record.report_count("accepted"),
            reports_rejected=record.report_count("rejected"),
            reports_repeated=record.report_count("repeated"),
            reports_late=record.report_count("late"),
            metered_share=record.metered_share,
            host_energy_kwh=record.host_energy_kwh,
            server_energy_kwh=record.server_energy_kwh,
            clients_energy_kwh=record.clients_energy_kwh,
            clients_energy_reports=record.clients_energy_reports,
            server_emissions_kg=record.server_emissions_kg,
            clients_emissions_kg=record.clients_emissions_kg,
            total_emissions_kg=record.total_emissions_kg,
            cumulative_emissions_kg=None,
            clients_reported_emissions_kg=record.clients_reported_emissions_kg,
            factors=record.factors,
            bytes_to_clients=record.bytes_to_clients,
            bytes_from_clients=record.bytes_from_clients,
            communication_emissions_kg_estimated=record.communication_emissions_kg_estimated,
            imputed_emissions_kg=None if imputed is None else imputed.central_kg,
            imputed_low_emissions_kg=None if imputed is None else imputed.low_kg,
            imputed_high_emissions_kg=None if imputed is None else imputed.high_kg,
            imputed_clients=None if imputed is None else imputed.clients,
            estimated_total_emissions_kg=record.estimated_total_emissions_kg,
            reports_flagged=record.reports_flagged,
            flagged_emissions_kg=record.flagged_emissions_kg,
            evidence_sha256=evidence_sha256,
            privacy_epsilon=record.privacy_epsilon,
            client_histogram=record.client_histogram,
            phase_energy_kwh=MappingProxyType(
                {phase: record.phase_energy_kwh(phase) for phase in SERVER_PHASES}
            ),
            train_metrics=MappingProxyType(dict(record.train_metrics)),
            evaluate_metrics=MappingProxyType(dict(record.evaluate_metrics)),
            sequence=record.sequence,
        )

    @property
    def closing_order(self) -> tuple[float, ...]:
        """Sorts the closed rounds of a run as its server closed them.

        Those that do not say their place (they are of older servers, and came first) as they were added
        up: the cumulative figure never falls, whatever a clock does, and of equal ones only the first
        added anything.
        """
        if self.sequence is not None:
            return 1, self.sequence, self.attempt, self.round
        known, own = self.cumulative_emissions_kg, self.measured_emissions_kg
        return (
            0, -1.0 if known is None else known, own is None, -(own or 0.0), self.attempt, self.round,
        )  # fmt: skip

    @property
    def measured_emissions_kg(self) -> float | None:
        """What the round adds to its run's total; None where nothing of it is known.

        `total_emissions_kg` but for the 0 of a round that nobody took part in and whose server was
        not metered, such as a set-up without a meter: true of the clients, and no knowledge of the
        run.
        """
        known = self.server_emissions_kg is not None or self.client_histogram.count > 0
        return self.total_emissions_kg if known else None
