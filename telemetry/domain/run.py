"""A run: what is fixed at its start, whose it is, and what its closed rounds add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from pydantic import AwareDatetime, Field

from telemetry.domain.exact import Rest, exactly
from telemetry.domain.parts import Factors, Histogram
from telemetry.domain.summary import RoundSummary
from telemetry.domain.vocabulary import (
    SERVER_PHASES,
    Count,
    NonNegative,
    OnBudget,
    Record,
    RoundStatus,
    RunId,
    RunStatus,
    ServerPhase,
    ShortText,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """Sums over a run's *closed* rounds, kept in the transaction that closes a round.

    None is "never known so far". Nothing in here ever falls.
    """

    rounds: Mapping[RoundStatus, int] = field(default_factory=lambda: MappingProxyType({}))
    """Closed rounds by status; round 0 is not one of them."""
    server_energy_kwh: float | None = None
    clients_energy_kwh: float | None = None
    server_emissions_kg: float | None = None
    clients_emissions_kg: float | None = None
    total_emissions_kg: float | None = None
    phase_energy_kwh: Mapping[ServerPhase, float | None] = field(
        default_factory=lambda: MappingProxyType(dict.fromkeys(SERVER_PHASES))
    )
    reports_accepted: int = 0
    reports_rejected: int = 0
    reports_repeated: int = 0
    reports_late: int = 0
    reports_without_host: int = 0
    bytes_to_clients: int | None = None
    bytes_from_clients: int | None = None
    communication_emissions_kg_estimated: float | None = None
    imputed_emissions_kg: float | None = None
    imputed_low_emissions_kg: float | None = None
    imputed_high_emissions_kg: float | None = None
    client_histogram: Histogram = field(default_factory=Histogram)
    rests: Mapping[str, Rest] = field(default_factory=lambda: MappingProxyType({}))
    """What the rounding of a sum left out, by its name (`telemetry.domain.exact`): the sums are then the
    same in whatever order rounds come that say their place.
    """

    def plus(self, closed: RoundSummary) -> RunTotals:
        """These totals and one more closed round."""
        rounds = dict(self.rounds)
        if closed.round > 0:
            rounds[closed.status] = rounds.get(closed.status, 0) + 1
        rests = dict(self.rests)

        def add(name: str, total: float | None, value: float | None) -> float | None:
            with_it, rest = added(total, rests.pop(name, ()), closed, value)
            if rest:
                rests[name] = rest
            return with_it

        sums = {
            name: add(name, getattr(self, name), value)
            for name, value in (
                ("server_energy_kwh", closed.server_energy_kwh),
                # The 0 of a round that nobody took part in, such as the set-up, is no knowledge of
                # the clients: of a fleet that never reports, the sum stays unknown.
                (
                    "clients_energy_kwh",
                    closed.clients_energy_kwh if closed.clients_energy_reports else None,
                ),
                ("server_emissions_kg", closed.server_emissions_kg),
                (
                    "clients_emissions_kg",
                    closed.clients_emissions_kg if closed.client_histogram.count else None,
                ),
                ("total_emissions_kg", closed.measured_emissions_kg),
                (
                    "communication_emissions_kg_estimated",
                    closed.communication_emissions_kg_estimated,
                ),
                ("imputed_emissions_kg", closed.imputed_emissions_kg),
                ("imputed_low_emissions_kg", closed.imputed_low_emissions_kg),
                ("imputed_high_emissions_kg", closed.imputed_high_emissions_kg),
            )
        }
        phases = {
            phase: add(
                f"{phase}_energy_kwh",
                self.phase_energy_kwh[phase],
                closed.phase_energy_kwh[phase],
            )
            for phase in SERVER_PHASES
        }
        grams, more = self.client_histogram.sum_g, closed.client_histogram.sum_g
        grams = add("client_histogram", grams, more) or 0.0
        return RunTotals(
            rounds=MappingProxyType(rounds),
            **sums,
            phase_energy_kwh=MappingProxyType(phases),
            reports_accepted=self.reports_accepted + closed.reports_accepted,
            reports_rejected=self.reports_rejected + closed.reports_rejected,
            reports_repeated=self.reports_repeated + closed.reports_repeated,
            reports_late=self.reports_late + closed.reports_late,
            reports_without_host=self.reports_without_host + (closed.reports_without_host or 0),
            bytes_to_clients=_add_int(self.bytes_to_clients, closed.bytes_to_clients),
            bytes_from_clients=_add_int(self.bytes_from_clients, closed.bytes_from_clients),
            client_histogram=self.client_histogram.plus(closed.client_histogram, grams),
            rests=MappingProxyType(rests),
        )

    def with_late_reports(self, count: int) -> RunTotals:
        """These totals and ``count`` more reports that found no open round."""
        return replace(self, reports_late=self.reports_late + count)


def added(
    total: float | None, rest: Rest, closed: RoundSummary, value: float | None
) -> tuple[float | None, Rest]:
    """A sum over rounds with the value of one more, None if it has none, and what rounding left out.

    Rounds that do not say their place are of servers that added up plainly: the figures of such a run,
    and its seal, are to be the ones that its server has.
    """
    if value is None:
        return total, rest
    if closed.sequence is None:
        return (total or 0.0) + value, ()  # a rest of before could let the next sum fall
    return exactly(total or 0.0, rest, value)


def _add_int(total: int | None, value: int | None) -> int | None:
    return total if value is None else (total or 0) + value


class RunInfo(Record):
    """What is fixed about a run when it starts."""

    run_id: RunId
    run_name: ShortText
    flower_run_id: ShortText | None = None
    started_at: AwareDatetime
    rounds_planned: Count | None = None
    strategy: ShortText
    privacy: ShortText = "none"
    tracked: bool = True
    factors: Factors
    server_host_id: ShortText | None = None
    """Not linkable across runs; stored, never exported."""
    tracker: ShortText | None = None
    value_metric: ShortText = "accuracy"
    budget_kg: NonNegative | None = None
    """What the run may emit, kg CO2eq; None where it has no budget."""
    on_budget: OnBudget = "warn"
    client_rows: bool = True
    """False where only sums and distributions are kept, and no row of any client."""
    metric_names: tuple[ShortText, ...] = ()
    """Training metrics that ``/metrics`` shows; every stored one is in the exports."""
    software: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The process that a run belongs to while it is alive."""

    host: str
    """Names machine, container and boot; two processes with one `host` see each other's pids."""
    pid: int
    token: str
    """Random, so that a reused pid is not mistaken for the owner."""

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.token}"

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Inverse of ``str``."""
        host, pid, token = text.rsplit("/", 2)
        return cls(host=host, pid=int(pid), token=token)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as the store knows it."""

    info: RunInfo
    status: RunStatus
    reason: str | None
    ended_at: datetime | None
    owner: Owner | None
    """None once released: the run has ended and its process is gone."""
    last_seen_at: datetime
    totals: RunTotals
    sha256: str | None = None
    """Seal of an ended run (`telemetry.digest.run_sha256`); None while it runs."""
    writer: str | None = None
    """Whose token delivers it to a service; None where the server itself writes the store."""
    pruned_at: datetime | None = None
    """When its rounds were deleted and only its totals kept."""

    @property
    def run_id(self) -> str:
        """Shorthand for ``info.run_id``."""
        return self.info.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedRun:
    """What ``/metrics`` shows of a run: totals of closed rounds, the open one, the last closed ones."""

    run: StoredRun
    open_round: RoundSummary | None
    rounds: tuple[RoundSummary, ...]
    """Closed rounds from 1 on, oldest first, at most as many as were asked for."""
