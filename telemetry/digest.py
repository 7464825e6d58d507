"""The seal of an ended run: a SHA-256 that changes with any of its figures, facts or evidence.

Of each closed round it covers every figure, and through `RoundSummary.evidence_sha256` the rows they
were made from. It proves that nothing was changed afterwards, not that what was measured is true.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from telemetry.domain import RoundSummary, RunInfo, RunStatus, field_names, sha256_of

SEAL_VERSION: Final = 1
"""Of what is sealed and how; part of it."""
SEAL_DIGITS: Final = 12
"""Of a seal's 64 digits, where it only is to be recognised."""


def run_sha256(
    info: RunInfo,
    status: RunStatus,
    reason: str | None,
    ended_at: datetime,
    rounds: Iterable[RoundSummary],
) -> str:
    """Seal of a run; ``rounds`` are its closed ones, by (round, attempt)."""
    return sha256_of(
        {
            "seal": SEAL_VERSION,
            "run": info,
            "status": status,
            "reason": reason,
            "ended_at": ended_at,
            "rounds": [_sealed(row) for row in rounds],
        }
    )


_FIGURES: Final = field_names(RoundSummary)


def _sealed(row: RoundSummary) -> dict[str, Any]:
    figures = {name: getattr(row, name) for name in _FIGURES}
    if row.sequence is None:  # as in the seals from before rounds said their place
        del figures["sequence"]
    return figures
