"""Runs in every state that a report can be asked of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from math import exp
from types import MappingProxyType
from typing import Any, Final

from telemetry.domain import (
    Lap,
    ParticipantRecord,
    ReportRecord,
    RoundRecord,
    RunStatus,
    ServerPhase,
)
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import (
    FACTORS,
    OWNER,
    ROUND_S,
    RUN_ID,
    START,
    make_lap,
    make_participant,
    make_report,
    make_round,
    make_run,
)

HOSTILE: Final = (
    "</style></title><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>"
    "\"' onload='alert(3) {\\end &amp;\u202e\x07]]>--><!--"
)
ESTIMATING: Final = replace(FACTORS, pue=1.3, network_kwh_per_gb=0.05, impute_missing=True)
SOFTWARE: Final = {
    "fedserver-telemetry": "1.2.3", "codecarbon": "3.3.2", "flwr": "1.41.0", "python": "3.11.9"
}  # fmt: skip
_SHARES: Final[Mapping[ServerPhase, float]] = {
    "configure": 0.02, "wait": 0.7, "aggregate": 0.16, "evaluate": 0.1, "idle": 0.02
}  # fmt: skip


def a_store(
    rounds: Iterable[RoundRecord], end: RunStatus | None = "completed", **facts: Any
) -> InMemoryStore:
    """A store with that run; it goes on where ``end`` is None."""
    store = InMemoryStore()
    told = {"software": SOFTWARE, "tracker": "codecarbon 3.3.2", "factors": ESTIMATING}
    store.start_run(make_run(**{**told, **facts}), OWNER, START)
    last = START
    for record in rounds:
        store.record_round(record)
        last = max(last, record.ended_at)
    if end is not None:
        reason = None if end == "completed" else "as it was told"
        store.finish_run(RUN_ID, end, last, reason)
    return store


def busy_round(number: int, **facts: Any) -> RoundRecord:
    """A round with every outcome, marks, late and co-located reports, all phases, metrics."""
    if number == 0:
        lap = make_lap(0.0123456789, phase="setup")
        return make_round(0, **{"laps": (lap,), "factors": ESTIMATING, **facts})
    kwh = 0.004 * (1 + 0.3 * (number % 3))
    laps: tuple[Lap, ...] = tuple(
        make_lap(kwh * part, phase=phase, wall_s=ROUND_S * part, metered_s=ROUND_S * part)
        for phase, part in _SHARES.items()
    )
    participants: list[ParticipantRecord] = []
    reports: list[ReportRecord] = []
    came: dict[str, float | str] = {
        "a": 0.0011 + 0.0001 * (number % 4), "b": 0.00234567890123, "c": 0.0017, "d": "missing",
        "e": "failed", "f": "negative" if number % 2 else "implausible",
    }  # fmt: skip
    for node, what in came.items():
        part = make_participant(node, what)
        participants.append(replace(part, bytes_to=40_000_000, bytes_from=39_999_123))
        if what in ("missing", "failed"):
            continue
        told: dict[str, Any] = {"reported_round": number}
        if not isinstance(what, str):
            told |= {"sensor": "rapl", "tracker": "codecarbon 3.3.2", "country": "FRA",
                     "carbon_intensity_g_per_kwh": 56.0, "energy_kwh": what / 0.056,
                     "counted_energy_kwh": what / 0.056}  # fmt: skip
        if node == "c":
            told |= {"counted_emissions_kg": 0.00085, "outlier": number % 3 == 0}
        if node == "b":
            told |= {"looks_cumulative": number % 4 == 0}
        reports.append(make_report(node, what, **told))
    accuracy = 0.97 - 0.6 * exp(-number / 6)
    defaults: dict[str, Any] = {
        "laps": laps, "participants": tuple(participants), "reports": tuple(reports),
        "factors": ESTIMATING, "connected": 6,
        "evaluate_metrics": {"accuracy": accuracy, "loss": 2.1 * exp(-number / 8)},
    }  # fmt: skip
    return make_round(number, **{**defaults, **facts})


def busy(rounds: int = 8, end: RunStatus | None = "completed", **facts: Any) -> InMemoryStore:
    """A run of such rounds."""
    told = {"rounds_planned": rounds, "metric_names": ("accuracy", "loss"), "budget_kg": 0.2}
    return a_store((busy_round(n) for n in range(rounds + 1)), end, **{**told, **facts})


def _resumed() -> Store:
    cut = busy_round(3, status="interrupted", reason="the server was ended")
    again = [busy_round(n, attempt=2 if n == 3 else 1) for n in range(3, 6)]
    return a_store([*(busy_round(n) for n in range(3)), cut, *again], metric_names=("accuracy",))


def _pruned() -> Store:
    store = busy()
    store.prune(START + timedelta(days=2), START + timedelta(days=30))
    return store


def _hostile() -> Store:
    """Every text that a client or a writer may choose."""
    part = replace(make_participant("a", "failed"), client=HOSTILE[:60], reason=HOSTILE)
    good = make_report("b", 0.5, client=HOSTILE[:60], tracker=HOSTILE[:60], country=HOSTILE[:60],
                       outlier=True, looks_cumulative=True)  # fmt: skip
    bad = make_report("c", "negative", client=HOSTILE[:60], rejected_value=HOSTILE[:64])
    record = make_round(
        1, clients={"b": 0.5, "c": "negative"}, reports=(good, bad), reason=HOSTILE,
        train_metrics={HOSTILE: 1.0}, evaluate_metrics={HOSTILE: 1.0},
    )  # fmt: skip
    record = record.model_copy(update={"participants": (*record.participants, part)})
    facts = {
        "run_name": HOSTILE, "strategy": HOSTILE, "privacy": HOSTILE, "tracker": HOSTILE,
        "metric_names": (HOSTILE,), "value_metric": HOSTILE, "software": {HOSTILE: HOSTILE},
        "factors": replace(FACTORS, intensity_source=HOSTILE),
    }  # fmt: skip
    store = a_store([record], None, **facts)
    store.finish_run(RUN_ID, "failed", START, HOSTILE)
    return store


RUNS: Final[Mapping[str, Callable[[], Store]]] = MappingProxyType(
    {
        "completed": busy,
        "going on": lambda: busy(end=None),
        "failed": lambda: busy(end="failed"),
        "interrupted": lambda: busy(end="interrupted"),
        "stopped on budget": lambda: busy(
            end="stopped_on_budget", budget_kg=0.05, on_budget="stop"
        ),
        "untracked": lambda: a_store(
            [make_round(n, tracked=False, laps=(), evaluate_metrics={"accuracy": 0.5 + n / 10})
             for n in range(3)],
            tracked=False, tracker=None,
        ),
        "no clients": lambda: a_store([make_round(n) for n in range(3)]),
        "not metered": lambda: a_store([make_round(1, server_kwh=None, clients={"a": 0.5})]),
        "nothing known": lambda: a_store(
            [make_round(1, server_kwh=None, clients={"a": "missing"})]
        ),
        "no rows of clients": lambda: a_store(
            [busy_round(n, client_rows=False) for n in range(4)], client_rows=False
        ),
        "resumed": _resumed,
        "pruned": _pruned,
        "no round": lambda: a_store([], "failed"),
        "just begun": lambda: a_store([], None),
        "many rounds": lambda: busy(500),
        "hostile": _hostile,
    }
)  # fmt: skip
