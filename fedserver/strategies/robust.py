"""Krum, MultiKrum and Bulyan that refuse a round with fewer updates than they can stand.

Flower's Krum goes on with any number and its Bulyan returns nothing without a reason. A round that
started with enough clients can end with too few: then there is no new model, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Bulyan, FedAvg, Krum, MultiKrum


class TooFewUpdates(ValueError):
    """A round has fewer usable updates than the strategy's theory asks for."""


class _FromFleet(FedAvg):
    """Aggregates from ``smallest_fleet`` usable updates on; before one of Flower's in the bases."""

    num_malicious_nodes: int

    def __init__(self, *, smallest_fleet: int, **options: Any) -> None:
        super().__init__(**options)
        self.smallest_fleet = smallest_fleet

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Flower's; raises `TooFewUpdates`."""
        kept = list(replies)
        usable = sum(reply.has_content() for reply in kept)
        if 0 < usable < self.smallest_fleet:
            raise TooFewUpdates(
                f"{self.smallest_fleet} updates are needed where {self.num_malicious_nodes} clients "
                "may be malicious"
            )
        return super().aggregate_train(server_round, kept)


class SafeKrum(_FromFleet, Krum):
    """Flower's Krum, where it holds."""


class SafeMultiKrum(_FromFleet, MultiKrum):
    """Flower's MultiKrum, where it holds."""


class SafeBulyan(_FromFleet, Bulyan):
    """Flower's Bulyan, where it holds."""
