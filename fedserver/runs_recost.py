"""``fedserver runs recost``: a stored run with another carbon intensity, PUE or network factor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from fedserver.progress import progress
from fedserver.runs_answers import FormOption, check_form, print_json, wrong
from fedserver.runs_common import (
    FileOption,
    RunArgument,
    StoreOption,
    console,
    opened_store,
    resolved_run,
)
from fedserver.saying import say
from fedserver.wording import decimals_for, grams, intensity_words
from fedserver_hooks.intensity import (
    InvalidIntensity,
    UnknownCountry,
    UnknownRegion,
    lookup,
)
from telemetry.analysis.recost import Changes, Grid, Recost, recost_run
from telemetry.analysis.value import measured_kg
from telemetry.domain import GRAMS_PER_KG, Factors, RoundRecord, RoundSummary, RunTotals, StoredRun
from telemetry.errors import InvalidFactor
from telemetry.progress import counted
from telemetry.store import Store

_MEASURED: Final = ("server_emissions_kg", "clients_emissions_kg", "total_emissions_kg")
_FIGURES: Final = (*_MEASURED, "communication_emissions_kg_estimated", "imputed_emissions_kg")


def recost(
    run: RunArgument,
    intensity: Annotated[
        float | None, typer.Option("--intensity", help="Carbon intensity, g CO2eq per kWh.")
    ] = None,
    country: Annotated[
        str | None,
        typer.Option("--country", help="The intensity of this country (ISO 3166 alpha-3)."),
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", help="With --country: of this region.")
    ] = None,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere",
            help="The intensity holds for every client, not only on the server's machine.",
        ),
    ] = False,
    pue: Annotated[
        float | None, typer.Option("--pue", help="Power usage effectiveness around the server.")
    ] = None,
    network: Annotated[
        float | None, typer.Option("--network", help="Transfers, kWh per decimal GB (estimate).")
    ] = None,
    form: FormOption = "table",
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """What a run would have emitted elsewhere: nothing that is stored changes."""
    check_form(form)
    changes = _changes(_grid(intensity, country, region), everywhere, pue, network)
    with opened_store(store, config) as opened:
        stored = resolved_run(opened, run)
        if not stored.info.tracked:
            raise wrong("RUN", f"emissions of {stored.run_id} were not tracked: nothing to re-cost")
        rounds = _closed_rounds(opened, stored.run_id)
        with progress("re-cost", sum(stored.totals.rounds.values()) + 1, "rounds") as tell:
            found = recost_run(counted(rounds, tell), changes)
    if form == "json":
        print_json(_as_json(stored, found))
        return
    for line in _heading(stored, found):
        say(line)
    if found.rounds:
        console().print(_totals_table(found))
        console().print(_rounds_table(found))
    for line in _notes(stored, found):
        say(line)


def _grid(intensity: float | None, country: str | None, region: str | None) -> Grid | None:
    """The intensity that was asked for, from codecarbon's tables or as it was given."""
    if intensity is None and country is None and region is None:
        return None
    if intensity is not None and (country is not None or region is not None):
        raise wrong("--intensity", "either a number, or the --country whose table is to be read")
    try:
        found = lookup(country, region, intensity)
    except InvalidIntensity as error:
        raise wrong("--intensity", str(error)) from error
    except UnknownCountry as error:
        raise wrong("--country", str(error)) from error
    except UnknownRegion as error:
        raise wrong("--region", str(error)) from error
    source = "given with --intensity" if intensity is not None else found.source
    try:
        return Grid(
            g_per_kwh=found.g_per_kwh, source=source, year=found.year, country=found.country
        )
    except InvalidFactor as error:
        raise wrong("--intensity", error.problem) from error


def _changes(
    grid: Grid | None, everywhere: bool, pue: float | None, network: float | None
) -> Changes:
    if grid is None and pue is None and network is None:
        raise wrong(
            "--everywhere" if everywhere else "recost",
            "says nothing to change; give --intensity, --country, --pue or --network",
        )
    if everywhere and grid is None:
        raise wrong("--everywhere", "is about a carbon intensity; give --intensity or --country")
    try:
        return Changes(grid=grid, everywhere=everywhere, pue=pue, network_kwh_per_gb=network)
    except InvalidFactor as error:
        raise wrong(f"--{error.name}", error.problem) from error


def _closed_rounds(store: Store, run_id: str) -> Iterator[tuple[RoundSummary, RoundRecord | None]]:
    """A run's closed rounds, each with its rows where they are kept; one at a time."""
    for row in store.rounds(run_id):
        record = store.round(run_id, row.round, row.attempt) if row.client_rows else None
        yield row, record


# --- words and tables ----------------------------------------------------------------------------


def _heading(run: StoredRun, found: Recost) -> list[str]:
    stored = [item.stored.factors for item in found.rounds] or [run.info.factors]
    new = [found.changes.applied_to(factors) for factors in stored]
    asked = found.changes
    lines = [f"run        {run.run_id}  {run.info.run_name}, stored and re-computed"]
    for name, change, word in (
        ("intensity", asked.grid, _intensity),
        ("PUE", asked.pue, lambda f: f"{f.pue:g}"),
        ("network", asked.network_kwh_per_gb, _network),
    ):
        before, after = _distinct(map(word, stored)), _distinct(map(word, new))
        told = before if change is None else f"{before}  ->  {after}"
        lines.append(f"{name:<10} {told}")
    if asked.grid is not None:
        who = (
            "the server and every client that reported its energy"
            if asked.everywhere
            else "the server and the clients on its machine (every client: --everywhere)"
        )
        lines.append(f"applies to {who}")
    return lines


def _distinct(words: Iterable[str]) -> str:
    """Rounds of a resumed run may have been played under different factors."""
    return "; ".join(dict.fromkeys(words))


def _intensity(factors: Factors) -> str:
    from fedserver.ending import country_name

    words = intensity_words(factors, country_name(factors.country))
    if factors.country is not None:
        words += f" ({factors.intensity_source})"
    year = factors.intensity_year
    stated = year is None or str(year) in factors.intensity_source
    return words if stated else f"{words}, {year}"


def _network(factors: Factors) -> str:
    factor = factors.network_kwh_per_gb
    return "not set" if factor is None else f"{factor:g} kWh/GB"


def _totals_table(found: Recost) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("whole run")
    for heading in ("stored g", "re-computed g", "difference"):
        table.add_column(heading, justify="right")
    places = _places(found)
    for title, name in (
        ("server", "server_emissions_kg"),
        ("clients", "clients_emissions_kg"),
        ("total measured", "total_emissions_kg"),
        ("transfers (allocated, estimated)", "communication_emissions_kg_estimated"),
        ("silent clients (imputed)", "imputed_emissions_kg"),
    ):
        before, after = getattr(found.stored, name), getattr(found.recosted, name)
        measured = name in _MEASURED
        if before is None and after is None and not measured:
            continue
        table.add_row(
            title,
            *("-" if v is None and not measured else grams(v, places) for v in (before, after)),
            _difference(before, after, places),
        )
    return table


def _rounds_table(found: Recost) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("round", "stored g", "re-computed g", "difference"):
        table.add_column(heading, justify="right")
    places = _places(found)
    for item in found.rounds:
        row = item.stored
        name = "set-up" if row.round == 0 else str(row.round)
        before, after = row.total_emissions_kg, item.recosted.total_emissions_kg
        table.add_row(
            name if row.attempt == 1 else f"{name} ({row.attempt})",
            "" if before is None else grams(before, places),
            "" if after is None else grams(after, places),
            _difference(before, after, places),
        )
    return table


def _places(found: Recost) -> int:
    totals = [(i.stored.total_emissions_kg, i.recosted.total_emissions_kg) for i in found.rounds]
    known = [value for pair in totals for value in pair if value]
    return decimals_for(min(known) * GRAMS_PER_KG) if known else 2


def _difference(before: float | None, after: float | None, places: int) -> str:
    if before is None or after is None:
        return ""
    moved = f"{(after - before) * GRAMS_PER_KG:+.{places}f}"
    return f"{moved} ({after / before - 1:+.0%})" if before > 0 else moved


def _notes(run: StoredRun, found: Recost) -> list[str]:
    """What the re-computed figures leave as it was, and why."""
    total = measured_kg(found.stored)
    if total is None:
        return ["nothing is known of this run's emissions: there is nothing to re-cost"]
    places = _places(found)

    def part(kg: float) -> str:
        return f"{grams(kg, places)} g of {grams(total, places)} g"

    kept, lines = found.kept, []
    if kept.own_grid_reports:
        lines.append(
            f"{part(kept.own_grid_kg)} are of clients elsewhere and stay at their own intensity"
        )
    if kept.without_energy_reports:
        lines.append(
            f"{part(kept.without_energy_kg)} cannot be re-costed: reported without energy"
            f" ({kept.without_energy_reports} reports)"
        )
    if kept.without_rows_kg:
        lines.append(
            f"{part(kept.without_rows_kg)} cannot be re-costed: "
            "the run keeps no rows of its clients (telemetry.client_rows: false)"
        )
    if found.changes.pue is not None:
        lines.append(
            "the PUE is that of the server's machine: of clients elsewhere it says nothing"
        )
    if run.status == "running":
        lines.append("the run goes on: these are its closed rounds")
    return lines


# --- json ----------------------------------------------------------------------------------------


def _as_json(run: StoredRun, found: Recost) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "run_name": run.info.run_name,
        "status": run.status,
        "changes": asdict(found.changes),
        "stored": _figures(found.stored),
        "recosted": _figures(found.recosted),
        "kept": asdict(found.kept),
        "rounds": [
            {
                "round": item.stored.round,
                "attempt": item.stored.attempt,
                "stored": _round_figures(item.stored),
                "recosted": _round_figures(item.recosted),
            }
            for item in found.rounds
        ],
    }


def _figures(source: RunTotals | RoundSummary) -> dict[str, float | None]:
    return {name: getattr(source, name) for name in _FIGURES}


def _round_figures(row: RoundSummary) -> dict[str, Any]:
    factors = row.factors
    return _figures(row) | {
        "cumulative_emissions_kg": row.cumulative_emissions_kg,
        "server_carbon_intensity_g_per_kwh": factors.server_carbon_intensity_g_per_kwh,
        "intensity_source": factors.intensity_source,
        "intensity_year": factors.intensity_year,
        "country": factors.country,
        "pue": factors.pue,
        "network_kwh_per_gb": factors.network_kwh_per_gb,
    }
