"""The sentences in which figures are told: a line a round, and the closing line.

Nothing is computed here; a figure is taken from a record and given a unit and enough digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from telemetry.digest import SEAL_DIGITS
from telemetry.domain import (
    GRAMS_PER_KG,
    Factors,
    RoundRecord,
    RoundSummary,
    Sensor,
    StoredRun,
)
from telemetry.sharing import machine_share

_SENSOR_WORDS: dict[Sensor, str] = {
    "rapl": "CPU and memory measured by RAPL",
    "nvml": "GPU measured by NVML",
    "mixed": "partly measured, partly modelled",
    "model": "modelled, no power sensor",
    "constant": "modelled, no power sensor",
    "unknown": "sensor unknown",
}
_MODELLED: frozenset[Sensor] = frozenset({"model", "constant", "unknown"})


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
    return ", ".join(parts)


def closing_line(run: StoredRun, rounds: Sequence[RoundSummary], country: str | None) -> str:
    """The run's total and all that a reader must know to trust it, in one line."""
    if not run.info.tracked:
        return "emissions were not tracked (track_emissions: false)"
    totals = run.totals
    total = totals.total_emissions_kg
    if total is None:
        return "emissions unknown: nothing was metered and no client reported"
    places = decimals_for(total * GRAMS_PER_KG)
    clients = totals.clients_emissions_kg
    if clients is None and not any(r.participants for r in rounds):
        clients = 0.0  # nobody took part: that is known
    said = [
        *_host_words(rounds),
        _coverage_words(rounds),
        *_scope_words(run.info.factors, rounds),
        sensor_words(run.info.factors),
        intensity_words(run.info.factors, country),
    ]
    return (
        f"total {grams(total, places)} g = "
        f"server {_with_unit(totals.server_emissions_kg, places)} + "
        f"clients {_with_unit(clients, places)} ({'; '.join(said)})"
    )


def sealed_line(closing: str, run: StoredRun) -> str:
    """The closing line with the beginning of the run's seal, by which its figures are recognised."""
    return closing if run.sha256 is None else f"{closing}, sealed {run.sha256[:SEAL_DIGITS]}"


def sensor_words(factors: Factors) -> str:
    """What the server's meter read."""
    return _SENSOR_WORDS[factors.server_sensor]


def headline_note(factors: Factors) -> str | None:
    """What every headline must say where no power sensor was read; None where one was."""
    if factors.server_sensor in _MODELLED:
        return "modelled; no power sensor on the server"
    return None


def intensity_words(factors: Factors, country: str | None) -> str:
    """The carbon intensity and whose it is."""
    figure = f"{factors.server_carbon_intensity_g_per_kwh:.4g} gCO2eq/kWh"
    if factors.country is None:
        return f"{figure}, {factors.intensity_source}"
    return f"{figure}, {country or factors.country}"


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
    """Whether clients were split off the server's own figure."""
    split = any(
        r.host_energy_kwh is not None
        and r.server_energy_kwh is not None
        and r.server_energy_kwh < r.host_energy_kwh
        for r in rounds
    )
    return ["this machine measured once, its clients split from its figure"] if split else []


def _coverage_words(rounds: Sequence[RoundSummary]) -> str:
    asked = [(r.reported or 0, r.participants) for r in rounds if r.participants]
    if not asked:
        return "no client took part"
    if len(set(asked)) == 1:
        reported, participants = asked[0]
        return f"{reported} of {participants} clients reported"
    reported, participants = (sum(column) for column in zip(*asked, strict=True))
    return f"{reported} of {participants} expected reports came in {len(asked)} rounds"
