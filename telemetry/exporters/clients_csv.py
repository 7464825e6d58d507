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

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TextIO

from telemetry.domain import ReportOutcome, ReportRecord, RoundSummary, RunInfo
from telemetry.exporters.base import Format, Notes, a_line_a_report
from telemetry.exporters.cells import Cell, flag, iso_utc, neutral, write_table
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

REPORT_COLUMNS: Final[dict[str, Callable[[ReportRecord], Cell]]] = {
    "reported_round": lambda report: report.reported_round,
    "client": lambda report: neutral(report.client),
    "phase": lambda report: report.phase,
    "outcome": outcome,
    "rejection": lambda report: report.rejection,
    "rejected_value": lambda report: neutral(report.rejected_value),
    "reported_emissions_kg": lambda report: report.emissions_kg,
    "reported_energy_kwh": lambda report: report.energy_kwh,
    "cpu_kwh": lambda report: report.cpu_kwh,
    "gpu_kwh": lambda report: report.gpu_kwh,
    "ram_kwh": lambda report: report.ram_kwh,
    "counted_emissions_kg": lambda report: report.counted_emissions_kg,
    "counted_energy_kwh": lambda report: report.counted_energy_kwh,
    "on_server_host": lambda report: flag(report.on_server_host),
    "duration_s": lambda report: report.duration_s,
    "started_at": lambda report: iso_utc(report.started_at),
    "ended_at": lambda report: iso_utc(report.ended_at),
    "country": lambda report: neutral(report.country),
    "carbon_intensity_g_per_kwh": lambda report: report.carbon_intensity_g_per_kwh,
    "sensor": lambda report: report.sensor,
    "scope": lambda report: neutral(report.scope),
    "tracker": lambda report: neutral(report.tracker),
    "schema_version": lambda report: report.schema_version,
    "dropped_fields": lambda report: neutral(report.dropped_fields),
    "flags": lambda report: ",".join(report.flags) or None,
}

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


def _rows(run: RunInfo, reports: Iterator[Row]) -> Iterator[list[Cell]]:
    of_run = [cell(run) for cell in RUN_COLUMNS.values()]
    of_report = tuple(REPORT_COLUMNS.values())
    for round_number, attempt, report in reports:
        yield [*of_run, round_number, attempt, *(cell(report) for cell in of_report)]


FORMAT: Final = Format(
    name="clients-csv",
    media_type="text/csv",
    suffix=".clients.csv",
    write=write,
    lines=a_line_a_report,
)
