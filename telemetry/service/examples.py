"""One example of each body, for the description of the interface. Made up."""

from __future__ import annotations

from typing import Any, Final

RUN_ID: Final = "20260102-030405-abcdef"

_FACTORS: Final[dict[str, Any]] = {
    "server_carbon_intensity_g_per_kwh": 174.0,
    "intensity_source": "codecarbon 3.3.2, country table",
    "intensity_year": 2024,
    "country": "ESP",
    "pue": 1.2,
    "server_scope": "machine",
    "server_sensor": "rapl",
}

RUN: Final[dict[str, Any]] = {
    "schema": 1,
    "run": {
        "run_id": RUN_ID,
        "run_name": "digits",
        "started_at": "2026-01-02T03:04:05Z",
        "rounds_planned": 5,
        "strategy": "FedAvg",
        "factors": _FACTORS,
        "metric_names": ["accuracy"],
    },
}

ROUNDS: Final[dict[str, Any]] = {
    "schema": 1,
    "rounds": [
        {
            "run_id": RUN_ID,
            "round": 1,
            "closed": True,
            "status": "completed",
            "started_at": "2026-01-02T03:05:05Z",
            "ended_at": "2026-01-02T03:06:05Z",
            "connected": 1,
            "factors": _FACTORS,
            "participants": [
                {
                    "node_id": "1",
                    "client": "c-6b86b273",
                    "train": True,
                    "outcome": "reported",
                    "examples": 10,
                }
            ],
            "reports": [
                {
                    "node_id": "1",
                    "client": "c-6b86b273",
                    "phase": "train",
                    "reported_round": 1,
                    "late": False,
                    "accepted": True,
                    "emissions_kg": 0.001,
                    "counted_emissions_kg": 0.001,
                }
            ],
            "laps": [{"phase": "wait", "wall_s": 60.0, "metered_s": 60.0, "energy_kwh": 0.001}],
            "train_metrics": {"accuracy": 0.87},
        }
    ],
}

FINISH: Final[dict[str, Any]] = {
    "schema": 1,
    "status": "completed",
    "ended_at": "2026-01-02T03:10:05Z",
    "reason": None,
    "late_reports": 0,
}
