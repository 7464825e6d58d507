"""What each metric of a run is made of: a run at the moment of a scrape, and its samples.

Base units: grams of CO2eq, joules, bytes, seconds; the conversion from kg and kWh happens here and
nowhere else. Counters and the histogram are the stored sums over *closed* rounds, which never fall;
the open round shows in gauges only. What is unknown has no sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from telemetry.budget import used_ratio
from telemetry.domain import (
    GRAMS_PER_KG,
    JOULES_PER_KWH,
    Component,
    ExposedRun,
    Factors,
    Owner,
    RoundStatus,
    RoundSummary,
    sum_known,
)
from telemetry.exporters.family import Labels, Sample
from telemetry.store.rules import lease_expired

CLOSED_STATUSES: Final[tuple[RoundStatus, ...]] = ("completed", "partial", "failed", "interrupted")
CLIENTS_SOURCE: Final = "effective: counted emissions of the last round with energies ÷ energy"
SPLITS: Final = ("train", "evaluate")
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


# --- the run ---------------------------------------------------------------------------------


def one(value: float | None) -> Iterator[Sample]:
    """A sample without labels; of what is unknown, none."""
    if value is not None:
        yield (), value


def by_label(values: Mapping[str, float | None], factor: float = 1.0) -> Iterator[Sample]:
    """A sample for each value that is known, under its one label."""
    for label, value in values.items():
        if value is not None:
            yield (label,), value * factor


def run_facts(view: RunView) -> Iterator[Sample]:
    """Labels only; unknown ones are empty."""
    info = view.exposed.run.info
    factors = info.factors
    labels = (
        info.run_name,
        info.strategy,
        info.privacy,
        factors.country or "",
        factors.intensity_source,
        factors.server_scope,
        sensor(view),
        repr(factors.pue),
    )
    yield labels, 1.0


def sensor(view: RunView) -> str:
    """The run's sensor; a meter that was not ready when the run started tells with the rounds."""
    at_start = view.exposed.run.info.factors.server_sensor
    told = (row.factors.server_sensor for row in view.rounds_newest_first)
    return next((kind for kind in (at_start, *told) if kind != "unknown"), "unknown")


def active(view: RunView) -> Iterator[Sample]:
    """1 or 0."""
    yield (), float(view.active)


def round_number(view: RunView) -> Iterator[Sample]:
    """The newest round; a run that has just begun is in its set-up."""
    newest = next(view.rounds_newest_first, None)
    if newest is not None:
        yield (), newest.round
    elif view.exposed.run.status == "running":
        yield (), 0.0


def planned(view: RunView) -> Iterator[Sample]:
    """As the run was started; absent for an open end."""
    return one(view.exposed.run.info.rounds_planned)


def started(view: RunView) -> Iterator[Sample]:
    """Seconds since 1970."""
    yield (), view.exposed.run.info.started_at.timestamp()


def ended(view: RunView) -> Iterator[Sample]:
    """Seconds since 1970."""
    ended_at = view.exposed.run.ended_at
    return one(None if ended_at is None else ended_at.timestamp())


# --- emissions and energy --------------------------------------------------------------------


def emissions(view: RunView) -> Iterator[Sample]:
    """Grams of closed rounds, a part only once something of it was known."""
    totals = view.exposed.run.totals
    parts: dict[str, float | None] = {
        "server": totals.server_emissions_kg,
        "clients": totals.clients_emissions_kg,
    }
    return by_label(parts, GRAMS_PER_KG)


def energy(view: RunView) -> Iterator[Sample]:
    """Joules of closed rounds, likewise."""
    totals = view.exposed.run.totals
    parts: dict[str, float | None] = {
        "server": totals.server_energy_kwh,
        "clients": totals.clients_energy_kwh,
    }
    return by_label(parts, JOULES_PER_KWH)


def phase_energy(view: RunView) -> Iterator[Sample]:
    """Joules on the server's meter in closed rounds."""
    phases = view.exposed.run.totals.phase_energy_kwh
    return by_label({str(phase): kwh for phase, kwh in phases.items()}, JOULES_PER_KWH)


def run_emissions(view: RunView) -> Iterator[Sample]:
    """Grams so far, with the open round."""
    return one(emissions_so_far_g(view))


def emissions_so_far_g(view: RunView) -> float | None:
    """What is known of the closed rounds and of the open one."""
    row = view.exposed.open_round
    running = None if row is None else row.measured_emissions_kg
    known = sum_known((view.exposed.run.totals.total_emissions_kg, running))
    return None if known is None else known * GRAMS_PER_KG


def estimates(view: RunView) -> Iterator[Sample]:
    """Grams beside the measured ones; of each estimate that is made."""
    for labels, kg in estimates_so_far_kg(view).items():
        if kg is not None:
            yield labels, kg * GRAMS_PER_KG


def estimates_so_far_kg(view: RunView) -> Mapping[Labels, float | None]:
    """By component, quality and bound; None where there is none.

    Of an open round only the communication: who is silent there may still answer.
    """
    totals, row = view.exposed.run.totals, view.exposed.open_round
    running = None if row is None else row.communication_emissions_kg_estimated
    return {
        ("communication", "estimated", "central"): sum_known(
            (totals.communication_emissions_kg_estimated, running)
        ),
        ("clients", "imputed", "low"): totals.imputed_low_emissions_kg,
        ("clients", "imputed", "central"): totals.imputed_emissions_kg,
        ("clients", "imputed", "high"): totals.imputed_high_emissions_kg,
    }


def budget(view: RunView) -> Iterator[Sample]:
    """As the run was started."""
    kg = view.exposed.run.info.budget_kg
    return one(None if kg is None else kg * GRAMS_PER_KG)


def budget_used(view: RunView) -> Iterator[Sample]:
    """Of the budget, by all that is known so far."""
    return one(budget_used_ratio(view))


def budget_used_ratio(view: RunView) -> float | None:
    """Grams so far ÷ budget, the open round included."""
    grams = emissions_so_far_g(view)
    spent_kg = None if grams is None else grams / GRAMS_PER_KG
    return used_ratio(spent_kg, view.exposed.run.info.budget_kg)


def distribution(view: RunView) -> Iterator[Sample]:
    """Over clients and closed rounds."""
    yield (), view.exposed.run.totals.client_histogram


def intensity(view: RunView) -> Iterator[Sample]:
    """Of the newest round: a run may be resumed with another one."""
    started_with = view.exposed.run.info.factors
    factors = next((row.factors for row in view.rounds_newest_first), started_with)
    component: Component = "server"
    yield (component, _source(factors)), factors.server_carbon_intensity_g_per_kwh
    effective = (clients_intensity(row) for row in view.rounds_newest_first)
    known = next((value for value in effective if value is not None), None)
    if known is not None:
        component = "clients"
        yield (component, CLIENTS_SOURCE), known


def clients_intensity(row: RoundSummary) -> float | None:
    """What a round's reports count for ÷ their energy, g/kWh; None unless all of them carry one."""
    kg, kwh = row.clients_emissions_kg, row.clients_energy_kwh
    carry_energy = row.clients_energy_reports == row.reports_accepted + row.reports_late
    return kg * GRAMS_PER_KG / kwh if kg is not None and kwh and carry_energy else None


def _source(factors: Factors) -> str:
    year = factors.intensity_year
    stated = year is None or str(year) in factors.intensity_source
    return factors.intensity_source if stated else f"{factors.intensity_source}, {year}"


# --- rounds and clients ----------------------------------------------------------------------


def network_bytes(view: RunView) -> Iterator[Sample]:
    """Of closed rounds; absent where nobody counted."""
    totals = view.exposed.run.totals
    return by_label(
        {"to_clients": totals.bytes_to_clients, "from_clients": totals.bytes_from_clients}
    )


def rounds(view: RunView) -> Iterator[Sample]:
    """All ways to end, 0 included: that none ended so is known."""
    counts = view.exposed.run.totals.rounds
    return by_label({status: counts.get(status, 0) for status in CLOSED_STATUSES})


def reports(view: RunView) -> Iterator[Sample]:
    """All outcomes, 0 included."""
    totals = view.exposed.run.totals
    return by_label(
        {
            "accepted": totals.reports_accepted,
            "rejected": totals.reports_rejected,
            "repeated": totals.reports_repeated,
            "late": totals.reports_late,
        }
    )


def clients(view: RunView) -> Iterator[Sample]:
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
    return by_label(states)


def coverage(view: RunView) -> Iterator[Sample]:
    """Of the last closed round."""
    return one(None if view.last_closed is None else view.last_closed.coverage)


def without_host(view: RunView) -> Iterator[Sample]:
    """Of the run so far."""
    row = view.exposed.open_round
    running = 0 if row is None else row.reports_without_host or 0
    yield (), view.exposed.run.totals.reports_without_host + running


def epsilon(view: RunView) -> Iterator[Sample]:
    """The newest known."""
    spent = (row.privacy_epsilon for row in view.rounds_newest_first)
    return one(next((epsilon for epsilon in spent if epsilon is not None), None))


# --- training metrics ------------------------------------------------------------------------


def training(view: RunView) -> Iterator[Sample]:
    """Each metric from the newest round that has it."""
    newest: dict[Labels, float] = {}
    names = view.metric_names
    for row in view.rounds_newest_first:
        for labels, value in metrics_of(row, names):
            newest.setdefault(labels, value)
        if len(newest) == len(SPLITS) * len(names):
            break  # older rounds can tell nothing more
    yield from newest.items()


def metrics_of(row: RoundSummary, names: Labels) -> Iterator[tuple[Labels, float]]:
    """Those of one round, by (name, split)."""
    for split, values in zip(SPLITS, (row.train_metrics, row.evaluate_metrics), strict=True):
        for name in names:
            if name in values:
                yield (name, split), values[name]
