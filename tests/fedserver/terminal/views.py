"""Views for tests of what is drawn of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fedserver.terminal.view import ClientView, FootprintView, MetricView, View

TRAINING = ClientView(number=1, name="hospital-a", state="training", seconds=3.2)
DONE = ClientView(number=2, name="hospital-b", state="done", seconds=1.23)
FAILED = ClientView(number=3, name="hospital-c", state="failed", reason="no answer within 20 s")

FOOTPRINT = FootprintView(
    total_kg=0.00062,
    rounds_kg=(0.0001, 0.0002, None, 0.0003),
    note="modelled; no power sensor on the server",
    coverage=(2, 3),
    coverage_round=2,
    rejected=1,
    budget_kg=0.012,
    budget_used=0.34,
)
METRICS = (
    MetricView(name="accuracy", last=0.8712, best=0.8912, best_round=2, history=(0.6, 0.89, 0.87)),
    MetricView(name="loss", last=0.31, best=0.31, best_round=3, history=(0.6, 0.5, 0.31)),
)


def view(*clients: ClientView, **values: Any) -> View:
    """Round 3 of 5 with these clients (three if none are given)."""
    clients = clients or (TRAINING, DONE, FAILED)
    defaults: dict[str, Any] = {
        "run_id": "20260128-120000-abcdef",
        "run_name": "digits",
        "strategy": "FedAvg",
        "endpoint": "127.0.0.1:5000",
        "step": "training",
        "round": 3,
        "planned": 5,
        "failed_rounds": 0,
        "needed": 3,
        "connected": len(clients),
        "asked": len(clients),
        "answered": 2,
        "round_s": 4.2,
        "expected_s": 6.3,
        "run_s": 21.0,
        "left_s": 14.7,
        "states": Counter(client.state for client in clients),
        "clients": clients,
        "metrics": METRICS,
        "footprint": FOOTPRINT,
    }
    return View(**{**defaults, **values})


def fleet(count: int, failed: int = 0) -> list[ClientView]:
    """So many clients, the first of them failed, the others at work."""
    return [
        ClientView(
            number=n,
            name=f"client-{n:03}",
            state="failed" if n <= failed else "training",
            seconds=None if n <= failed else 1.0,
            reason="out of memory" if n <= failed else None,
        )
        for n in range(1, count + 1)
    ]
