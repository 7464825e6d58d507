"""Which of the received reports count, and as which row each is kept.

A report is identified by (client, phase, round it was for): the first accepted one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from telemetry.accounting.facts import ReceivedReport, Rules
from telemetry.domain import Phase, ReportRecord, field_names
from telemetry.domain.frozen import in_order
from telemetry.reports import RejectedReport, plausible

WINDOW_SLACK_S: Final = 5.0
"""A client's window may exceed the server's send-to-reply window by this much at each end."""

_row: Final = in_order(ReportRecord)
_COLUMNS: Final = field_names(ReportRecord)
_as_sent: Final = itemgetter(
    *_COLUMNS[_COLUMNS.index("emissions_kg") : _COLUMNS.index("dropped_fields")]
)
"""What a row takes over from the report as it was sent, in the row's order."""


class Accepted(NamedTuple):
    """A report that counts, with the window of its work, epoch seconds."""

    received: ReceivedReport
    raw: Mapping[str, Any]
    """Fields of its `ClientReport`, whose attribute look-ups take three times as long."""
    window: tuple[float, float]

    def counting(
        self, energy_kwh: float | None, emissions_kg: float, on_server_host: bool = False
    ) -> ReportRecord:
        """Its row, with what it counts for after the host rule."""
        received, raw, _ = self
        dropped = raw["dropped_fields"]
        return _row(
            received.node_id,
            received.client,
            received.phase,
            received.reported_round,
            received.late,
            True,  # accepted
            None,  # rejection
            None,  # rejected_value
            *_as_sent(raw),
            ",".join(dropped) if dropped else None,
            on_server_host,
            energy_kwh,
            emissions_kg,
        )


class Rejected(NamedTuple):
    """A report that does not count."""

    received: ReceivedReport
    report: RejectedReport

    @property
    def row(self) -> ReportRecord:
        """Its row: why it does not count, and the value as text."""
        received, rejected = self
        return ReportRecord(
            node_id=received.node_id,
            client=received.client,
            phase=received.phase,
            reported_round=received.reported_round,
            late=received.late,
            accepted=False,
            rejection=rejected.reason,
            rejected_value=rejected.value,
        )


Judged = Accepted | Rejected


def first_of_each(reports: Iterable[ReceivedReport], rules: Rules) -> tuple[list[Judged], int]:
    """One report per (client, phase, round it was for), judged; and how many were repeats.

    ``reports`` in order of arrival. The first accepted one counts; a rejected one stands only where
    none was accepted.
    """
    kept: dict[tuple[str, Phase, int], Judged] = {}
    repeated = 0
    for received in reports:
        key = (received.node_id, received.phase, received.reported_round)
        before = kept.get(key)
        if before is not None:
            repeated += 1
            if isinstance(before, Accepted):
                continue
        judged = _judge(received, rules)
        if before is None or isinstance(judged, Accepted):
            kept[key] = judged
    return list(kept.values()), repeated


def _judge(received: ReceivedReport, rules: Rules) -> Judged:
    if isinstance(received.report, RejectedReport):
        return Rejected(received, received.report)
    worked = window(received)
    judged = plausible(received.report, worked[1] - worked[0], rules.max_client_power_w)
    if isinstance(judged, RejectedReport):
        return Rejected(received, judged)
    return Accepted(received, judged.__dict__, worked)


def window(received: ReceivedReport) -> tuple[float, float]:
    """When the client worked, epoch seconds: its own word clipped to what the server saw.

    The server's send-to-reply window stands in where the client gave none, or where its own is
    reversed or empty after clipping.
    """
    sent_at, replied_at = received.sent_at, received.replied_at
    raw = received.report.__dict__  # see `telemetry.reports.plausible`
    started_at, ended_at = raw["started_at"], raw["ended_at"]
    if started_at is not None and ended_at is not None:
        start, end = started_at.timestamp(), ended_at.timestamp()
        if start < sent_at - WINDOW_SLACK_S:
            start = sent_at - WINDOW_SLACK_S
        if end > replied_at + WINDOW_SLACK_S:
            end = replied_at + WINDOW_SLACK_S
        if end > start:
            return start, end
    return sent_at, max(sent_at, replied_at)
