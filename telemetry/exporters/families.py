"""What ``/metrics`` shows of a run: one table of metric families and where each takes its value.

Base units: grams of CO2eq, joules, bytes, seconds; the conversion from kg and kWh happens here and
nowhere else. Counters and the histogram are the stored sums over *closed* rounds, which never fall;
the open round shows in gauges only. What is unknown has no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from telemetry.domain import (
    GRAMS_PER_KG,
    JOULES_PER_KWH,
    Component,
    ExposedRun,
    Factors,
    Histogram,
    Owner,
    RoundStatus,
    RoundSummary,
    sum_known,
)
from telemetry.store.rules import lease_expired

MetricType = Literal["counter", "gauge", "histogram", "info"]
Labels = tuple[str, ...]
Sample = tuple[Labels, float | Histogram]

CLOSED_STATUSES: Final[tuple[RoundStatus, ...]] = ("completed", "partial", "failed", "interrupted")
MAX_OWN_METRIC_NAMES: Final = 16
"""Training metrics shown of a run that named none: the first so many that it sent."""


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at the moment of a scrape."""

    exposed: ExposedRun
    now: datetime
    owner: Owner | None
    """The process that answers the scrape, where it is an FL server."""

    @property
    def run_id(self) -> str:
        """The label that every sample of the run carries."""
        return self.exposed.run.run_id

    @property
    def tracked(self) -> bool:
        """Whether the run's emissions are tracked at all."""
        return self.exposed.run.info.tracked

    @property
    def last_closed(self) -> RoundSummary | None:
        """The last closed round from 1 on."""
        return self.exposed.rounds[-1] if self.exposed.rounds else None

    @property
    def rounds_newest_first(self) -> Iterator[RoundSummary]:
        """The open round, then the closed ones."""
        if self.exposed.open_round is not None:
            yield self.exposed.open_round
        yield from reversed(self.exposed.rounds)

    @property
    def active(self) -> bool:
        """Running, and its server is this process or said lately that it lives."""
        run = self.exposed.run
        ours = self.owner is not None and run.owner == self.owner
        return run.status == "running" and (ours or not lease_expired(run.last_seen_at, self.now))

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Training metrics that get a series: those configured and the loss."""
        named = self.exposed.run.info.metric_names
        if named:
            return (*named, "loss") if "loss" not in named else named
        seen: dict[str, None] = {}
        for row in self.exposed.rounds:
            seen |= dict.fromkeys(sorted({*row.train_metrics, *row.evaluate_metrics}))
        return tuple(seen)[:MAX_OWN_METRIC_NAMES]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric of a run: its name, what is and is not in it, and its samples."""

    name: str
    type: MetricType
    help: str
    samples: Callable[[RunView], Iterable[Sample]]
    labels: Labels = ()
    """Beside ``run_id``."""
    tracked_only: bool = False
    """Absent for runs whose emissions are not tracked: unknown there, not zero."""


# --- the run ---------------------------------------------------------------------------------


def _one(value: float | None) -> Iterator[Sample]:
    if value is not None:
        yield (), value


def _by_label(values: Mapping[str, float | None], factor: float = 1.0) -> Iterator[Sample]:
    for label, value in values.items():
        if value is not None:
            yield (label,), value * factor


def _info(view: RunView) -> Iterator[Sample]:
    info = view.exposed.run.info
    factors = info.factors
    labels = (
        info.run_name,
        info.strategy,
        info.privacy,
        factors.country or "",
        factors.intensity_source,
        factors.server_scope,
        _sensor(view),
        repr(factors.pue),
    )
    yield labels, 1.0


def _sensor(view: RunView) -> str:
    """The run's sensor; a meter that was not ready when the run started tells with the rounds."""
    known = view.exposed.run.info.factors.server_sensor
    if known != "unknown":
        return known
    return next((row.factors.server_sensor for row in view.rounds_newest_first), known)


def _active(view: RunView) -> Iterator[Sample]:
    yield (), float(view.active)


def _round_number(view: RunView) -> Iterator[Sample]:
    newest = next(view.rounds_newest_first, None)
    if newest is not None:
        yield (), newest.round
    elif view.exposed.run.status == "running":
        yield (), 0.0


def _planned(view: RunView) -> Iterator[Sample]:
    return _one(view.exposed.run.info.rounds_planned)


def _started(view: RunView) -> Iterator[Sample]:
    yield (), view.exposed.run.info.started_at.timestamp()


def _ended(view: RunView) -> Iterator[Sample]:
    ended_at = view.exposed.run.ended_at
    return _one(None if ended_at is None else ended_at.timestamp())


# --- emissions and energy --------------------------------------------------------------------


def _emissions(view: RunView) -> Iterator[Sample]:
    totals = view.exposed.run.totals
    parts: dict[str, float | None] = {
        "server": totals.server_emissions_kg,
        "clients": totals.clients_emissions_kg,
    }
    return _by_label(parts, GRAMS_PER_KG)


def _energy(view: RunView) -> Iterator[Sample]:
    totals = view.exposed.run.totals
    parts: dict[str, float | None] = {
        "server": totals.server_energy_kwh,
        "clients": totals.clients_energy_kwh,
    }
    return _by_label(parts, JOULES_PER_KWH)


def _phase_energy(view: RunView) -> Iterator[Sample]:
    phases = view.exposed.run.totals.phase_energy_kwh
    return _by_label({str(phase): kwh for phase, kwh in phases.items()}, JOULES_PER_KWH)


def _run_emissions(view: RunView) -> Iterator[Sample]:
    row = view.exposed.open_round
    running = None if row is None else row.total_emissions_kg
    known = sum_known((view.exposed.run.totals.total_emissions_kg, running))
    return _one(None if known is None else known * GRAMS_PER_KG)


def _distribution(view: RunView) -> Iterator[Sample]:
    yield (), view.exposed.run.totals.client_histogram


def _intensity(view: RunView) -> Iterator[Sample]:
    started_with = view.exposed.run.info.factors
    factors = next((row.factors for row in view.rounds_newest_first), started_with)
    component: Component = "server"
    yield (component, _source(factors)), factors.server_carbon_intensity_g_per_kwh


def _source(factors: Factors) -> str:
    year = factors.intensity_year
    stated = year is None or str(year) in factors.intensity_source
    return factors.intensity_source if stated else f"{factors.intensity_source}, {year}"


# --- rounds and clients ----------------------------------------------------------------------


def _bytes(view: RunView) -> Iterator[Sample]:
    totals = view.exposed.run.totals
    return _by_label(
        {"to_clients": totals.bytes_to_clients, "from_clients": totals.bytes_from_clients}
    )


def _rounds(view: RunView) -> Iterator[Sample]:
    counts = view.exposed.run.totals.rounds
    return _by_label({status: counts.get(status, 0) for status in CLOSED_STATUSES})


def _reports(view: RunView) -> Iterator[Sample]:
    totals = view.exposed.run.totals
    return _by_label(
        {
            "accepted": totals.reports_accepted,
            "rejected": totals.reports_rejected,
            "repeated": totals.reports_repeated,
            "late": totals.reports_late,
        }
    )


def _clients(view: RunView) -> Iterator[Sample]:
    """Outcomes of an open round are not decided yet: they are the last closed round's."""
    connected = (row.connected for row in view.rounds_newest_first if row.connected is not None)
    closed, opened = view.last_closed, view.exposed.open_round
    states: dict[str, float | None] = {"connected": next(connected, None)}
    if closed is not None:
        states |= {
            "selected": closed.participants,
            "reported": closed.reported,
            "missing": closed.missing,
            "rejected": closed.rejected,
            "failed": closed.failed,
        }
    elif opened is not None:
        states["selected"] = opened.participants
    return _by_label(states)


def _coverage(view: RunView) -> Iterator[Sample]:
    return _one(None if view.last_closed is None else view.last_closed.coverage)


def _without_host(view: RunView) -> Iterator[Sample]:
    row = view.exposed.open_round
    running = 0 if row is None else row.reports_without_host or 0
    yield (), view.exposed.run.totals.reports_without_host + running


def _epsilon(view: RunView) -> Iterator[Sample]:
    spent = (row.privacy_epsilon for row in view.rounds_newest_first)
    return _one(next((epsilon for epsilon in spent if epsilon is not None), None))


# --- training metrics ------------------------------------------------------------------------


def _training(view: RunView) -> Iterator[Sample]:
    """Each metric from the newest round that has it."""
    newest: dict[Labels, float] = {}
    for row in view.rounds_newest_first:
        for labels, value in _metrics_of(row, view.metric_names):
            newest.setdefault(labels, value)
    yield from newest.items()


def _metrics_of(row: RoundSummary, names: Labels) -> Iterator[tuple[Labels, float]]:
    for split, values in (("train", row.train_metrics), ("evaluate", row.evaluate_metrics)):
        for name in names:
            if name in values:
                yield (name, split), values[name]


# --- each round ------------------------------------------------------------------------------


def _of_rounds(
    value: Callable[[RoundSummary], float | None], factor: float = 1.0
) -> Callable[[RunView], Iterator[Sample]]:
    """Samples of one figure over the closed rounds."""

    def samples(view: RunView) -> Iterator[Sample]:
        return _by_label({str(row.round): value(row) for row in view.exposed.rounds}, factor)

    return samples


def _round_emissions(view: RunView) -> Iterator[Sample]:
    for row in view.exposed.rounds:
        parts = (("server", row.server_emissions_kg), ("clients", row.clients_emissions_kg))
        for component, kg in parts:
            if kg is not None:
                yield (str(row.round), component), kg * GRAMS_PER_KG


def _round_training(view: RunView) -> Iterator[Sample]:
    names = view.metric_names
    for row in view.exposed.rounds:
        for labels, value in _metrics_of(row, names):
            yield (str(row.round), *labels), value


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "fl_run_info",
        "info",
        "Facts of a run: what it trains with and what its figures rest on.",
        _info,
        (
            "run_name",
            "strategy",
            "privacy",
            "country",
            "intensity_source",
            "server_scope",
            "server_sensor",
            "pue",
        ),
    ),
    Family(
        "fl_run_active",
        "gauge",
        "1 while the run trains and its server says that it lives, else 0.",
        _active,
    ),
    Family(
        "fl_run_round",
        "gauge",
        "Number of the newest round, open or closed; 0 is the set-up.",
        _round_number,
    ),
    Family("fl_run_rounds_planned", "gauge", "Rounds that the run was started for.", _planned),
    Family(
        "fl_run_start_timestamp_seconds",
        "gauge",
        "Start of the run, seconds since 1970 in UTC.",
        _started,
    ),
    Family(
        "fl_run_end_timestamp_seconds",
        "gauge",
        "End of the run, seconds since 1970 in UTC; absent while it runs.",
        _ended,
    ),
    Family(
        "fl_emissions_co2eq_grams_total",
        "counter",
        "Measured emissions of closed rounds in grams CO2eq, set-up included. Server: its meter, "
        "with PUE, without the clients on its machine. Clients: accepted reports only. Not in it: "
        "silent clients, networks, hardware manufacture.",
        _emissions,
        ("component",),
        tracked_only=True,
    ),
    Family(
        "fl_energy_joules_total",
        "counter",
        "Measured energy of closed rounds at the meter, before PUE. Server: without the clients on "
        "its machine. Clients: accepted reports that carry an energy.",
        _energy,
        ("component",),
        tracked_only=True,
    ),
    Family(
        "fl_server_energy_joules_total",
        "counter",
        "Energy on the server's meter in closed rounds by phase, before PUE and with the clients "
        "that ran on its machine.",
        _phase_energy,
        ("phase",),
        tracked_only=True,
    ),
    Family(
        "fl_run_emissions_co2eq_grams",
        "gauge",
        "Measured emissions of the run so far in grams CO2eq, server and clients, the open round "
        "included. Not in it: what nobody reported, and estimates.",
        _run_emissions,
        tracked_only=True,
    ),
    Family(
        "fl_network_bytes_total",
        "counter",
        "Bytes of the messages of closed rounds as the server counted them, before transport "
        "overhead.",
        _bytes,
        ("direction",),
    ),
    Family(
        "fl_rounds_total",
        "counter",
        "Closed rounds by how they ended, each attempt at a round for itself; the set-up is none.",
        _rounds,
        ("status",),
    ),
    Family(
        "fl_client_reports_total",
        "counter",
        "Clients' reports of closed rounds by what became of them; accepted and late ones count in "
        "energy and emissions.",
        _reports,
        ("outcome",),
        tracked_only=True,
    ),
    Family(
        "fl_clients",
        "gauge",
        "Clients of the last closed round: selected is the sum of reported, missing, rejected and "
        "failed. Connected is the newest count.",
        _clients,
        ("state",),
    ),
    Family(
        "fl_emissions_coverage_ratio",
        "gauge",
        "Share of the last closed round's selected clients that reported their emissions.",
        _coverage,
        tracked_only=True,
    ),
    Family(
        "fl_reports_without_host",
        "gauge",
        "Accepted reports of the run that name no machine: counted in full, even where two of them "
        "measured one machine.",
        _without_host,
        tracked_only=True,
    ),
    Family(
        "fl_training_metric",
        "gauge",
        "Training metrics of the newest round that has them: those configured and the loss.",
        _training,
        ("name", "split"),
    ),
    Family(
        "fl_round_emissions_co2eq_grams",
        "gauge",
        "Measured emissions of a closed round in grams CO2eq, its last attempt only.",
        _round_emissions,
        ("round", "component"),
        tracked_only=True,
    ),
    Family(
        "fl_round_cumulative_emissions_co2eq_grams",
        "gauge",
        "Measured emissions of the run up to and with a closed round in grams CO2eq, every attempt "
        "and the set-up included.",
        _of_rounds(lambda row: row.cumulative_emissions_kg, GRAMS_PER_KG),
        ("round",),
        tracked_only=True,
    ),
    Family(
        "fl_round_training_metric",
        "gauge",
        "Training metrics of a closed round, of its last attempt.",
        _round_training,
        ("round", "name", "split"),
    ),
    Family(
        "fl_round_duration_seconds",
        "gauge",
        "Seconds from the start of a closed round to the start of the next, of its last attempt.",
        _of_rounds(lambda row: row.duration_s),
        ("round",),
    ),
    Family(
        "fl_round_coverage_ratio",
        "gauge",
        "Share of a closed round's selected clients that reported their emissions.",
        _of_rounds(lambda row: row.coverage),
        ("round",),
        tracked_only=True,
    ),
    Family(
        "fl_client_emissions_co2eq_grams",
        "histogram",
        "Counted emissions of each client in each closed round, training and evaluation together, "
        "in grams CO2eq.",
        _distribution,
        tracked_only=True,
    ),
    Family(
        "fl_carbon_intensity_grams_per_kilowatt_hour",
        "gauge",
        "Grams CO2eq for each kWh that the server's emissions are computed with.",
        _intensity,
        ("component", "source"),
        tracked_only=True,
    ),
    Family(
        "fl_privacy_epsilon",
        "gauge",
        "Privacy loss (epsilon) spent by the run so far; absent where it is not accounted for.",
        _epsilon,
    ),
)
