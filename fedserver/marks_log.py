"""Says, once a client, whose reports look like a running total: its figures are not what it thinks."""

from __future__ import annotations

import logging
from typing import Final

from telemetry.domain import RoundRecord

logger = logging.getLogger(__name__)

MOST_CLIENTS: Final = 1_000
"""So many are remembered, and told of."""


class MarksLog:
    """Hears of closed rounds; logs the first time that a client's reports look cumulative."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def closed(self, record: RoundRecord) -> None:
        """The round is over; in whatever thread."""
        rising = {report.client for report in record.accepted if report.looks_cumulative}
        for client in sorted(rising - self._told)[: MOST_CLIENTS - len(self._told)]:
            self._told.add(client)
            logger.warning(
                "client %s: its emissions look cumulative (they never fell in five rounds, as a "
                "running total does); they count as reported. One tracker for each round would "
                "report the round alone",
                client,
            )
