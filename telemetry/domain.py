"""The records: what is known of a run, a round, a client's part in it and its report.

Every record is frozen and validated where it enters. Units stand in the names. ``None`` means
*unknown* and never zero. Sums are properties of `RoundRecord`, computed nowhere else; `RoundSummary`
is their flat, stored form, which exporters read.

Sources: the accounting rules are those of ``docs/accounting.md``; emissions are kg CO2eq as
codecarbon gives them, energies kWh at the meter (before PUE).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import fsum
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Phase = Literal["train", "evaluate"]
Outcome = Literal["reported", "missing", "rejected", "failed"]
RejectionReason = Literal["not_a_number", "not_finite", "negative", "implausible", "inconsistent"]
ServerPhase = Literal["setup", "configure", "wait", "aggregate", "evaluate", "idle"]
RoundStatus = Literal["running", "completed", "partial", "failed", "interrupted"]
RunStatus = Literal["running", "completed", "failed", "interrupted", "stopped_on_budget"]
Sensor = Literal["rapl", "nvml", "mixed", "model", "constant", "unknown"]
Scope = Literal["machine", "allocation", "process", "unknown"]
Component = Literal["server", "clients"]
ReportOutcome = Literal["accepted", "rejected", "repeated", "late"]

SERVER_PHASES: Final[tuple[ServerPhase, ...]] = get_args(ServerPhase)
ROUND_STATUSES: Final[tuple[RoundStatus, ...]] = get_args(RoundStatus)

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
ShortText = Annotated[str, Field(max_length=256)]

JOULES_PER_KWH: Final = 3.6e6
GRAMS_PER_KG: Final = 1000.0
COMPLETE_METERED_SHARE: Final = 0.99
"""A round's server figure is called complete from this share of its duration on."""

CLIENT_BUCKETS_G: Final[tuple[float, ...]] = tuple(10.0 ** (k / 2) for k in range(-8, 9))
"""Upper bounds, in grams, of the distribution of emissions over clients and rounds."""

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Record(BaseModel):
    """Base of the records that are built once a round or once a run."""

    model_config = _STRICT


def sum_known(values: Iterable[float | None]) -> float | None:
    """Exact sum of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return fsum(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What turns the server's energy into emissions, and where each number comes from."""

    __pydantic_config__ = _STRICT

    server_carbon_intensity_g_per_kwh: NonNegative
    intensity_source: ShortText
    """Where the intensity comes from, in words, e.g. ``codecarbon 3.3.2, country table``."""
    intensity_year: int | None = None
    country: ShortText | None = None
    """ISO 3166 alpha-3 code; None when nobody said, and the world average is used."""
    pue: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    server_scope: Scope = "unknown"
    server_sensor: Sensor = "unknown"
    server_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Our share of the machine in ``allocation`` scope; None in the other scopes."""
    network_kwh_per_gb: NonNegative | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """The server's energy in one phase of one round, before PUE and before any split.

    ``energy_kwh`` is None when nothing of the phase was metered; ``reason`` then says why.
    ``prorated`` marks energy that was shared out by wall time among phases shorter than the meter
    can resolve.
    """

    __pydantic_config__ = _STRICT

    phase: ServerPhase
    wall_s: NonNegative
    metered_s: NonNegative
    energy_kwh: NonNegative | None
    cpu_kwh: NonNegative | None = None
    gpu_kwh: NonNegative | None = None
    ram_kwh: NonNegative | None = None
    prorated: bool = False
    reason: ShortText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRecord:
    """One client's part in one round; a client without any report has one too.

    ``outcome`` is None for a client that was sent no train message, and where emissions are not
    tracked (unless it failed).
    """

    __pydantic_config__ = _STRICT

    node_id: ShortText
    client: ShortText
    """Pseudonym, ``c-`` and 8 hex digits."""
    train: bool
    """Whether it was sent a train message: those are the round's participants."""
    outcome: Outcome | None
    reason: ShortText | None = None
    examples: Count | None = None
    sent_at: AwareDatetime | None = None
    replied_at: AwareDatetime | None = None
    loopback: bool | None = None
    bytes_to: Count | None = None
    bytes_from: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRecord:
    """One report: as the client sent it (raw) and as it counts (after the host rule).

    ``counted_energy_kwh`` and ``counted_emissions_kg`` are None for a rejected report;
    ``counted_energy_kwh`` also where a report carries no energy and none can be derived.
    """

    __pydantic_config__ = _STRICT

    node_id: ShortText
    client: ShortText
    phase: Phase
    reported_round: Count
    """The round that the client worked for; differs from the row's round for a late report."""
    late: bool
    accepted: bool
    rejection: RejectionReason | None = None
    rejected_value: Annotated[str, Field(max_length=64)] | None = None
    emissions_kg: NonNegative | None = None
    energy_kwh: NonNegative | None = None
    cpu_kwh: NonNegative | None = None
    gpu_kwh: NonNegative | None = None
    ram_kwh: NonNegative | None = None
    duration_s: NonNegative | None = None
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    country: ShortText | None = None
    carbon_intensity_g_per_kwh: NonNegative | None = None
    sensor: Sensor | None = None
    scope: ShortText | None = None
    host_id: ShortText | None = None
    tracker: ShortText | None = None
    schema_version: int | None = None
    dropped_fields: ShortText | None = None
    """Names of optional fields that were invalid and so are unknown, comma separated."""
    on_server_host: bool = False
    counted_energy_kwh: NonNegative | None = None
    counted_emissions_kg: NonNegative | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Distribution of counted emissions over clients, one observation a client and round.

    ``counts`` has one entry a bucket of `CLIENT_BUCKETS_G` and one for everything above (not
    cumulative); ``sum_g`` is in grams.
    """

    __pydantic_config__ = _STRICT

    counts: tuple[int, ...] = (0,) * (len(CLIENT_BUCKETS_G) + 1)
    sum_g: float = 0.0

    @classmethod
    def of(cls, emissions_kg: Iterable[float]) -> Histogram:
        """Histogram of one value a client, each in kg CO2eq."""
        from bisect import bisect_left

        grams = [value * GRAMS_PER_KG for value in emissions_kg]
        places = Counter(bisect_left(CLIENT_BUCKETS_G, value) for value in grams)
        counts = tuple(places.get(place, 0) for place in range(len(CLIENT_BUCKETS_G) + 1))
        return cls(counts=counts, sum_g=fsum(grams))

    def plus(self, other: Histogram) -> Histogram:
        """Both distributions together."""
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts=counts, sum_g=self.sum_g + other.sum_g)

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRecord:
    """The noise that made a round's model private: stored for the operator, in no view or export."""

    __pydantic_config__ = _STRICT

    noise_stdv: NonNegative
    """Standard deviation of the Gaussian noise on each parameter, in the parameters' own unit."""
    distance: NonNegative | None = None
    """The greatest distance between two clients' models, where the mechanism measures it."""


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
    closed: bool = False
    tracked: bool = True
    """False where emissions are not tracked: figures and outcomes are then unknown, not zero."""
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

    @property
    def duration_s(self) -> float:
        """Seconds from the round's start to its end."""
        return (self.ended_at - self.started_at) / timedelta(seconds=1)

    @property
    def trained(self) -> tuple[ParticipantRecord, ...]:
        """Those who were sent a train message."""
        return tuple(p for p in self.participants if p.train)

    @cached_property
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

    @property
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
        """Accepted reports that name no host: counted in full, whatever machine they ran on."""
        if not self.tracked:
            return None
        return sum(1 for r in self.accepted if r.host_id is None and not r.on_server_host)

    def report_count(self, outcome: ReportOutcome) -> int:
        """Reports that arrived, by what became of them; each has exactly one outcome."""
        match outcome:
            case "accepted":
                return sum(1 for r in self.reports if r.accepted and not r.late)
            case "late":
                return sum(1 for r in self.reports if r.accepted and r.late)
            case "rejected":
                return sum(1 for r in self.reports if not r.accepted)
            case "repeated":
                return self.reports_repeated

    # --- energy, kWh at the meter --------------------------------------------------------------

    @property
    def metered_share(self) -> float | None:
        """Metered seconds ÷ seconds of the round; None where nothing could be metered."""
        if not self.laps or self.duration_s <= 0:
            return None
        return min(1.0, fsum(lap.metered_s for lap in self.laps) / self.duration_s)

    @property
    def host_energy_kwh(self) -> float | None:
        """What the server's meter showed, before the clients on its host are split off."""
        return sum_known(lap.energy_kwh for lap in self.laps)

    @property
    def server_energy_kwh(self) -> float | None:
        """The server's own part: the meter's figure less that of the clients on its host."""
        whole = self.host_energy_kwh
        if whole is None:
            return None
        on_host = fsum(r.counted_energy_kwh or 0.0 for r in self.accepted if r.on_server_host)
        return max(0.0, whole - on_host)

    @property
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

    @property
    def server_emissions_kg(self) -> float | None:
        """The server's energy × PUE × carbon intensity; None if nothing was metered."""
        energy = self.server_energy_kwh
        return None if energy is None else emissions_kg(energy, self.factors)

    @property
    def clients_emissions_kg(self) -> float | None:
        """What the accepted reports count for; None if none (0 when nobody took part)."""
        return self._zero_if_nobody(sum_known(r.counted_emissions_kg for r in self.accepted))

    @property
    def total_emissions_kg(self) -> float | None:
        """The known ones of server and clients; None only if neither is known."""
        return sum_known((self.server_emissions_kg, self.clients_emissions_kg))

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

    @property
    def bytes_to_clients(self) -> int | None:
        """Bytes of the messages to clients; None where no transport of ours counted them."""
        return _sum_known_ints(p.bytes_to for p in self.participants)

    @property
    def bytes_from_clients(self) -> int | None:
        """Bytes of the replies; None where no transport of ours counted them."""
        return _sum_known_ints(p.bytes_from for p in self.participants)

    # --- the stored form -----------------------------------------------------------------------

    @property
    def client_histogram(self) -> Histogram:
        """Counted emissions of each client in this round, train and evaluate together."""
        by_client: dict[str, list[float]] = {}
        for report in self.accepted:
            if report.counted_emissions_kg is not None:
                by_client.setdefault(report.node_id, []).append(report.counted_emissions_kg)
        return Histogram.of(fsum(values) for values in by_client.values())

    def phase_energy_kwh(self, phase: ServerPhase) -> float | None:
        """The server's energy in one phase, before the split."""
        return sum_known(lap.energy_kwh for lap in self.laps if lap.phase == phase)

    def summary(self, cumulative_emissions_kg: float | None = None) -> RoundSummary:
        """The round as one flat row; ``cumulative_emissions_kg`` is the run's so far, this included."""
        return RoundSummary(
            run_id=self.run_id,
            round=self.round,
            attempt=self.attempt,
            revision=self.revision,
            closed=self.closed,
            tracked=self.tracked,
            status=self.status,
            reason=self.reason,
            started_at=self.started_at,
            ended_at=self.ended_at,
            duration_s=self.duration_s,
            connected=self.connected,
            participants=len(self.trained),
            reported=self.outcome_count("reported"),
            missing=self.outcome_count("missing"),
            rejected=self.outcome_count("rejected"),
            failed=self.outcome_count("failed") or 0,
            coverage=self.coverage,
            complete=self.complete,
            evaluate_reported=self.evaluate_reported,
            reports_without_host=self.reports_without_host,
            reports_accepted=self.report_count("accepted"),
            reports_rejected=self.report_count("rejected"),
            reports_repeated=self.report_count("repeated"),
            reports_late=self.report_count("late"),
            metered_share=self.metered_share,
            host_energy_kwh=self.host_energy_kwh,
            server_energy_kwh=self.server_energy_kwh,
            clients_energy_kwh=self.clients_energy_kwh,
            clients_energy_reports=self.clients_energy_reports,
            server_emissions_kg=self.server_emissions_kg,
            clients_emissions_kg=self.clients_emissions_kg,
            total_emissions_kg=self.total_emissions_kg,
            cumulative_emissions_kg=cumulative_emissions_kg,
            clients_reported_emissions_kg=self.clients_reported_emissions_kg,
            factors=self.factors,
            bytes_to_clients=self.bytes_to_clients,
            bytes_from_clients=self.bytes_from_clients,
            communication_emissions_kg_estimated=None,
            imputed_emissions_kg=None,
            estimated_total_emissions_kg=None,
            privacy_epsilon=self.privacy_epsilon,
            client_histogram=self.client_histogram,
            phase_energy_kwh=MappingProxyType(
                {phase: self.phase_energy_kwh(phase) for phase in SERVER_PHASES}
            ),
            train_metrics=MappingProxyType(dict(self.train_metrics)),
            evaluate_metrics=MappingProxyType(dict(self.evaluate_metrics)),
        )


def emissions_kg(energy_kwh: float, factors: Factors) -> float:
    """Energy at the server's meter × PUE × carbon intensity, in kg CO2eq."""
    return energy_kwh * factors.pue * factors.server_carbon_intensity_g_per_kwh / GRAMS_PER_KG


def _sum_known_ints(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


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
    estimated_total_emissions_kg: float | None
    privacy_epsilon: float | None
    client_histogram: Histogram
    phase_energy_kwh: Mapping[ServerPhase, float | None]
    train_metrics: Mapping[str, float]
    evaluate_metrics: Mapping[str, float]


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
    client_histogram: Histogram = field(default_factory=Histogram)

    def plus(self, closed: RoundSummary) -> RunTotals:
        """These totals and one more closed round."""
        rounds = dict(self.rounds)
        if closed.round > 0:
            rounds[closed.status] = rounds.get(closed.status, 0) + 1
        return RunTotals(
            rounds=MappingProxyType(rounds),
            server_energy_kwh=_add(self.server_energy_kwh, closed.server_energy_kwh),
            # The 0 of a round that nobody took part in, such as the set-up, is no knowledge of the
            # clients: of a fleet that never reports, the sum stays unknown.
            clients_energy_kwh=_add(
                self.clients_energy_kwh,
                closed.clients_energy_kwh if closed.clients_energy_reports else None,
            ),
            server_emissions_kg=_add(self.server_emissions_kg, closed.server_emissions_kg),
            clients_emissions_kg=_add(
                self.clients_emissions_kg,
                closed.clients_emissions_kg if closed.client_histogram.count else None,
            ),
            total_emissions_kg=_add(self.total_emissions_kg, closed.total_emissions_kg),
            phase_energy_kwh=MappingProxyType(
                {
                    phase: _add(self.phase_energy_kwh[phase], closed.phase_energy_kwh[phase])
                    for phase in SERVER_PHASES
                }
            ),
            reports_accepted=self.reports_accepted + closed.reports_accepted,
            reports_rejected=self.reports_rejected + closed.reports_rejected,
            reports_repeated=self.reports_repeated + closed.reports_repeated,
            reports_late=self.reports_late + closed.reports_late,
            reports_without_host=self.reports_without_host + (closed.reports_without_host or 0),
            bytes_to_clients=_add_int(self.bytes_to_clients, closed.bytes_to_clients),
            bytes_from_clients=_add_int(self.bytes_from_clients, closed.bytes_from_clients),
            client_histogram=self.client_histogram.plus(closed.client_histogram),
        )

    def with_late_reports(self, count: int) -> RunTotals:
        """These totals and ``count`` more reports that found no open round."""
        return replace(self, reports_late=self.reports_late + count)


def _add(total: float | None, value: float | None) -> float | None:
    return total if value is None else (total or 0.0) + value


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


def utc_now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)


def field_names(record: type[Any]) -> tuple[str, ...]:
    """Names of a slots record's fields, in order: the order of its stored columns."""
    return tuple(item.name for item in fields(record))
