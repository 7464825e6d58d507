"""Builders for readable tests: a run, a round and a clock with every unimportant fact filled in.

Part of the package, for the tests of whoever builds on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, get_args

from telemetry.domain import (
    Factors,
    Lap,
    Owner,
    ParticipantRecord,
    RejectionReason,
    ReportRecord,
    RoundRecord,
    RunInfo,
)

RUN_ID: Final = "20260102-030405-abcdef"
START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROUND_S: Final = 60.0
"""Every made-up round lasts a minute; round n begins n minutes after `START`."""
OWNER: Final = Owner(host="test-host", pid=1, token="1.made-up")  # noqa: S106  # not a secret
FACTORS: Final = Factors(
    server_carbon_intensity_g_per_kwh=174.0,
    intensity_source="made up",
    intensity_year=2024,
    country="ESP",
    pue=1.0,
    server_scope="machine",
    server_sensor="constant",
)

_REJECTIONS: Final[tuple[str, ...]] = get_args(RejectionReason)


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """The time, aware and in UTC."""
        return self._now

    def time(self) -> float:
        """The time in seconds since 1970, as ``time.time()`` gives it."""
        return self._now.timestamp()

    def advance(self, seconds: float) -> datetime:
        """Move on (or back, with a negative number) and return the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now


def make_run(run_id: str = RUN_ID, **facts: Any) -> RunInfo:
    """A run that began at `START`; ``facts`` replace fields of `RunInfo`."""
    defaults: dict[str, Any] = {
        "run_name": "digits",
        "started_at": START,
        "rounds_planned": 5,
        "strategy": "FedAvg",
        "factors": FACTORS,
        "server_host_id": "0123456789ab",
        "tracker": "made up",
        "metric_names": ("accuracy",),
        "software": {"fedserver-telemetry": "0"},
    }
    return RunInfo(run_id=run_id, **{**defaults, **facts})


def make_round(
    number: int = 1,
    *,
    server_kwh: float | None = 0.001,
    clients: Mapping[str, float | str] | None = None,
    **facts: Any,
) -> RoundRecord:
    """A round of a minute, closed unless ``closed=False``; ``facts`` replace fields.

    ``clients`` says by node id what each client came to: its emissions in kg CO2eq (``reported``,
    on a host of its own), ``"missing"``, ``"failed"``, or why its report was rejected, for example
    ``make_round(1, server_kwh=0.002, clients={"a": 0.001, "b": "missing", "c": "negative"})``.
    ``server_kwh`` None is a round in which the server's meter did not work.
    """
    came_to = {} if clients is None else clients
    started_at = START + timedelta(seconds=ROUND_S * number)
    defaults: dict[str, Any] = {
        "run_id": RUN_ID,
        "round": number,
        "closed": True,
        "status": "completed" if facts.get("closed", True) else "running",
        "started_at": started_at,
        "ended_at": started_at + timedelta(seconds=ROUND_S),
        "connected": len(came_to),
        "factors": FACTORS,
        "participants": tuple(make_participant(node, what) for node, what in came_to.items()),
        "reports": tuple(
            make_report(node, what, reported_round=number)
            for node, what in came_to.items()
            if what not in ("missing", "failed")
        ),
        "laps": (make_lap(server_kwh),),
    }
    return RoundRecord(**{**defaults, **facts})


def make_participant(node_id: str, came_to: float | str = 0.001) -> ParticipantRecord:
    """A client's part, by what it came to (see `make_round`)."""
    rejected = came_to in _REJECTIONS
    outcome: Any = "reported" if isinstance(came_to, int | float) else came_to
    return ParticipantRecord(
        node_id=node_id,
        client=pseudonym_of(node_id),
        train=True,
        outcome="rejected" if rejected else outcome,
        reason="made to fail" if came_to == "failed" else None,
        examples=10,
    )


def make_report(node_id: str, came_to: float | str = 0.001, **facts: Any) -> ReportRecord:
    """A report on training with that many kg CO2eq, or one rejected for that reason."""
    accepted = isinstance(came_to, int | float)
    defaults: dict[str, Any] = {
        "node_id": node_id,
        "client": pseudonym_of(node_id),
        "phase": "train",
        "reported_round": 1,
        "late": False,
        "accepted": accepted,
        "rejection": None if accepted else came_to,
        "rejected_value": None if accepted else "made up",
        "emissions_kg": float(came_to) if accepted else None,
        "host_id": f"host-of-{node_id}" if accepted else None,
        "counted_emissions_kg": float(came_to) if accepted else None,
    }
    return ReportRecord(**{**defaults, **facts})


def make_lap(energy_kwh: float | None = 0.001, **facts: Any) -> Lap:
    """A minute of waiting for clients; None energy is a meter that did not work."""
    known = energy_kwh is not None
    defaults: dict[str, Any] = {
        "phase": "wait",
        "wall_s": ROUND_S,
        "metered_s": ROUND_S if known else 0.0,
        "energy_kwh": energy_kwh,
        "reason": None if known else "made to fail",
    }
    return Lap(**{**defaults, **facts})


def pseudonym_of(node_id: str) -> str:
    """A stable made-up pseudonym of the right shape (a real one needs the store's secret)."""
    return f"c-{sha256(node_id.encode()).hexdigest()[:8]}"
