"""``fedserver runs …``: what the store knows of past and running trainings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TextIO, cast

import typer
from rich.table import Table

from fedserver.errors import ConfigError, Problem
from fedserver.progress import progress
from fedserver.rounds_table import rounds_table
from fedserver.runs_answers import TargetOption, check_target
from fedserver.runs_common import (
    FileOption,
    RunArgument,
    StoreOption,
    console,
    local_time,
    opened_store,
    resolved_run,
    saved,
)
from fedserver.runs_compare import compare_runs, value_lines
from fedserver.runs_delete import delete
from fedserver.runs_recost import recost
from fedserver.runs_report import report
from fedserver.runs_sci import sci
from fedserver.runs_verify import verify
from fedserver.saying import InertStream, say
from fedserver.wording import (
    client_intensity_words,
    closing_line,
    factor_words,
    grams,
    headline_note,
    intensity_words,
    mark_words,
)
from telemetry.domain import RoundSummary, StoredRun
from telemetry.exporters import FORMATS
from telemetry.exporters.base import Format, Notes
from telemetry.statement import statement
from telemetry.store import Store

runs = typer.Typer(
    help="List, show, report, export, compare, re-cost, verify and delete recorded runs.",
    no_args_is_help=True,
)


@runs.command("list")
def list_runs(store: StoreOption = None, config: FileOption = None) -> None:
    """All runs, newest first."""
    with opened_store(store, config) as opened:
        found = opened.runs()
        if not found:
            say(f"no runs in {opened.url}")
            return
        table = Table(box=None, header_style="bold")
        for heading in ("run", "name", "status", "started", "strategy"):
            table.add_column(heading, no_wrap=heading == "run")
        for heading in ("rounds", "g CO2eq"):
            table.add_column(heading, justify="right")
        for run in found:
            table.add_row(
                run.run_id,
                run.info.run_name,
                run.status,
                local_time(run.info.started_at),
                run.info.strategy,
                f"{_played_to_the_end(run)}/{run.info.rounds_planned or '?'}",
                grams(run.totals.total_emissions_kg) if run.info.tracked else "not tracked",
            )
        console().print(table)


@runs.command()
def show(
    run: RunArgument,
    target: TargetOption = None,
    method: Annotated[
        bool,
        typer.Option("--method", help="A paragraph on figures and method, to be pasted elsewhere."),
    ] = False,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """One run: its figures, what they rest on, and its rounds."""
    check_target(target)
    with opened_store(store, config) as opened:
        stored = resolved_run(opened, run)
        rounds = list(opened.rounds(stored.run_id))
        if method:
            say(_statement(stored, rounds))
            return
        for line in (*describe_run(stored, rounds), *value_lines(stored, rounds, target)):
            say(line)
        stated = client_intensity_words(report for _, _, report in opened.reports(stored.run_id))
        if stated is not None:
            say(f"clients    {stated}")
        if any(row.reports_flagged for row in rounds):
            marked = [report for _, _, report in opened.reports(stored.run_id) if report.flags]
            words = mark_words(marked) or ["rows of clients are not kept"]
            say(f"marks      {', '.join(words)}; they count like any other")
        if rounds:
            width = console().width if sys.stdout.isatty() else None
            console().print(rounds_table(rounds, stored.info.metric_names, width))
            say("set-up: from the start to the first round, mostly waiting for clients")


@runs.command()
def export(
    run: RunArgument,
    format_name: Annotated[
        str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file (default: standard output).")
    ] = None,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Hand out a run as a file."""
    if format_name not in FORMATS:
        text = f"{format_name!r} is not an export format; choose {', '.join(FORMATS)}"
        raise ConfigError([Problem(path="--format", text=text, source="")])
    with opened_store(store, config) as opened:
        stored = resolved_run(opened, run)
        notes = _written(FORMATS[format_name], opened, stored.run_id, output)
        for note in notes:
            say(note, err=True)
        if stored.pruned_at is not None:
            say(
                f"the rounds of run {stored.run_id} were pruned: `fedserver runs show` has its totals",
                err=True,
            )
        if output is not None:
            say(f"wrote {output}", err=True)


runs.command("compare")(compare_runs)
runs.command("recost")(recost)
runs.command("report")(report)
runs.command("sci")(sci)
runs.command("verify")(verify)
runs.command("delete")(delete)


def _written(form: Format, store: Store, run_id: str, output: Path | None) -> Notes:
    """Write to a file, or to standard output; with a bar unless the export itself is on the screen."""
    if output is None:
        out = sys.stdout
        out.reconfigure(newline="", encoding="utf-8")  # type: ignore[union-attr]
        if out.isatty():
            return form.write(store, run_id, cast(TextIO, InertStream(out)))
        with progress("export", unit="lines") as tell:
            return form.write_telling(store, run_id, out, tell)
    with progress("export", unit="lines") as tell:
        return saved(form, store, run_id, output, tell)


# --- words and tables ----------------------------------------------------------------------------


def _statement(run: StoredRun, rounds: list[RoundSummary]) -> str:
    from fedserver.ending import country_name

    return statement(run, rounds, country_name(run.info.factors.country))


def describe_run(run: StoredRun, rounds: list[RoundSummary]) -> list[str]:
    """What ``runs show`` says above the table of rounds."""
    from fedserver.ending import country_name

    info = run.info
    country = country_name(info.factors.country)
    note = headline_note(info.factors)
    total = run.totals.total_emissions_kg
    headline = "not tracked" if not info.tracked else "unknown"
    if total is not None:
        headline = f"{grams(total)} g CO2eq" + (f" ({note})" if note else "")
    ended = local_time(run.ended_at) if run.ended_at else "-"
    lines = [
        f"run        {run.run_id}  {info.run_name}",
        f"status     {run.status}" + (f": {run.reason}" if run.reason else ""),
        f"time       {local_time(info.started_at)} to {ended}",
        f"training   {info.strategy}, privacy {info.privacy}, "
        f"{_played(run, rounds)} of {info.rounds_planned or '?'} rounds played"
        f"{_not_completed(run)}",
        f"footprint  {headline}",
    ]
    if info.tracked:
        lines += [
            f"           {closing_line(run, rounds, country)}",
            f"intensity  {intensity_words(info.factors, country)} "
            f"({info.factors.intensity_source}"
            + (f", {info.factors.intensity_year})" if info.factors.intensity_year else ")"),
            f"server     {info.tracker or 'no meter'}, scope {info.factors.server_scope}, "
            f"sensor {info.factors.server_sensor}, PUE {info.factors.pue:g}",
            *(f"estimates  {words}" for words in factor_words(info.factors)),
        ]
    if not info.client_rows or not all(row.client_rows for row in rounds):
        lines.append(
            "clients    no rows of clients are kept, only sums (telemetry.client_rows: false)"
        )
    if run.pruned_at is not None:
        lines.append(f"pruned     {local_time(run.pruned_at)}: only its totals are kept")
    if run.ended_at is not None:
        lines.append(f"seal       {run.sha256 or 'none: recorded before there were seals'}")
    return lines


def _played(run: StoredRun, rounds: list[RoundSummary]) -> int:
    """Round numbers that were begun; of a run without its rounds, those that were ended."""
    if run.pruned_at is not None and not rounds:
        return _played_to_the_end(run)
    return len({row.round for row in rounds if row.round})


def _played_to_the_end(run: StoredRun) -> int:
    """Round numbers: an interrupted round is played again when its run goes on."""
    return sum(count for status, count in run.totals.rounds.items() if status != "interrupted")


def _not_completed(run: StoredRun) -> str:
    """How many of the rounds were anything but completed, in words."""
    others = {name: count for name, count in run.totals.rounds.items() if name != "completed"}
    told = ", ".join(f"{count} {name}" for name, count in others.items() if count)
    return f" ({told})" if told else ""
