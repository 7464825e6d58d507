"""What is known of a round before it is accounted for: the input of `account`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from telemetry import marks
from telemetry.domain import Factors, Lap, NoiseRecord, Phase, RoundStatus
from telemetry.reports import ClientReport, RejectedReport


def _no_history(_: str) -> marks.Rise:
    return marks.NO_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an operator may set about accounting."""

    max_client_power_w: float = 100_000.0
    loopback_on_server_host: bool = True
    """Whether a report without host from a loopback address ran on the server's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantFacts:
    """What the server knows of one client in one round; times are epoch seconds."""

    node_id: str
    client: str
    train: bool
    failed: str | None = None
    examples: int | None = None
    sent_at: float | None = None
    replied_at: float | None = None
    loopback: bool | None = None
    bytes_to: int | None = None
    bytes_from: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedReport:
    """One report as it arrived, with the server's own window of that client's work."""

    node_id: str
    client: str
    phase: Phase
    reported_round: int
    late: bool
    report: ClientReport | RejectedReport
    sent_at: float
    replied_at: float
    loopback: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """All that one attempt at a round is accounted from; reports in order of arrival."""

    run_id: str
    round: int
    attempt: int
    revision: int
    closed: bool
    tracked: bool
    status: RoundStatus
    reason: str | None
    started_at: float
    ended_at: float
    connected: int | None
    factors: Factors
    server_host_id: str | None
    rules: Rules
    participants: Sequence[ParticipantFacts]
    reports: Sequence[ReceivedReport]
    laps: Sequence[Lap]
    train_metrics: Mapping[str, float] = field(default_factory=dict)
    evaluate_metrics: Mapping[str, float] = field(default_factory=dict)
    privacy_epsilon: float | None = None
    noise: NoiseRecord | None = None
    client_rows: bool = True
    sequence: int | None = None
    history: Callable[[str], marks.Rise] = _no_history
    """A node's bare values in earlier rounds (`telemetry.marks.BareHistory.of`)."""
