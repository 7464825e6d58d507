"""``fedserver runs sci``: a run's Software Carbon Intensity, by functional unit."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from fedserver.runs_answers import FormOption, check_form, number, print_json, wrong
from fedserver.runs_common import (
    FileOption,
    RunArgument,
    StoreOption,
    console,
    opened_store,
    resolved_run,
)
from fedserver.saying import say
from fedserver.wording import grams
from telemetry.analysis.sci import UNIT_WORDS, UNITS, Score, examples_of, scores
from telemetry.analysis.value import measured_kg, value_of
from telemetry.domain import RoundSummary, StoredRun
from telemetry.method import boundary, method_of

STANDARD = "ISO/IEC 21031:2024 (Software Carbon Intensity)"
FORMULA = "SCI = ((E x I) + M) per R; here the operational part, (E x I) per R, without M"


def sci(
    run: RunArgument,
    per: Annotated[
        str | None, typer.Option("--per", help=f"One of: {', '.join(UNITS)} (default: all).")
    ] = None,
    form: FormOption = "table",
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Software Carbon Intensity of a run (operational part), with its boundary."""
    check_form(form)
    if per is not None and per not in UNITS:
        raise wrong("--per", f"{per!r} is no functional unit here; choose {', '.join(UNITS)}")
    with opened_store(store, config) as opened:
        stored = resolved_run(opened, run)
        rounds = list(opened.rounds(stored.run_id))
        kept = all(row.client_rows for row in rounds)
        examples = (
            examples_of(p for _, _, p in opened.participants(stored.run_id)) if kept else None
        )
    value = value_of(rounds, stored.info.value_metric)
    found = scores(rounds, measured_kg(stored.totals), value, examples)
    shown = tuple(score for score in found if per in (None, score.unit))
    if form == "json":
        print_json(_as_json(stored, rounds, shown))
        return
    for line in _heading(stored, rounds):
        say(line)
    console().print(_table(shown))
    for line in _boundary(stored, rounds):
        say(line)


def _heading(run: StoredRun, rounds: list[RoundSummary]) -> list[str]:
    totals = run.totals
    reported, participants = _coverage(rounds)
    total = measured_kg(totals)
    lines = [
        f"run        {run.run_id}  {run.info.run_name}",
        f"standard   {STANDARD}",
        f"           {FORMULA}",
        "E x I      unknown"
        if total is None
        else f"E x I      {grams(total)} g CO2eq measured: server "
        f"{grams(totals.server_emissions_kg)} g, clients {grams(totals.clients_emissions_kg)} g",
    ]
    if total is not None and reported < participants:
        lines.append(
            f"           perhaps too low: {participants - reported} of {participants} "
            "expected reports are not in it"
        )
    return lines


def _coverage(rounds: list[RoundSummary]) -> tuple[int, int]:
    return sum(row.reported or 0 for row in rounds), sum(row.participants for row in rounds)


def _table(shown: tuple[Score, ...]) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("R, the functional unit", "R in this run", "g CO2eq per R"):
        table.add_column(heading, justify="left" if heading.startswith("R,") else "right")
    for score in shown:
        count = "unknown" if score.count is None else f"{score.count:.4g}"
        per_unit = number(score.g_per_unit)
        table.add_row(
            UNIT_WORDS[score.unit],
            count,
            f"{per_unit} ({score.reason})" if score.reason else per_unit,
        )
    return table


def _boundary(run: StoredRun, rounds: list[RoundSummary]) -> list[str]:
    known = boundary(method_of(run, rounds))
    return [
        "included",
        *(f"  {line}" for line in known["included"]),
        "not included",
        *(f"  {line}" for line in known["not_included"]),
    ]


def _as_json(
    run: StoredRun, rounds: list[RoundSummary], shown: tuple[Score, ...]
) -> dict[str, Any]:
    reported, participants = _coverage(rounds)
    return {
        "run_id": run.run_id,
        "standard": STANDARD,
        "formula": FORMULA,
        "embodied_included": False,
        "operational_emissions_kg": measured_kg(run.totals),
        "participants": participants,
        "reported": reported if run.info.tracked else None,
        "scores": [
            {
                "unit": score.unit,
                "unit_in_words": UNIT_WORDS[score.unit],
                "count": score.count,
                "g_co2eq_per_unit": score.g_per_unit,
                "reason": score.reason,
            }
            for score in shown
        ],
        "boundary": boundary(method_of(run, rounds)),
    }
