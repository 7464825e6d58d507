"""What of its machine a server used, over rounds."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum

from telemetry.domain import RoundSummary


def machine_share(rounds: Iterable[RoundSummary]) -> float | None:
    """The server's energy ÷ its machine's (0 to 1), of the rounds where both are known; else None."""
    known = [
        (row.host_energy_kwh, row.host_energy_kwh / row.factors.server_share)
        for row in rounds
        if row.host_energy_kwh is not None and row.factors.server_share
    ]
    machine_kwh = fsum(machine for _, machine in known)
    return fsum(own for own, _ in known) / machine_kwh if machine_kwh > 0 else None
