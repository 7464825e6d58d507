"""A run as it would have been with another carbon intensity, PUE or network factor.

A round's record is taken with other factors, and with what each report counts for under them; its
sums are then the same properties as ever. What is stored is not touched.

Which figures move:

- The server, and the clients that were split off its meter (``on_server_host``): energy at the meter
  × PUE × intensity. Their machine's energy is the meter's, so this holds for bare reports, too.
- Every other client counts as it reported, for its grid is its own. ``everywhere`` asks what the
  whole federation would have emitted on the new grid: its counted energy × the new intensity, times
  what it had on top of energy × its own intensity (its PUE), where it stated one. A PUE given here
  is the server's and never a client's elsewhere.
- A report without energy cannot be re-costed, nor the clients of a run that keeps no rows of them:
  those grams stay as they were counted and are listed in `Kept`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Final

from telemetry.domain import (
    GRAMS_PER_KG,
    Factors,
    ReportRecord,
    Rest,
    RoundRecord,
    RoundSummary,
    RunTotals,
    added,
    communication_kg,
    emissions_kg,
    sum_known,
)
from telemetry.errors import InvalidFactor
from telemetry.reports import CONSISTENT_RATIO

MOST: Final = 1e6
"""No factor is as large as this; beyond it figures would leave the range of numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A carbon intensity to ask about, and where it comes from."""

    g_per_kwh: float
    source: str
    """In words."""
    year: int | None = None
    country: str | None = None
    """ISO 3166 alpha-3."""

    def __post_init__(self) -> None:
        _check("intensity", self.g_per_kwh, 0.0, "g CO2eq per kWh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to compute with instead of what is stored; None keeps what each round has.

    Raises `InvalidFactor` for a number that cannot be one.
    """

    grid: Grid | None = None
    everywhere: bool = False
    """Whether the new grid is that of every client, not only that of the server's machine."""
    pue: float | None = None
    network_kwh_per_gb: float | None = None

    def __post_init__(self) -> None:
        if self.pue is not None:
            _check("pue", self.pue, 1.0, "it is all of a data centre's energy ÷ that of its IT")
        if self.network_kwh_per_gb is not None:
            _check("network", self.network_kwh_per_gb, 0.0, "kWh per decimal GB")

    def applied_to(self, stored: Factors) -> Factors:
        """The factors of a round with these changes."""
        grid, pue, network = self.grid, self.pue, self.network_kwh_per_gb
        changed = replace(
            stored,
            pue=stored.pue if pue is None else pue,
            network_kwh_per_gb=stored.network_kwh_per_gb if network is None else network,
        )
        if grid is None:
            return changed
        return replace(
            changed,
            server_carbon_intensity_g_per_kwh=grid.g_per_kwh,
            intensity_source=grid.source,
            intensity_year=grid.year,
            country=grid.country,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Emissions of clients that a new grid did not change, by the reason; kg CO2eq."""

    own_grid_kg: float = 0.0
    """Clients elsewhere, at their own intensity: `Changes.everywhere` would re-cost them."""
    own_grid_reports: int = 0
    without_energy_kg: float = 0.0
    """Reported without energy: cannot be re-costed."""
    without_energy_reports: int = 0
    without_rows_kg: float = 0.0
    """Of runs that keep no rows of their clients: cannot be re-costed."""

    @classmethod
    def sum(cls, parts: Iterable[Kept]) -> Kept:
        """All of them together."""
        found = list(parts)
        return cls(
            own_grid_kg=fsum(part.own_grid_kg for part in found),
            own_grid_reports=sum(part.own_grid_reports for part in found),
            without_energy_kg=fsum(part.without_energy_kg for part in found),
            without_energy_reports=sum(part.without_energy_reports for part in found),
            without_rows_kg=fsum(part.without_rows_kg for part in found),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecostedRound:
    """A closed round as it is stored, and as it would have been."""

    stored: RoundSummary
    recosted: RoundSummary
    kept: Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Recost:
    """A run's closed rounds and their sums, stored and re-computed."""

    changes: Changes
    rounds: tuple[RecostedRound, ...]
    stored: RunTotals
    recosted: RunTotals
    kept: Kept


def recost_run(
    rounds: Iterable[tuple[RoundSummary, RoundRecord | None]], changes: Changes
) -> Recost:
    """Re-compute a run from its closed rounds, by (round, attempt).

    Each comes with its whole record, or None where the run keeps no rows of its clients.
    """
    stored, recosted = RunTotals(), RunTotals()
    told: list[RecostedRound] = []
    for row, record in rounds:
        changed, kept = _without_rows(row, changes) if record is None else _round(record, changes)
        stored, recosted = stored.plus(row), recosted.plus(changed)
        told.append(RecostedRound(stored=row, recosted=changed, kept=kept))
    told = _added_up(told)
    return Recost(
        changes=changes,
        rounds=tuple(told),
        stored=stored,
        recosted=recosted,
        kept=Kept.sum(item.kept for item in told),
    )


def _added_up(rounds: Sequence[RecostedRound]) -> list[RecostedRound]:
    """With the recosted cumulative figures, added up as the stored ones were."""
    total: float | None = None
    rest: Rest = ()
    with_it: dict[int, RecostedRound] = {}
    for place in sorted(range(len(rounds)), key=lambda place: rounds[place].stored.closing_order):
        item = rounds[place]
        total, rest = added(total, rest, item.recosted, item.recosted.measured_emissions_kg)
        changed = replace(item.recosted, cumulative_emissions_kg=total)
        with_it[place] = replace(item, recosted=changed)
    return [with_it[place] for place in range(len(rounds))]


def recost_round(record: RoundRecord, changes: Changes) -> RoundRecord:
    """The round with other factors: a record of what would have been, never to be stored."""
    new = changes.applied_to(record.factors)
    reports = tuple(_report(report, record.factors, new, changes) for report in record.reports)
    # Not `model_copy`: it takes along what the record has worked out under its own factors.
    fields = {name: getattr(record, name) for name in RoundRecord.model_fields}
    return RoundRecord(**{**fields, "factors": new, "reports": reports})


def _round(record: RoundRecord, changes: Changes) -> tuple[RoundSummary, Kept]:
    return recost_round(record, changes).summary(), _kept(record, changes)


def _report(report: ReportRecord, old: Factors, new: Factors, changes: Changes) -> ReportRecord:
    energy_kwh = report.counted_energy_kwh
    if not report.accepted or energy_kwh is None:
        return report
    if report.on_server_host:
        if _same_cost(old, new):
            return report
        return replace(report, counted_emissions_kg=emissions_kg(energy_kwh, new))
    grid = changes.grid
    stated = report.carbon_intensity_g_per_kwh
    if not changes.everywhere or grid is None or stated == grid.g_per_kwh:
        return report
    counted_kg = energy_kwh * _on_top(report) * grid.g_per_kwh / GRAMS_PER_KG
    return replace(
        report,
        counted_emissions_kg=counted_kg,
        carbon_intensity_g_per_kwh=grid.g_per_kwh,
        country=grid.country,
    )


def _same_cost(old: Factors, new: Factors) -> bool:
    """Whether a kWh of the server's machine costs what it did."""
    return (old.pue, old.server_carbon_intensity_g_per_kwh) == (
        new.pue,
        new.server_carbon_intensity_g_per_kwh,
    )


def _on_top(report: ReportRecord) -> float:
    """What a client counts for ÷ its energy × the intensity it stated: its PUE, or a finer table.

    1 where that cannot be told. A report outside `CONSISTENT_RATIO` would have been rejected; the
    bounds hold here because numbers next to nothing lose their digits.
    """
    stated, counted = report.carbon_intensity_g_per_kwh, report.counted_emissions_kg
    product = (report.counted_energy_kwh or 0.0) * (stated or 0.0) / GRAMS_PER_KG
    if counted is None or product <= 0:
        return 1.0
    least, most = CONSISTENT_RATIO
    return min(most, max(least, counted / product))


def _kept(record: RoundRecord, changes: Changes) -> Kept:
    """What stays in one round although a new grid was asked for."""
    if changes.grid is None:
        return Kept()
    elsewhere = [r for r in record.accepted if not r.on_server_host]
    bare = [r for r in elsewhere if r.counted_energy_kwh is None]
    own = (
        []
        if changes.everywhere
        else [report for report in elsewhere if report.counted_energy_kwh is not None]
    )
    return Kept(
        own_grid_kg=fsum(r.counted_emissions_kg or 0.0 for r in own),
        own_grid_reports=len(own),
        without_energy_kg=fsum(r.counted_emissions_kg or 0.0 for r in bare),
        without_energy_reports=len(bare),
    )


def _without_rows(row: RoundSummary, changes: Changes) -> tuple[RoundSummary, Kept]:
    """The server's part and the transfers, from a round's sums alone."""
    factors = changes.applied_to(row.factors)
    energy_kwh = row.server_energy_kwh
    server = None if energy_kwh is None else emissions_kg(energy_kwh, factors)
    total = sum_known((server, row.clients_emissions_kg))
    sizes = [size for size in (row.bytes_to_clients, row.bytes_from_clients) if size is not None]
    communication = communication_kg(sum(sizes) if sizes else None, factors)
    estimated = sum_known((communication, row.imputed_emissions_kg))
    known = total is not None and estimated is not None
    changed = replace(
        row,
        factors=factors,
        server_emissions_kg=server,
        total_emissions_kg=total,
        communication_emissions_kg_estimated=communication,
        estimated_total_emissions_kg=sum_known((total, estimated)) if known else None,
    )
    moved = changes.grid is not None or not _same_cost(row.factors, factors)
    return changed, Kept(without_rows_kg=(row.clients_emissions_kg or 0.0) if moved else 0.0)


def _check(name: str, value: float, least: float, meaning: str) -> None:
    if not least <= value <= MOST:  # NaN is in no range
        raise InvalidFactor(name, value, least, MOST, meaning)
