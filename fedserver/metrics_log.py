"""Says, once a round, which metrics not all clients sent: a mean over some is not one over all."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

from fedserver.guard import Heard
from telemetry.domain import RoundRecord

logger = logging.getLogger(__name__)

LOSS: Final = "loss"


class MetricsLog:
    """Hears of both phases of a round, and logs one line when the round closes.

    Only the configured metrics and ``loss`` are told of. What all clients sent is not, and neither is
    a metric that clients send in the other phase only.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        self._open: dict[int, list[Heard]] = {}

    def heard(self, heard: Heard) -> None:
        """A phase of a round has its replies."""
        self._open.setdefault(heard.server_round, []).append(heard)

    def closed(self, record: RoundRecord) -> None:
        """The round is over; in whatever thread."""
        heard = [phase for phase in self._open.pop(record.round, []) if phase.usable]
        if gaps := [*self._partly(heard), *self._nowhere(heard)]:
            logger.info("round %d: %s", record.round, ", ".join(gaps))

    def _partly(self, phases: Iterable[Heard]) -> Iterator[str]:
        for heard in phases:
            for name in dict.fromkeys((*self._names, LOSS)):
                sent = heard.senders.get(name, 0)
                if 0 < sent < heard.usable:
                    yield f"{name} from {sent} of {heard.usable} clients ({heard.phase})"

    def _nowhere(self, phases: list[Heard]) -> Iterator[str]:
        for name in self._names if phases else ():
            if not any(name in heard.senders for heard in phases):
                yield f"{name} from 0 of {max(heard.usable for heard in phases)} clients"
