"""A round, whole: `RoundRecord`, where figures are added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from math import fsum
from typing import Annotated

from pydantic import AwareDatetime, Field

from telemetry.domain.columns import Columns
from telemetry.domain.energy import emissions_kg, metered_part
from telemetry.domain.estimates import communication_kg, impute
from telemetry.domain.evidence import columns_sha256
from telemetry.domain.once import once
from telemetry.domain.parts import (
    Factors,
    Histogram,
    Imputation,
    Lap,
    NoiseRecord,
    ParticipantRecord,
    ReportRecord,
)
from telemetry.domain.summary import RoundSummary
from telemetry.domain.vocabulary import (
    COMPLETE_METERED_SHARE,
    Count,
    FiniteFloat,
    NonNegative,
    Outcome,
    Record,
    ReportOutcome,
    RoundStatus,
    RunId,
    ServerPhase,
    ShortText,
    sum_known,
)


class RoundRecord(Record):
    """One attempt at one round, whole: clients, reports, server laps, training metrics.

    A round is identified by (run, round, attempt). While it is open it may be written again with a
    higher ``revision``; once ``closed`` it never changes. Round 0 is the set-up before the first
    round. The sums below are the only place where figures are added up.
    """

    run_id: RunId
    round: Count
    attempt: Annotated[int, Field(ge=1)] = 1
    revision: Count = 0
    sequence: Annotated[int, Field(ge=1)] | None = None
    """Which of all the run's rounds this is, from 1, as its server began (and closed) them, whatever
    its number and attempt, and however often the server was started; None where it did not say.
    """
    closed: bool = False
    tracked: bool = True
    """False where emissions are not tracked: figures and outcomes are then unknown, not zero."""
    client_rows: bool = True
    """False where a store keeps the round's sums and distributions only, and no row of a client."""
    status: RoundStatus
    reason: ShortText | None = None
    started_at: AwareDatetime
    ended_at: AwareDatetime
    connected: Count | None = None
    factors: Factors
    participants: tuple[ParticipantRecord, ...] = ()
    reports: tuple[ReportRecord, ...] = ()
    reports_repeated: Count = 0
    laps: tuple[Lap, ...] = ()
    train_metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    evaluate_metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    privacy_epsilon: NonNegative | None = None
    noise: NoiseRecord | None = None
    """Not in `summary`, and so in nothing that is made of it."""

    # --- clients -----------------------------------------------------------------------------

    @once
    def duration_s(self) -> float:
        """Seconds from the round's start to its end."""
        return (self.ended_at - self.started_at) / timedelta(seconds=1)

    @once
    def trained(self) -> tuple[ParticipantRecord, ...]:
        """Those who were sent a train message."""
        return tuple(p for p in self.participants if p.train)

    @once
    def outcomes(self) -> Mapping[Outcome, int]:
        """Participants by outcome; their sum is the number of participants where tracked."""
        return Counter(p.outcome for p in self.trained if p.outcome is not None)

    def outcome_count(self, outcome: Outcome) -> int | None:
        """Participants of that outcome; only failures are known where emissions are not tracked."""
        known = self.tracked or outcome == "failed"
        return self.outcomes.get(outcome, 0) if known else None

    @property
    def coverage(self) -> float | None:
        """Share of the participants who reported; None without any, or untracked."""
        reported, participants = self.outcome_count("reported"), len(self.trained)
        return None if reported is None or not participants else reported / participants

    @once
    def accepted(self) -> tuple[ReportRecord, ...]:
        """The reports that count."""
        return tuple(r for r in self.reports if r.accepted)

    @property
    def evaluate_reported(self) -> int | None:
        """Accepted reports from evaluation; never part of coverage."""
        if not self.tracked:
            return None
        return sum(1 for r in self.accepted if r.phase == "evaluate" and not r.late)

    @property
    def reports_without_host(self) -> int | None:
        """Accepted reports that name no host: counted in full, whatever machine they ran on.

        Those that the host rule scaled are known to be on the server's, by their address.
        """
        if not self.tracked:
            return None
        return sum(
            1
            for r in self.accepted
            if r.host_id is None
            and not r.on_server_host
            and r.counted_emissions_kg == r.emissions_kg
        )

    def report_count(self, outcome: ReportOutcome) -> int:
        """Reports that arrived, by what became of them; each has exactly one outcome."""
        match outcome:
            case "accepted":
                return len(self.accepted) - self._late
            case "late":
                return self._late
            case "rejected":
                return len(self.reports) - len(self.accepted)
            case "repeated":
                return self.reports_repeated

    @once
    def _late(self) -> int:
        return sum(1 for r in self.accepted if r.late)

    # --- energy, kWh at the meter --------------------------------------------------------------

    @once
    def metered_share(self) -> float | None:
        """Metered seconds ÷ seconds of the round; None where nothing could be metered."""
        if not self.laps or self.duration_s <= 0:
            return None
        return min(1.0, fsum(lap.metered_s for lap in self.laps) / self.duration_s)

    @once
    def host_energy_kwh(self) -> float | None:
        """What the server's meter showed, before the clients on its host are split off."""
        return sum_known(lap.energy_kwh for lap in self.laps)

    @once
    def server_energy_kwh(self) -> float | None:
        """The server's own part: the meter's figure less that of the clients on its host."""
        whole = self.host_energy_kwh
        if whole is None:
            return None
        on_host = fsum([r.counted_energy_kwh or 0.0 for r in self.accepted if r.on_server_host])
        # Clients count for the whole round: of a part that was metered, their part of it is theirs.
        return max(0.0, whole - on_host * metered_part(self.laps, self.duration_s))

    @once
    def clients_energy_kwh(self) -> float | None:
        """Energy of the reports that carry one; None if none does (0 when nobody took part)."""
        known = sum_known(r.counted_energy_kwh for r in self.accepted)
        return self._zero_if_nobody(known)

    @property
    def clients_energy_reports(self) -> int | None:
        """How many reports `clients_energy_kwh` is the sum of."""
        if not self.tracked:
            return None
        return sum(1 for r in self.accepted if r.counted_energy_kwh is not None)

    # --- emissions, kg CO2eq -------------------------------------------------------------------

    @once
    def server_emissions_kg(self) -> float | None:
        """The server's energy × PUE × carbon intensity; None if nothing was metered."""
        energy = self.server_energy_kwh
        return None if energy is None else emissions_kg(energy, self.factors)

    @once
    def clients_emissions_kg(self) -> float | None:
        """What the accepted reports count for; None if none (0 when nobody took part)."""
        return self._zero_if_nobody(sum_known(r.counted_emissions_kg for r in self.accepted))

    @once
    def total_emissions_kg(self) -> float | None:
        """The known ones of server and clients; None only if neither is known."""
        return sum_known((self.server_emissions_kg, self.clients_emissions_kg))

    @once
    def flagged(self) -> tuple[ReportRecord, ...]:
        """Accepted reports that bear a mark; they count like any other."""
        return tuple(r for r in self.accepted if r.outlier or r.looks_cumulative)

    @property
    def reports_flagged(self) -> int | None:
        """How many accepted reports bear a mark."""
        return len(self.flagged) if self.tracked else None

    @property
    def flagged_emissions_kg(self) -> float | None:
        """What the marked reports count for: part of the total, never added to it."""
        if not self.tracked:
            return None
        return fsum(r.counted_emissions_kg or 0.0 for r in self.flagged)

    @property
    def clients_reported_emissions_kg(self) -> float | None:
        """What the accepted reports said, before the host rule."""
        return self._zero_if_nobody(sum_known(r.emissions_kg for r in self.accepted))

    @property
    def complete(self) -> bool | None:
        """Server metered for ≥ 99 % of the round and every participant reported."""
        if not self.tracked:
            return None
        return (self.metered_share or 0.0) >= COMPLETE_METERED_SHARE and all(
            p.outcome == "reported" for p in self.trained
        )

    def _zero_if_nobody(self, known: float | None) -> float | None:
        nobody = self.tracked and not self.participants
        return 0.0 if known is None and nobody else known

    # --- communication -------------------------------------------------------------------------

    @once
    def bytes_to_clients(self) -> int | None:
        """Bytes of the messages to clients; None where no transport of ours counted them."""
        return _sum_known_ints(p.bytes_to for p in self.participants)

    @once
    def bytes_from_clients(self) -> int | None:
        """Bytes of the replies; None where no transport of ours counted them."""
        return _sum_known_ints(p.bytes_from for p in self.participants)

    # --- estimates, beside the measured total and never in it -------------------------------------

    @once
    def communication_emissions_kg_estimated(self) -> float | None:
        """Bytes ÷ 10^9 × kWh/GB × the server's carbon intensity; None without that factor.

        None where emissions are not tracked, too: no emissions at all are then on record.
        """
        if not self.tracked:
            return None
        size = _sum_known_ints((self.bytes_to_clients, self.bytes_from_clients))
        return communication_kg(size, self.factors)

    @once
    def imputation(self) -> Imputation | None:
        """An estimate for the clients that did not report; None where it is off or has no ground."""
        if not (self.tracked and self.factors.impute_missing):
            return None
        return impute(self.participants, self.accepted)

    @property
    def estimated_total_emissions_kg(self) -> float | None:
        """The measured total and the estimates that are known; None where there is none of either."""
        imputed = self.imputation
        estimates = (
            self.communication_emissions_kg_estimated,
            None if imputed is None else imputed.central_kg,
        )
        measured, estimated = self.total_emissions_kg, sum_known(estimates)
        return None if measured is None or estimated is None else fsum((measured, estimated))

    # --- evidence ----------------------------------------------------------------------------------

    @once
    def participant_columns(self) -> Columns:
        """The participants, field by field."""
        return Columns(ParticipantRecord, self.participants)

    @once
    def report_columns(self) -> Columns:
        """The reports, field by field."""
        return Columns(ReportRecord, self.reports)

    @property
    def evidence_sha256(self) -> str | None:
        """Digest of the rows that the figures were made from; None where they are not kept."""
        return self.digest_of_rows()

    def digest_of_rows(self, give_way: Callable[[], object] = lambda: None) -> str | None:
        """`evidence_sha256`, for whoever lets others have a turn meanwhile: ``give_way`` is called."""
        if not (self.closed and self.client_rows):
            return None
        laps = Columns(Lap, self.laps)
        return columns_sha256(self.participant_columns, self.report_columns, laps, give_way)

    # --- the stored form -----------------------------------------------------------------------

    @property
    def client_histogram(self) -> Histogram:
        """Counted emissions of each client in this round, train and evaluate together."""
        by_client: dict[str, float] = {}
        for report in self.accepted:
            if report.counted_emissions_kg is not None:
                before = by_client.get(report.node_id, 0.0)
                by_client[report.node_id] = before + report.counted_emissions_kg
        return Histogram.of(by_client.values())

    def phase_energy_kwh(self, phase: ServerPhase) -> float | None:
        """The server's energy in one phase, before the split."""
        return sum_known(lap.energy_kwh for lap in self.laps if lap.phase == phase)

    def summary(self, cumulative_emissions_kg: float | None = None) -> RoundSummary:
        """The round as one flat row; ``cumulative_emissions_kg`` is the run's so far, this included."""
        if cumulative_emissions_kg is None:
            return self._summary
        return replace(self._summary, cumulative_emissions_kg=cumulative_emissions_kg)

    @once
    def _summary(self) -> RoundSummary:
        return self.summary_with(self.evidence_sha256)

    def summary_with(self, evidence_sha256: str | None) -> RoundSummary:
        """`summary` with that digest, for whoever has the rows' own made elsewhere.

        Of ten thousand rows the digest takes ten times as long as all the figures.
        """
        return RoundSummary.of(self, evidence_sha256)


def _sum_known_ints(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
