"""Three made-up runs in one database: what docs/questions.md asks its questions of."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from telemetry.domain import Factors, Lap, ReportRecord, RoundRecord, emissions_kg
from telemetry.store import open_store
from telemetry.testing import (
    FACTORS,
    OWNER,
    START,
    make_lap,
    make_participant,
    make_report,
    make_round,
    make_run,
)

SPAIN = replace(FACTORS, intensity_source="codecarbon 3.3.2, country table")
SLOW, FAST, SILENT = "20260102-030405-aaaaaa", "20260103-030405-bbbbbb", "20260104-030405-cccccc"
IDS = (SLOW, FAST, SILENT)
ACCURACY = {
    SLOW: (0.62, 0.78, 0.85, 0.91),
    FAST: (0.60, 0.84, 0.84, 0.88),
    SILENT: (0.61, 0.75, 0.80, 0.84),
}
STRATEGY = {SLOW: "FedAvg", FAST: "FedAdam", SILENT: "FedAvg"}
NAME = {SLOW: "plain", FAST: "adaptive", SILENT: "half-silent"}
SERVER_KWH = {SLOW: 0.002, FAST: 0.0015, SILENT: 0.002}
"""On the server's meter in a round, a client on its machine included."""


def fill(url: str) -> None:
    """Write the runs into the database at ``url``."""
    store = open_store(url)
    try:
        for day, run_id in enumerate(IDS):
            start = START + timedelta(days=day)
            info = make_run(
                run_id, run_name=NAME[run_id], started_at=start, rounds_planned=4,
                strategy=STRATEGY[run_id], factors=SPAIN,
            )  # fmt: skip
            store.start_run(info, OWNER, start)
            for number in range(5):
                store.record_round(a_round(run_id, number))
            store.finish_run(run_id, "completed", start + timedelta(minutes=5))
            store.release(run_id, OWNER)
    finally:
        store.close()


def a_round(run_id: str, number: int) -> RoundRecord:
    """Round 0 is the set-up; of the others each has three clients."""
    day = timedelta(days=IDS.index(run_id))
    start = START + day + timedelta(minutes=number)
    times: dict[str, Any] = {"started_at": start, "ended_at": start + timedelta(minutes=1)}
    if number == 0:
        laps: tuple[Lap, ...] = (make_lap(0.0005, phase="setup"),)
        return make_round(0, run_id=run_id, factors=SPAIN, laps=laps, **times)
    nodes = ("beside", "france", "bare")
    came = {"bare": "missing"} if run_id == SILENT else {}
    sizes: dict[str, Any] = {"bytes_to": 4_000_000, "bytes_from": 4_000_000}
    return make_round(
        number,
        run_id=run_id,
        factors=SPAIN,
        server_kwh=SERVER_KWH[run_id],
        participants=tuple(
            replace(make_participant(node, came.get(node, 0.0)), examples=480, **sizes)
            for node in nodes
        ),
        reports=tuple(r for r in reports(SPAIN, number) if r.node_id not in came),
        connected=3,
        evaluate_metrics={"accuracy": ACCURACY[run_id][number - 1]},
        train_metrics={"loss": 1.0 - ACCURACY[run_id][number - 1]},
        **times,
    )


def reports(factors: Factors, number: int) -> tuple[ReportRecord, ...]:
    """One beside the server, one in France with its own intensity, one bare number."""
    beside_kwh, france_kwh = 0.0006, 0.0008
    return (
        make_report(
            "beside", 0.0, reported_round=number, host_id="0123456789ab", on_server_host=True,
            emissions_kg=beside_kwh * 0.174, energy_kwh=beside_kwh, counted_energy_kwh=beside_kwh,
            counted_emissions_kg=emissions_kg(beside_kwh, factors),
            country="ESP", carbon_intensity_g_per_kwh=174.0,
        ),
        make_report(
            "france", france_kwh * 0.056, reported_round=number, energy_kwh=france_kwh,
            counted_energy_kwh=france_kwh, country="FRA", carbon_intensity_g_per_kwh=56.0,
        ),
        make_report("bare", 0.00003, reported_round=number, host_id=None),
    )  # fmt: skip
