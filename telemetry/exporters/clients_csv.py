"""``clients-csv``: one row a client's report of a closed round, under the client's pseudonym.

``outcome`` is accepted, late (accepted, but for an earlier round: ``reported_round``) or rejected;
``rejection`` and ``rejected_value`` say why and what was sent. ``reported_emissions_kg`` (kg CO2eq)
and ``reported_energy_kwh`` are the client's own figures; ``counted_…`` are what entered the totals,
after the reports of one machine were brought down to what one meter would show. ``flags`` are the
marks of reports that look odd (`telemetry.marks`), comma separated. A client that sent
no report has no row here: the ``json`` format lists every participant. Neither the connection
(node) nor the machine of a client is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, repeat
from operator import attrgetter
from typing import Final, TextIO

from telemetry.domain import ReportOutcome, ReportRecord, RoundSummary, RunInfo, utc_texts
from telemetry.exporters.base import Format, Notes, a_line_a_report
from telemetry.exporters.cells import Cell, flag, neutral, write_table
from telemetry.store.base import Store

Row = tuple[int, int, ReportRecord]
"""Round, attempt, report."""


def outcome(report: ReportRecord) -> ReportOutcome:
    """What became of a stored report."""
    if not report.accepted:
        return "rejected"
    return "late" if report.late else "accepted"


RUN_COLUMNS: Final[dict[str, Callable[[RunInfo], Cell]]] = {
    "run_id": lambda run: run.run_id,
    "run_name": lambda run: neutral(run.run_name),
}

Reports = Sequence[ReportRecord]
Column = Callable[[Reports], Iterable[Cell]]


def _plain(name: str) -> Column:
    """A field as it is: a number, or a word of ours."""
    get = attrgetter(name)
    return lambda reports: map(get, reports)


def _text(name: str) -> Column:
    """A field that a client or a server has filled with text."""
    get = attrgetter(name)
    return lambda reports: map(neutral, map(get, reports))


def _time(name: str) -> Column:
    get = attrgetter(name)
    return lambda reports: utc_texts(map(get, reports))


REPORT_COLUMNS: Final[dict[str, Column]] = {
    "reported_round": _plain("reported_round"),
    "client": _text("client"),
    "phase": _plain("phase"),
    "outcome": lambda reports: map(outcome, reports),
    "rejection": _plain("rejection"),
    "rejected_value": _text("rejected_value"),
    "reported_emissions_kg": _plain("emissions_kg"),
    "reported_energy_kwh": _plain("energy_kwh"),
    "cpu_kwh": _plain("cpu_kwh"),
    "gpu_kwh": _plain("gpu_kwh"),
    "ram_kwh": _plain("ram_kwh"),
    "counted_emissions_kg": _plain("counted_emissions_kg"),
    "counted_energy_kwh": _plain("counted_energy_kwh"),
    "on_server_host": lambda reports: (flag(report.on_server_host) for report in reports),
    "duration_s": _plain("duration_s"),
    "started_at": _time("started_at"),
    "ended_at": _time("ended_at"),
    "country": _text("country"),
    "carbon_intensity_g_per_kwh": _plain("carbon_intensity_g_per_kwh"),
    "sensor": _plain("sensor"),
    "scope": _text("scope"),
    "tracker": _text("tracker"),
    "schema_version": _plain("schema_version"),
    "dropped_fields": _text("dropped_fields"),
    "flags": lambda reports: (",".join(report.flags) or None for report in reports),
}
"""Of many reports at once: a million rows are then handled column by column, in a third of the time."""

COLUMNS: Final = (*RUN_COLUMNS, "round", "attempt", *REPORT_COLUMNS)


def write(store: Store, run_id: str, out: TextIO) -> Notes:
    """Write the reports of a run's closed rounds as CSV."""
    run = store.run(run_id).info
    write_table(out, COLUMNS, _rows(run, store.reports(run_id)))
    return _not_kept(store.rounds(run_id))


def _not_kept(rounds: Iterable[RoundSummary]) -> Notes:
    """Says so where reports were counted and no row of them was kept: that is not "none came"."""
    kept = [row.client_rows for row in rounds]
    without = kept.count(False)
    if not without:
        return []
    return [
        f"{without} of {len(kept)} rounds have no rows here: only sums of their clients were kept "
        "(telemetry.client_rows: false)"
    ]


AT_ONCE: Final = 500


def _rows(run: RunInfo, reports: Iterator[Row]) -> Iterator[tuple[Cell, ...]]:
    of_run = [cell(run) for cell in RUN_COLUMNS.values()]
    while some := list(islice(reports, AT_ONCE)):
        numbers, attempts, records = zip(*some, strict=True)
        columns = (column(records) for column in REPORT_COLUMNS.values())
        yield from zip(*map(repeat, of_run), numbers, attempts, *columns)  # noqa: B905  # endless


FORMAT: Final = Format(
    name="clients-csv",
    media_type="text/csv",
    suffix=".clients.csv",
    write=write,
    lines=a_line_a_report,
)
