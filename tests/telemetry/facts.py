"""Builders of what happened in a round, for the tests of accounting."""

from __future__ import annotations

from typing import Any

from telemetry.accounting import ParticipantFacts, ReceivedReport, RoundFacts, Rules, account
from telemetry.domain import Factors, Lap, RoundRecord
from telemetry.reports import read_report

T0 = 1_767_323_045.0
SERVER_HOST = "5e5e5e5e5e5e"
FACTORS = Factors(
    server_carbon_intensity_g_per_kwh=200.0,
    intensity_source="test",
    pue=1.5,
    server_scope="machine",
    server_sensor="constant",
)


def node(name: str, **facts: Any) -> ParticipantFacts:
    """A client that was sent a train message and answered."""
    defaults: dict[str, Any] = {
        "client": f"c-{name}", "train": True, "sent_at": T0, "replied_at": T0 + 60, "loopback": False
    }  # fmt: skip
    return ParticipantFacts(node_id=name, **{**defaults, **facts})


def report(name: str, emissions_kg: Any, /, **values: Any) -> ReceivedReport:
    """A report of ``name``; phase, lateness and the server's window may be given too."""
    own = {k: values.pop(k) for k in list(values) if k in ReceivedReport.__dataclass_fields__}
    wire = {"emissions_kg": emissions_kg, **values}
    defaults: dict[str, Any] = {
        "client": f"c-{name}", "phase": "train", "reported_round": 1, "late": False,
        "sent_at": T0, "replied_at": T0 + 60, "loopback": False,
    }  # fmt: skip
    return ReceivedReport(node_id=name, report=read_report(wire), **{**defaults, **own})


def window(start: float, end: float) -> dict[str, float]:
    """A client's own window, in seconds after the round's start."""
    return {"started_at": T0 + start, "ended_at": T0 + end}


def round_of(
    *reports: ReceivedReport,
    nodes: tuple[ParticipantFacts, ...] | None = None,
    server_kwh: float | None = 0.01,
    **facts: Any,
) -> RoundRecord:
    """One closed round of a minute with the server's meter at ``server_kwh``."""
    if nodes is None:
        nodes = tuple(node(name) for name in sorted({r.node_id for r in reports}))
    lap = Lap(phase="wait", wall_s=60.0, metered_s=0.0 if server_kwh is None else 60.0,
              energy_kwh=server_kwh)  # fmt: skip
    defaults: dict[str, Any] = {
        "run_id": "20260102-030405-abcdef", "round": 1, "attempt": 1, "revision": 1,
        "closed": True, "tracked": True, "status": "completed", "reason": None,
        "started_at": T0, "ended_at": T0 + 60, "connected": len(nodes), "factors": FACTORS,
        "server_host_id": SERVER_HOST, "rules": Rules(), "participants": nodes,
        "reports": reports, "laps": (lap,),
    }  # fmt: skip
    return account(RoundFacts(**{**defaults, **facts}))
