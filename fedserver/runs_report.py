"""``fedserver runs report``: a run as a document for people, in one file."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedserver.progress import progress
from fedserver.runs_common import (
    FileOption,
    RunArgument,
    StoreOption,
    opened_store,
    resolved_run,
    saved,
)
from fedserver.saying import say
from telemetry.exporters import run_html


def report(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file (default: report-RUN.html).")
    ] = None,
    author: Annotated[
        str | None, typer.Option(help="Who answers for the report: a person or a body.")
    ] = None,
    date: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The report's date (default: the run's end)."),
    ] = None,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """A run's emissions report: one HTML file to read, to print and to attach.

    Figures, plots, rounds, method, coverage, boundary, seal and citation, without script or network.
    """
    from fedserver.ending import country_name

    with opened_store(store, config) as opened:
        stored = resolved_run(opened, run)
        path = output or Path(f"report-{stored.run_id}.html")
        with progress("report", unit="rows of clients") as tell:
            write = partial(
                run_html.write_report,
                country=country_name(stored.info.factors.country),
                author=author,
                date=None if date is None else date.date().isoformat(),
                tell=tell,
            )
            saved(replace(run_html.FORMAT, write=write), opened, stored.run_id, path)
    say(f"wrote {path}", err=True)
