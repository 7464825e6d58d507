"""``codecarbon-csv``: a run as codecarbon's own ``emissions.csv``, for tools that read that file.

The 38 columns of codecarbon 3.3 (``codecarbon.output_methods.emissions_data.EmissionsData``) in its
order. Its readers add rows up, so each row is the amount of one round, set-up included, with server
and clients together. A round whose total is unknown is left out and counted in the notes: an empty
``emissions`` would be read as 0. What we do not know (processor, place, water, the shares of CPU,
GPU and memory after the host rule) is empty. ``energy_consumed`` is at the meter; ``emissions``
include PUE.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, TextIO

from telemetry.domain import RoundSummary, RunInfo, sum_known
from telemetry.exporters.base import Format, Notes, a_line_a_round
from telemetry.exporters.cells import Cell, neutral, write_table
from telemetry.store.base import Store

COLUMNS: Final = (
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_power",
    "gpu_power",
    "ram_power",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "water_consumed",
    "country_name",
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "longitude",
    "latitude",
    "ram_total_size",
    "tracking_mode",
    "cpu_utilization_percent",
    "gpu_utilization_percent",
    "ram_utilization_percent",
    "ram_used_gb",
    "on_cloud",
    "pue",
    "wue",
)


def write(store: Store, run_id: str, out: TextIO) -> Notes:
    """Write a run's closed rounds in codecarbon's columns; the notes count what was left out."""
    run = store.run(run_id).info
    left_out = [0]
    write_table(out, COLUMNS, _rows(run, store.rounds(run_id), left_out))
    return _notes(left_out[0])


def _rows(
    run: RunInfo, rounds: Iterator[RoundSummary], left_out: list[int]
) -> Iterator[list[Cell]]:
    for row in rounds:
        if row.total_emissions_kg is None:
            left_out[0] += 1
        else:
            known = _known_cells(run, row, row.total_emissions_kg)
            yield [known.get(name) for name in COLUMNS]


def _known_cells(run: RunInfo, row: RoundSummary, emissions_kg: float) -> dict[str, Cell]:
    return {
        "timestamp": _naive_utc(row.ended_at),
        "project_name": neutral(run.run_name),
        "run_id": run.run_id,
        "experiment_id": neutral(run.strategy),
        "duration": row.duration_s,
        "emissions": emissions_kg,
        "emissions_rate": emissions_kg / row.duration_s if row.duration_s > 0 else None,
        "energy_consumed": sum_known((row.server_energy_kwh, row.clients_energy_kwh)),
        "country_iso_code": neutral(row.factors.country),
        "os": neutral(run.software.get("os")),
        "python_version": neutral(run.software.get("python")),
        "codecarbon_version": neutral(_codecarbon_version(run)),
        "tracking_mode": row.factors.server_scope,
        "pue": row.factors.pue,
    }


def _codecarbon_version(run: RunInfo) -> str | None:
    name, _, version = (run.tracker or "").partition(" ")
    return version if name == "codecarbon" and version else run.software.get("codecarbon")


def _naive_utc(moment: datetime) -> str:
    """Codecarbon's own spelling: seconds, no zone. Ours is UTC, not local time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _notes(left_out: int) -> Notes:
    if not left_out:
        return []
    return [f"{left_out} round{'s' if left_out > 1 else ''} left out: total emissions not known"]


FORMAT: Final = Format(
    name="codecarbon-csv",
    media_type="text/csv",
    suffix=".codecarbon.csv",
    write=write,
    lines=a_line_a_round,
)
