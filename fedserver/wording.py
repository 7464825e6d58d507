"""The sentences in which figures are told: a line a round, and the closing line.

Nothing is computed here; a figure is taken from a record and given a unit and enough digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from telemetry.budget import used_ratio
from telemetry.digest import SEAL_DIGITS
from telemetry.domain import (
    GRAMS_PER_KG,
    Factors,
    ReportRecord,
    RoundRecord,
    RoundSummary,
    Sensor,
    StoredRun,
)
from telemetry.method import MODELLED, MODELLED_NOTE
from telemetry.sharing import machine_share

_SENSOR_WORDS: dict[Sensor, str] = {
    "rapl": "CPU and memory measured by RAPL",
    "nvml": "GPU measured by NVML",
    "mixed": "partly measured, partly modelled",
    "model": "modelled, no power sensor",
    "constant": "modelled, no power sensor",
    "unknown": "sensor unknown",
}
_MOST_NAMES: Final = 3


def decimals_for(grams: float) -> int:
    """Decimals that show a figure with at least two significant digits, and at least two."""
    if grams <= 0 or not math.isfinite(grams):
        return 2
    return max(2, 1 - math.floor(math.log10(grams)))


def grams(emissions_kg: float | None, decimals: int | None = None) -> str:
    """Emissions in grams as text, without unit; ``unknown`` for None."""
    if emissions_kg is None:
        return "unknown"
    value = emissions_kg * GRAMS_PER_KG
    return f"{value:.{decimals_for(value) if decimals is None else decimals}f}"


def round_line(record: RoundRecord, planned: int | None, metrics: Sequence[str]) -> str:
    """``round 3/5 completed in 2.1 s, 3/3 clients, accuracy 0.87, 0.62 g (…), coverage 2/3``."""
    of = f"/{planned}" if planned else ""
    asked = len(record.trained)
    failed = record.outcome_count("failed") or 0
    parts = [
        f"round {record.round}{of} {record.status} in {record.duration_s:.1f} s",
        f"{asked - failed}/{asked} clients",
    ]
    if record.reason:
        parts.insert(1, record.reason)
    for name in metrics:
        value = record.evaluate_metrics.get(name, record.train_metrics.get(name))
        if value is not None:
            parts.append(f"{name} {value:.4g}")
    if record.tracked:
        total = record.total_emissions_kg
        places = decimals_for((total or 0.0) * GRAMS_PER_KG)
        unit = "" if total is None else " g"
        parts.append(
            f"{grams(total, places)}{unit} (server {grams(record.server_emissions_kg, places)}, "
            f"clients {grams(record.clients_emissions_kg, places)})"
        )
        parts.append(f"coverage {record.outcome_count('reported')}/{asked}")
        if rejected := record.outcome_count("rejected"):
            parts.append(f"{rejected} rejected")
        imputed = record.imputation
        parts += estimate_words(
            record.communication_emissions_kg_estimated,
            None if imputed is None else (imputed.low_kg, imputed.central_kg, imputed.high_kg),
            0 if imputed is None else imputed.clients,
        )
        parts += mark_words(record.accepted)
    return ", ".join(parts)


def closing_line(run: StoredRun, rounds: Sequence[RoundSummary], country: str | None) -> str:
    """The run's total and all that a reader must know to trust it, in one line."""
    if not run.info.tracked:
        return "emissions were not tracked (track_emissions: false)"
    totals = run.totals
    total = totals.total_emissions_kg
    why = f"{run.reason}; " if run.status == "stopped_on_budget" and run.reason else ""
    if total is None:
        return f"{why}emissions unknown: nothing was metered and no client reported"
    places = decimals_for(total * GRAMS_PER_KG)
    clients = totals.clients_emissions_kg
    if clients is None and not any(r.participants for r in rounds):
        clients = 0.0  # nobody took part: that is known
    said = [
        *_host_words(rounds),
        _coverage_words(run, rounds),
        *_scope_words(run.info.factors, rounds),
        sensor_words(run.info.factors),
        intensity_words(run.info.factors, country),
        *_flag_words(rounds, places),
        *budget_words(run),
    ]
    estimates = "".join(f" {words}" for words in run_estimate_words(run, rounds))
    return (
        f"{why}total {grams(total, places)} g = "
        f"server {_with_unit(totals.server_emissions_kg, places)} + "
        f"clients {_with_unit(clients, places)} ({'; '.join(said)}){estimates}"
    )


def sealed_line(closing: str, run: StoredRun) -> str:
    """The closing line with the beginning of the run's seal, by which its figures are recognised."""
    return closing if run.sha256 is None else f"{closing}, sealed {run.sha256[:SEAL_DIGITS]}"


def estimate_words(
    communication_kg: float | None,
    imputed_kg: tuple[float, float, float] | None,
    silent: int,
    rounds: int = 1,
) -> list[str]:
    """Estimates as what they are: beside the total, ``+ 0.40 g estimated for communication (…)``.

    ``imputed_kg`` is low, central and high, for ``silent`` clients in so many ``rounds``, counted in
    each. Without silent clients there is nothing to say.
    """
    said = []
    if communication_kg is not None:
        said.append(
            f"+ {grams(communication_kg)} g estimated for communication (allocated, estimated)"
        )
    if imputed_kg is not None and silent:
        low, central, high = imputed_kg
        places = decimals_for(central * GRAMS_PER_KG)
        whom = f"{silent} silent {'client' if silent == 1 else 'clients'}"
        if rounds > 1:
            whom = f"silent clients ({silent} in {rounds} rounds)"
        said.append(
            f"+ {grams(central, places)} g ({grams(low, places)}-{grams(high, places)}) imputed for "
            f"{whom}"
        )
    return said


def run_estimate_words(run: StoredRun, rounds: Sequence[RoundSummary]) -> list[str]:
    """`estimate_words` of a whole run."""
    totals = run.totals
    low, central, high = (
        totals.imputed_low_emissions_kg,
        totals.imputed_emissions_kg,
        totals.imputed_high_emissions_kg,
    )
    imputed = None if low is None or central is None or high is None else (low, central, high)
    silent = [row.imputed_clients for row in rounds if row.imputed_clients]
    communication = totals.communication_emissions_kg_estimated
    said = estimate_words(communication, imputed, sum(silent), len(silent))
    asked = [row for row in rounds if row.factors.impute_missing and row.missing]
    if asked and imputed is None:
        said.append("(nothing imputed: fewer than three reports in each round)")
    return said


def factor_words(factors: Factors) -> list[str]:
    """What the estimates rest on, those that are made."""
    said = []
    if factors.network_kwh_per_gb is not None:
        said.append(
            f"communication: bytes × {factors.network_kwh_per_gb:g} kWh/GB (10^9 bytes) × the "
            "server's intensity, allocated, not measured"
        )
    if factors.impute_missing:
        said.append(
            "silent clients: median g per example of those who reported (10th-90th percentile), "
            "imputed, not measured"
        )
    return said


def mark_words(reports: Sequence[ReportRecord]) -> list[str]:
    """Which reports look odd: ``1 report looks cumulative: c-12ab34cd``, ``2 outliers: …``."""
    rising = sorted({report.client for report in reports if report.looks_cumulative})
    odd = sorted({report.client for report in reports if report.outlier})
    said = []
    if rising:
        look = "report looks" if len(rising) == 1 else "reports look"
        said.append(f"{len(rising)} {look} cumulative: {_names(rising)}")
    if odd:
        said.append(f"{len(odd)} {'outlier' if len(odd) == 1 else 'outliers'}: {_names(odd)}")
    return said


def budget_words(run: StoredRun) -> list[str]:
    """``budget 12 g: 34 % used``, by closed rounds; nothing for a run without one."""
    budget_kg = run.info.budget_kg
    if budget_kg is None:
        return []
    used = used_ratio(run.totals.total_emissions_kg, budget_kg)
    said = "nothing is known to be used" if used is None else f"{used * 100:.0f} % used"
    return [f"budget {grams(budget_kg)} g: {said}"]


def _flag_words(rounds: Sequence[RoundSummary], places: int) -> list[str]:
    """How much of the total comes from reports that bear a mark."""
    count = sum(row.reports_flagged or 0 for row in rounds)
    if not count:
        return []
    kg = math.fsum(row.flagged_emissions_kg or 0.0 for row in rounds)
    look = "report looks" if count == 1 else "reports look"
    return [f"{count} {look} odd, {grams(kg, places)} g of the total"]


def _names(names: Sequence[str]) -> str:
    """At most a few, for a line of the log."""
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown}, …"


def sensor_words(factors: Factors) -> str:
    """What the server's meter read."""
    return _SENSOR_WORDS[factors.server_sensor]


def headline_note(factors: Factors) -> str | None:
    """What every headline must say where no power sensor was read; None where one was."""
    return MODELLED_NOTE if factors.server_sensor in MODELLED else None


def intensity_words(factors: Factors, country: str | None) -> str:
    """The carbon intensity and whose it is."""
    figure = f"{factors.server_carbon_intensity_g_per_kwh:.4g} gCO2eq/kWh"
    if factors.country is None:
        return f"{figure}, {factors.intensity_source}"
    return f"{figure}, {country or factors.country}"


def client_intensity_words(reports: Iterable[ReportRecord]) -> str | None:
    """Which carbon intensities the clients' own figures were made with; None without any report."""
    stated: list[float] = []
    split = bare = 0
    for report in reports:
        if not report.accepted:
            continue
        if report.on_server_host:
            split += 1
        elif report.carbon_intensity_g_per_kwh is None:
            bare += 1
        else:
            stated.append(report.carbon_intensity_g_per_kwh)
    said = []
    if split:
        said.append(f"the server's for {_reports(split)} from its own machine")
    if stated:
        low, high = f"{min(stated):.4g}", f"{max(stated):.4g}"
        figure = low if low == high else f"{low} to {high}"
        said.append(f"{figure} gCO2eq/kWh as {_reports(len(stated))} stated")
    if bare:
        said.append(f"not stated by {_reports(bare)}, which count as sent")
    return f"intensity: {', '.join(said)}" if said else None


def _reports(count: int) -> str:
    return "1 report" if count == 1 else f"{count} reports"


def _with_unit(emissions_kg: float | None, places: int) -> str:
    return "unknown" if emissions_kg is None else f"{grams(emissions_kg, places)} g"


def _scope_words(factors: Factors, rounds: Sequence[RoundSummary]) -> list[str]:
    """What the server's figure is of, where that is not the whole machine."""
    if factors.server_scope not in ("allocation", "process"):
        return []
    share = machine_share(rounds)
    if share is None:
        return [f"{factors.server_scope}, not the whole machine"]
    percent = f"{share * 100:.2g}" if share < 0.995 else "100"
    return [f"{factors.server_scope}: {percent} % of the machine"]


def _host_words(rounds: Sequence[RoundSummary]) -> list[str]:
    """Whether clients were split off the server's own figure, and how many could be on any machine."""
    split = any(
        r.host_energy_kwh is not None
        and r.server_energy_kwh is not None
        and r.server_energy_kwh < r.host_energy_kwh
        for r in rounds
    )
    said = ["this machine measured once, its clients split from its figure"] if split else []
    unplaced = sum(r.reports_without_host or 0 for r in rounds)
    if unplaced:
        said.append(
            f"{_reports(unplaced)} {'names' if unplaced == 1 else 'name'} no machine and "
            f"{'counts' if unplaced == 1 else 'count'} in full"
        )
    return said


def _coverage_words(run: StoredRun, rounds: Sequence[RoundSummary]) -> str:
    if run.pruned_at is not None and not rounds:
        return "its rounds were pruned, and how many clients reported with them"
    asked = [(r.reported or 0, r.participants) for r in rounds if r.participants]
    if not asked:
        return "no client took part"
    if len(set(asked)) == 1:
        reported, participants = asked[0]
        return f"{reported} of {participants} clients reported"
    reported, participants = (sum(column) for column in zip(*asked, strict=True))
    return f"{reported} of {participants} expected reports came in {len(asked)} rounds"
