"""What happens to a run, as its recorder is told of it: facts without behaviour, cheap to make.

Rounds are folded out of them (`fedserver_hooks.draft`); whoever watches a run is handed the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedserver_hooks.phases import RoundKey
from telemetry.domain import Phase, RoundRecord, RunStatus

Node = int | str
ReplyParts = tuple[Node, Mapping[str, object] | None, Mapping[str, object] | None]
"""A node, its report as sent, and its metrics; None for what it did not send."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Messages went out to these nodes."""

    phase: Phase
    nodes: Sequence[Node]
    at: float
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Replied:
    """These nodes' replies are here; each with its report as sent and its metrics (None without)."""

    phase: Phase
    replies: Sequence[ReplyParts]
    at: float


@dataclass(frozen=True, slots=True)
class ReplyArrived:
    """The transport saw one node's reply: better known than `Replied` when and how large."""

    phase: Phase
    node: Node
    at: float
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Overdue:
    """The transport saw a reply after its phase had been given up, of this or an earlier round."""

    node: Node
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A node's update cannot be used."""

    node: Node
    reason: str


@dataclass(frozen=True, slots=True)
class LateReport:
    """A report that came after its phase had been given up."""

    phase: Phase
    node: Node
    report: Mapping[str, object]
    round_number: int
    """The round that the client worked for."""
    sent_at: float
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A node connected."""

    node: Node


@dataclass(frozen=True, slots=True)
class Gone:
    """A node disconnected."""

    node: Node


@dataclass(frozen=True, slots=True)
class Began:
    """A round begins, and the one before ends."""

    key: RoundKey
    at: float


@dataclass(frozen=True, slots=True)
class Over:
    """The last round ends, and the run with it."""

    status: RunStatus
    at: float


RoundEvent = Sent | Replied | ReplyArrived | Overdue | Failed | LateReport
"""What belongs to the round that is open."""
Event = RoundEvent | Seen | Gone | Began | Over
Watch = Callable[[Event | RoundRecord], None]
"""Is told of each event in the thread where it happens, and of each record (of an open round too) in
the writer's. It holds up both: append to a list, and look at it elsewhere."""
