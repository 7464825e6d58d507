"""``csv``: one row a closed round and attempt.

Unknown is an empty cell, never 0. Energies are kWh at the meter, before PUE; emissions are kg CO2eq
and include PUE. Columns may be added at the end, never moved. Training metrics follow the fixed
columns, and ``run_sha256``, the seal of a run that has ended, comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, TextIO

from telemetry.domain import RoundSummary, RunInfo, StoredRun, utc_text
from telemetry.exporters.base import Format, Notes, a_line_a_round
from telemetry.exporters.cells import Cell, flag, neutral, write_table
from telemetry.store.base import Store

RUN_COLUMNS: Final[dict[str, Callable[[RunInfo], Cell]]] = {
    "run_id": lambda run: run.run_id,
    "run_name": lambda run: neutral(run.run_name),
}

ROUND_COLUMNS: Final[dict[str, Callable[[RoundSummary], Cell]]] = {
    "round": lambda row: row.round,
    "attempt": lambda row: row.attempt,
    "status": lambda row: row.status,
    "started_at": lambda row: utc_text(row.started_at),
    "ended_at": lambda row: utc_text(row.ended_at),
    "duration_s": lambda row: row.duration_s,
    "participants": lambda row: row.participants,
    "reported": lambda row: row.reported,
    "missing": lambda row: row.missing,
    "rejected": lambda row: row.rejected,
    "failed": lambda row: row.failed,
    "coverage": lambda row: row.coverage,
    "complete": lambda row: flag(row.complete),
    "evaluate_reported": lambda row: row.evaluate_reported,
    "reports_without_host": lambda row: row.reports_without_host,
    "server_energy_kwh": lambda row: row.server_energy_kwh,
    "clients_energy_kwh": lambda row: row.clients_energy_kwh,
    "clients_energy_reports": lambda row: row.clients_energy_reports,
    "server_emissions_kg": lambda row: row.server_emissions_kg,
    "clients_emissions_kg": lambda row: row.clients_emissions_kg,
    "total_emissions_kg": lambda row: row.total_emissions_kg,
    "cumulative_emissions_kg": lambda row: row.cumulative_emissions_kg,
    "clients_reported_emissions_kg": lambda row: row.clients_reported_emissions_kg,
    # Nothing was metered in an untracked run: what the figures would rest on says nothing there.
    "server_sensor": lambda row: row.factors.server_sensor if row.tracked else None,
    "server_carbon_intensity_g_per_kwh": lambda row: (
        row.factors.server_carbon_intensity_g_per_kwh if row.tracked else None
    ),
    "pue": lambda row: row.factors.pue if row.tracked else None,
    "bytes_to_clients": lambda row: row.bytes_to_clients,
    "bytes_from_clients": lambda row: row.bytes_from_clients,
    "communication_emissions_kg_estimated": lambda row: row.communication_emissions_kg_estimated,
    "imputed_emissions_kg": lambda row: row.imputed_emissions_kg,
    "estimated_total_emissions_kg": lambda row: row.estimated_total_emissions_kg,
    "privacy_epsilon": lambda row: row.privacy_epsilon,
}

COLUMNS: Final = (*RUN_COLUMNS, *ROUND_COLUMNS)
"""The fixed columns in their order; the training metrics follow them, and `SEAL_COLUMN`."""
SEAL_COLUMN: Final = "run_sha256"


def write(store: Store, run_id: str, out: TextIO) -> Notes:
    """Write a run's closed rounds as CSV."""
    run = store.run(run_id)
    train, evaluate, rounds = _metric_names(store, run_id)
    header = [
        *COLUMNS,
        *(f"train_{name}" for name in train),
        *(f"evaluate_{name}" for name in evaluate),
        SEAL_COLUMN,
    ]
    write_table(out, header, _rows(run, islice(store.rounds(run_id), rounds), train, evaluate))
    return []


def _metric_names(store: Store, run_id: str) -> tuple[list[str], list[str], int]:
    """Names of training metrics, of evaluation metrics, and how many rounds were looked at.

    The header comes before the rows, so the rounds are read twice; a round that closes meanwhile
    is left for the next export, since its metrics may have no column.
    """
    train: set[str] = set()
    evaluate: set[str] = set()
    rounds = 0
    for row in store.rounds(run_id):
        train.update(row.train_metrics)
        evaluate.update(row.evaluate_metrics)
        rounds += 1
    return sorted(train), sorted(evaluate), rounds


def _rows(
    run: StoredRun, rounds: Iterator[RoundSummary], train: list[str], evaluate: list[str]
) -> Iterator[list[Cell]]:
    of_run = [cell(run.info) for cell in RUN_COLUMNS.values()]
    for row in rounds:
        cells = [*of_run, *(cell(row) for cell in ROUND_COLUMNS.values())]
        cells += [row.train_metrics.get(name) for name in train]
        cells += [row.evaluate_metrics.get(name) for name in evaluate]
        yield [*cells, run.sha256]


FORMAT: Final = Format(
    name="csv", media_type="text/csv", suffix=".csv", write=write, lines=a_line_a_round
)
