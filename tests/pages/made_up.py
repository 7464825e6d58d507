"""Runs of every kind for the tests of pages in a browser: made up, and always the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any, Final

from telemetry.domain import Lap, RunStatus
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import FACTORS, OWNER, START, make_lap, make_round, make_run
from tests.telemetry.pages import HOSTILE

LIVE: Final = "20260102-100000-live00"
WHOLE: Final = "20260102-090000-whole0"
FAILED: Final = "20260102-080000-failed"
UNTRACKED: Final = "20260102-070000-nothing"
NAMES: Final = "20260102-060000-hostile"
BEGUN: Final = "20260102-050000-begun0"
UNKNOWN: Final = "20260102-040000-unknown"
ALL: Final = (LIVE, WHOLE, FAILED, UNTRACKED, NAMES, BEGUN, UNKNOWN)
_PHASES: Final = {
    "configure": 0.00002,
    "wait": 0.0011,
    "aggregate": 0.0002,
    "evaluate": 0.0003,
    "idle": 0.00001,
}


def everything() -> InMemoryStore:
    """A store with a run of each kind."""
    store = InMemoryStore()
    sure = replace(
        FACTORS, server_sensor="rapl", network_kwh_per_gb=0.06, impute_missing=True, pue=1.3
    )
    begin(store, BEGUN, run_name="just begun")
    begin(store, UNKNOWN)
    for number in (1, 2):
        store.record_round(
            make_round(number, run_id=UNKNOWN, server_kwh=None, clients={"a": "missing"})
        )
    names: dict[str, Any] = {
        "run_name": HOSTILE,
        "strategy": "مرحبا " + "long-" * 40,
        "privacy": HOSTILE,
        "metric_names": (HOSTILE, "accuracy"),
        "value_metric": HOSTILE,
        "tracker": HOSTILE,
        "factors": replace(FACTORS, country=HOSTILE, intensity_source=HOSTILE),
    }
    begin(store, NAMES, **names)
    for number in (1, 2):
        metrics = {HOSTILE: 0.5 * number, "accuracy": 0.25 * number}
        store.record_round(
            make_round(
                number, run_id=NAMES, train_metrics=metrics, reason=HOSTILE, clients={"a": 0.1}
            )
        )
    end(store, NAMES, "interrupted", HOSTILE)
    begin(store, UNTRACKED, tracked=False)
    for number in range(4):
        metrics = {"accuracy": 0.25 * number} if number else {}
        store.record_round(
            make_round(number, run_id=UNTRACKED, tracked=False, laps=(), train_metrics=metrics)
        )
    end(store, UNTRACKED, "completed")
    begin(store, FAILED, rounds_planned=10)
    play(store, FAILED, range(4))
    end(store, FAILED, "failed", "three rounds in a row failed")
    begin(store, WHOLE, factors=sure, budget_kg=0.05)
    play(store, WHOLE, range(13), factors=sure)
    end(store, WHOLE, "completed")
    begin(store, LIVE, rounds_planned=20, budget_kg=0.03, on_budget="stop")
    play(store, LIVE, range(10))
    play(store, LIVE, range(10, 11), closed=False, status="running")
    return store


def begin(store: Store, run_id: str, **facts: Any) -> None:
    """A run that began when its id says, and goes on."""
    began = START.replace(hour=int(run_id[9:11]), minute=0, second=0)
    store.start_run(make_run(run_id, started_at=began, **facts), OWNER, began)


def end(store: Store, run_id: str, status: RunStatus, reason: str | None = None) -> None:
    """Its end, an hour later."""
    store.finish_run(run_id, status, store.run(run_id).info.started_at + timedelta(hours=1), reason)


def play(store: Store, run_id: str, numbers: range, **facts: Any) -> None:
    """Rounds of six clients, of whom some do not report as they should."""
    for number in numbers:
        chance = Random(number)
        metrics: dict[str, Any] = {}
        if number and facts.get("closed", True):
            accuracy = 1 - 0.6 * 0.9**number + 0.01 * chance.random()
            metrics = {
                "evaluate_metrics": {"accuracy": accuracy, "loss": 2.2 * (1 - accuracy)},
                "train_metrics": {"accuracy": accuracy + 0.01},
            }
        clients = {f"c{place}": _came_to(chance) for place in range(6 if number else 0)}
        laps = _laps(chance) if number else (make_lap(0.002, phase="setup"),)
        record = make_round(number, run_id=run_id, clients=clients, laps=laps, **(metrics | facts))
        assert store.record_round(record)


def _came_to(chance: Random) -> float | str:
    share = chance.random()
    if share < 0.8:
        return 0.0002 * (0.6 + chance.random())
    return "missing" if share < 0.9 else "negative" if share < 0.95 else "failed"


def _laps(chance: Random) -> tuple[Lap, ...]:
    return tuple(
        make_lap(kwh * (0.6 + chance.random()), phase=phase, wall_s=12.0, metered_s=12.0)
        for phase, kwh in _PHASES.items()
    )
