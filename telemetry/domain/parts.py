"""What a round is made of: factors, laps, participants, reports."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum
from typing import Annotated

from pydantic import AwareDatetime, Field

from telemetry.domain.frozen import quickly_built
from telemetry.domain.vocabulary import (
    CLIENT_BUCKETS_G,
    GRAMS_PER_KG,
    STRICT,
    Count,
    NonNegative,
    Outcome,
    Phase,
    RejectionReason,
    Scope,
    Sensor,
    ServerPhase,
    ShortText,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What turns the server's energy into emissions, and where each number comes from."""

    __pydantic_config__ = STRICT

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
    """Our share of the machine in ``allocation`` and ``process`` scope; None in the others."""
    network_kwh_per_gb: NonNegative | None = None
    """What transferring a decimal gigabyte takes; None where nobody said: nothing is estimated."""
    impute_missing: bool = False
    """Whether an estimate stands, beside the measured total, for clients that did not report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """The server's energy in one phase of one round, before PUE and before any split.

    ``energy_kwh`` is None when nothing of the phase was metered; ``reason`` then says why.
    ``prorated`` marks energy that was shared out by wall time among phases shorter than the meter
    can resolve.
    """

    __pydantic_config__ = STRICT

    phase: ServerPhase
    wall_s: NonNegative
    metered_s: NonNegative
    energy_kwh: NonNegative | None
    cpu_kwh: NonNegative | None = None
    gpu_kwh: NonNegative | None = None
    ram_kwh: NonNegative | None = None
    prorated: bool = False
    reason: ShortText | None = None
    machine_kwh: NonNegative | None = None
    """The whole machine's energy that ``energy_kwh`` is the share of; None in machine scope."""


@quickly_built
@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRecord:
    """One client's part in one round; a client without any report has one too.

    ``outcome`` is None for a client that was sent no train message, and where emissions are not
    tracked (unless it failed).
    """

    __pydantic_config__ = STRICT

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


@quickly_built
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRecord:
    """One report: as the client sent it (raw) and as it counts (after the host rule).

    ``counted_energy_kwh`` and ``counted_emissions_kg`` are None for a rejected report;
    ``counted_energy_kwh`` also where a report carries no energy and none can be derived.
    """

    __pydantic_config__ = STRICT

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
    looks_cumulative: bool = False
    """This client's bare values rise as a running total does; marked, never corrected."""
    outlier: bool = False
    """Far from what the round's other clients reported; marked, never rejected."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the marks that are set."""
        if not (self.looks_cumulative or self.outlier):
            return ()
        names = ("looks_cumulative", "outlier")
        return tuple(name for name in names if getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Distribution of counted emissions over clients, one observation a client and round.

    ``counts`` has one entry a bucket of `CLIENT_BUCKETS_G` and one for everything above (not
    cumulative); ``sum_g`` is in grams.
    """

    __pydantic_config__ = STRICT

    counts: tuple[int, ...] = (0,) * (len(CLIENT_BUCKETS_G) + 1)
    sum_g: float = 0.0

    @classmethod
    def of(cls, emissions_kg: Iterable[float]) -> Histogram:
        """Histogram of one value a client, each in kg CO2eq."""
        grams = [value * GRAMS_PER_KG for value in emissions_kg]
        counts = [0] * (len(CLIENT_BUCKETS_G) + 1)
        for value in grams:
            counts[bisect_left(CLIENT_BUCKETS_G, value)] += 1
        return cls(counts=tuple(counts), sum_g=fsum(grams))

    def plus(self, other: Histogram, sum_g: float) -> Histogram:
        """Both distributions together; ``sum_g`` is the sum of both, kept exactly elsewhere."""
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts=counts, sum_g=sum_g)

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imputation:
    """An estimate for the clients of a round that did not report; kg CO2eq, never in a total.

    A silent client is taken to have emitted per example what those did who reported: ``central`` is
    the median, ``low`` and ``high`` the 10th and 90th percentile.
    """

    __pydantic_config__ = STRICT

    clients: int
    """How many clients it stands for: those whose number of examples is known."""
    low_kg: float
    central_kg: float
    high_kg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRecord:
    """The noise that made a round's model private: stored for the operator, in no view or export."""

    __pydantic_config__ = STRICT

    noise_stdv: NonNegative
    """Standard deviation of the Gaussian noise on each parameter, in the parameters' own unit."""
    distance: NonNegative | None = None
    """The greatest distance between two clients' models, where the mechanism measures it."""
