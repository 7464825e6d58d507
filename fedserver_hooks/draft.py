"""What happens in a round, as it happens, and how it becomes facts.

The training's threads only append events to a `Draft` (an append to a list, whatever the number of
clients). The writer's thread folds them with a `FactBuilder`: there a client's values are judged
and clients get their names.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fedserver_hooks.events import (
    Failed,
    LateReport,
    Node,
    Overdue,
    Replied,
    ReplyArrived,
    RoundEvent,
    Sent,
)
from fedserver_hooks.labels import Labels
from fedserver_hooks.phases import RoundKey
from telemetry.accounting import ParticipantFacts, ReceivedReport
from telemetry.domain import NoiseRecord, Phase, RoundStatus
from telemetry.reports import ClientReport, RejectedReport, read_report

EXAMPLES_KEY: Final = "num-examples"


@dataclass(slots=True)
class Draft:
    """One round while it lasts. Appended to by the training, read by the writer."""

    key: RoundKey
    sequence: int
    """`RoundRecord.sequence`"""
    started_at: float
    ended_at: float | None = None
    events: list[RoundEvent] = field(default_factory=list)
    train_metrics: Mapping[str, Any] | None = None
    """As the strategy returned them; the writer picks the numbers out."""
    evaluate_metrics: Mapping[str, Any] | None = None
    aggregated: bool = False
    failure: str | None = None
    interrupted: bool = False
    privacy_epsilon: float | None = None
    noise: NoiseRecord | None = None
    connected: int | None = None
    revision: int = 0


class Names:
    """Who a node is: connection facts, and the pseudonym under which it is shown.

    A node is what is accounted for; a name only labels it. A second live node of one name becomes
    ``name#2``: two live nodes are never shown as one client. A settled name (of a token) is not for
    the client to change.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._labels = Labels()  # of live nodes only: whoever is gone keeps its name in the log
        self._loopback: dict[str, bool] = {}
        self._settled: set[str] = set()

    def seen(self, node: Node, name: str | None, loopback: bool | None) -> None:
        """A node connected; ``name`` is what its transport calls it."""
        with self._lock:
            if loopback is not None:
                self._loopback[str(node)] = loopback
            self._take(str(node), name)

    def gone(self, node: Node) -> None:
        """A node disconnected: its name is free."""
        with self._lock:
            self._labels.release(str(node))

    def claim(self, node: Node, name: str) -> None:
        """A client says what it is called."""
        with self._lock:  # it is alive: over a grid of somebody else's nobody says that it is
            self._take(str(node), None if str(node) in self._settled else name)

    def settle(self, node: Node) -> None:
        """What a node is called now is certain: what it claims to be called is passed over."""
        with self._lock:
            self._settled.add(str(node))

    def _take(self, node: str, name: str | None) -> None:
        """``name``, else what it was called before, for a node that is alive."""
        wanted = self._names.get(node) if name is None else name
        if wanted is not None:
            self._names[node] = self._labels.take(node, wanted)

    def name(self, node: Node) -> str:
        """What to call a node in this server's own log."""
        with self._lock:
            return self._names.get(str(node), f"node {node}")

    def loopback(self, node: Node) -> bool | None:
        """Whether its connection comes from this very machine; None where nobody saw it."""
        with self._lock:
            return self._loopback.get(str(node))

    def pseudonym(self, node: Node) -> str:
        """``c-`` and 8 hex digits of HMAC-SHA256 of the name under the store's secret (RFC 2104)."""
        digest = hmac.new(self._secret, self.name(node).encode(), hashlib.sha256)
        return f"c-{digest.hexdigest()[:8]}"


@dataclass(slots=True)
class _Participant:
    """A node's part in the round, as far as the events tell."""

    train: bool = False
    failed: str | None = None
    examples: int | None = None
    sent: dict[Phase, float] = field(default_factory=dict)
    replied: dict[Phase, float] = field(default_factory=dict)
    bytes_to: int | None = None
    bytes_from: int | None = None


@dataclass(frozen=True, slots=True)
class _Arrived:
    node: str
    phase: Phase
    reported_round: int
    late: bool
    report: ClientReport | RejectedReport
    sent_at: float | None
    at: float


class FactBuilder:
    """Folds a draft's events into participants and judged reports; each event once."""

    def __init__(self, draft: Draft, names: Names, *, tracked: bool) -> None:
        self.draft = draft
        self._names = names
        self._tracked = tracked
        self._folded = 0
        self._participants: dict[str, _Participant] = {}
        self._arrived: list[_Arrived] = []

    def fold(self) -> None:
        """Take in what has happened since the last call; goes on after an event that raised."""
        events = self.draft.events
        until = len(events)  # the training may append while this runs
        for event in events[self._folded : until]:
            self._folded += 1  # before: one that cannot be taken in is not tried again
            self._take_in(event)

    def _take_in(self, event: RoundEvent) -> None:
        match event:
            case Sent():
                for node in event.nodes:
                    part = self._part(node)
                    part.train |= event.phase == "train"
                    part.sent[event.phase] = event.at
                    if event.size_bytes is not None:
                        part.bytes_to = (part.bytes_to or 0) + event.size_bytes
            case ReplyArrived():
                part = self._part(event.node)
                part.replied[event.phase] = event.at
                if event.size_bytes is not None:
                    part.bytes_from = (part.bytes_from or 0) + event.size_bytes
            case Overdue():
                part = self._part(event.node)
                part.bytes_from = (part.bytes_from or 0) + event.size_bytes
            case Replied():
                for node, report, metrics in event.replies:
                    self._take_reply(event, node, report, metrics)
            case Failed():
                part = self._part(event.node)
                part.failed = part.failed or event.reason
            case LateReport():
                late = event.round_number != self.draft.key[0]
                self._take_report(
                    event.node, event.phase, event.round_number, event.report,
                    late=late, sent_at=event.sent_at, at=event.at,
                )  # fmt: skip

    def _take_reply(
        self,
        event: Replied,
        node: Node,
        report: Mapping[str, object] | None,
        metrics: Mapping[str, object] | None,
    ) -> None:
        part = self._part(node)
        at = part.replied.setdefault(event.phase, event.at)
        if event.phase == "train" and metrics is not None:
            part.examples = _count(metrics.get(EXAMPLES_KEY))
        if report is not None:
            sent_at = part.sent.get(event.phase)
            self._take_report(
                node, event.phase, self.draft.key[0], report, late=False, sent_at=sent_at, at=at
            )

    def _take_report(
        self,
        node: Node,
        phase: Phase,
        reported_round: int,
        values: Mapping[str, object],
        *,
        late: bool,
        sent_at: float | None,
        at: float,
    ) -> None:
        if not self._tracked:
            return
        report = read_report(dict(values.items()))
        if isinstance(report, ClientReport) and report.client_name is not None:
            self._names.claim(node, report.client_name)
        self._arrived.append(_Arrived(str(node), phase, reported_round, late, report, sent_at, at))

    def _part(self, node: Node) -> _Participant:
        return self._participants.setdefault(str(node), _Participant())

    def participants(self) -> list[ParticipantFacts]:
        """Everyone who was sent a message in this round, and whose reply to an earlier one came in it."""
        return [
            ParticipantFacts(
                node_id=node,
                client=self._names.pseudonym(node),
                train=part.train,
                failed=part.failed,
                examples=part.examples,
                sent_at=part.sent.get("train", part.sent.get("evaluate")),
                replied_at=part.replied.get("train" if part.train else "evaluate"),
                loopback=self._names.loopback(node),
                bytes_to=part.bytes_to,
                bytes_from=part.bytes_from,
            )
            for node, part in self._participants.items()
            if part.sent or part.bytes_from is not None
        ]

    def bare_participants(self) -> list[ParticipantFacts]:
        """Everyone who was sent a message, and nothing that a client had a say in."""
        return [
            ParticipantFacts(node_id=node, client=f"node {node}", train=part.train)
            for node, part in self._participants.items()
            if part.sent
        ]

    def reports(self) -> list[ReceivedReport]:
        """The reports, judged, in order of arrival."""
        return [
            ReceivedReport(
                node_id=arrived.node,
                client=self._names.pseudonym(arrived.node),
                phase=arrived.phase,
                reported_round=arrived.reported_round,
                late=arrived.late,
                report=arrived.report,
                sent_at=self.draft.started_at if arrived.sent_at is None else arrived.sent_at,
                replied_at=arrived.at,
                loopback=self._names.loopback(arrived.node),
            )
            for arrived in self._arrived
        ]

    def any_failed(self) -> bool:
        """Whether a node that was to train failed."""
        return any(p.failed is not None and p.train for p in self._participants.values())


def status_of(draft: Draft, builder: FactBuilder, *, closed: bool) -> RoundStatus:
    """What became of the round: a failure is a failure even if evaluation went well afterwards."""
    if draft.key[0] == 0:
        return "interrupted" if draft.interrupted else "completed" if closed else "running"
    if draft.aggregated:
        return "partial" if builder.any_failed() else "completed"
    if draft.interrupted:
        return "interrupted"
    if draft.failure is not None or closed:
        return "failed"
    return "running"


def numbers_in(record: Mapping[str, Any] | None) -> dict[str, float]:
    """The finite single numbers of a MetricRecord."""
    if record is None:
        return {}
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e308
        and math.isfinite(value)
    }


def _count(value: object) -> int | None:
    """A number of examples as sent, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        return None
    return value
