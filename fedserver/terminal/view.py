"""One moment of a training, as far as a terminal shows it: plain values, nothing to look up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Step = Literal[
    "waiting",  # for clients
    "preparing",  # the server configures the round
    "training",
    "aggregating",
    "evaluating",
    "closing",  # the round is evaluated, the next one has not begun
    "ending",
]
ClientState = Literal["idle", "busy", "training", "evaluating", "done", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A server that is not ready yet."""

    what: str
    """It is busy with."""
    done: int
    """Steps that are behind it."""
    of: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientView:
    """A client in this round. ``name`` and ``reason`` are as somebody sent them: not to be trusted."""

    number: int
    """In order of arrival."""
    name: str
    state: ClientState
    seconds: float | None = None
    """It has been at work for, or was."""
    reason: str | None = None
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    """A training metric over the closed rounds."""

    name: str
    last: float
    best: float
    best_round: int
    history: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FootprintView:
    """What is known of the emissions so far, the running round included."""

    total_kg: float | None
    rounds_kg: tuple[float | None, ...]
    """Of each closed round; None where nothing of it is known."""
    note: str | None
    """What must stand beside every headline."""
    coverage: tuple[int, int] | None = None
    """Reports and participants of the last closed round that anybody took part in."""
    coverage_round: int | None = None
    rejected: int = 0
    """Reports of that round that were not believed."""
    budget_kg: float | None = None
    budget_used: float | None = None
    """Used ÷ budget; None where there is none, or nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that is shown."""

    run_id: str
    run_name: str
    strategy: str
    endpoint: str
    """What to share with those who run clients."""
    step: Step
    round: int
    """0 is the set-up."""
    planned: int
    failed_rounds: int
    needed: int
    """Clients without which no round begins."""
    connected: int
    asked: int
    """Clients that were sent a message in this step."""
    answered: int
    round_s: float
    expected_s: float | None
    """What such rounds took lately; None before the first has ended."""
    run_s: float
    left_s: float | None
    states: Mapping[ClientState, int]
    """How many clients are in each."""
    clients: Sequence[ClientView]
    """Those worth showing, failed ones and slow ones first; all, in order of arrival, if few."""
    metrics: Sequence[MetricView]
    footprint: FootprintView | None
    """None where emissions are not tracked."""
    warnings: int = 0
    last_warning: str = ""

    @property
    def free(self) -> int:
        """Clients that can be asked: a busy one still works on what it was asked before."""
        return self.connected - self.states.get("busy", 0)

    @property
    def round_share(self) -> float | None:
        """How much of the round is over: by time where that is known, else by answers."""
        if self.step == "waiting":
            return min(1.0, self.free / self.needed) if self.needed else None
        if self.expected_s:
            return min(1.0, self.round_s / self.expected_s)
        return self.answered / self.asked if self.asked else None

    @property
    def run_share(self) -> float:
        """How much of the run is over, by rounds."""
        if not self.planned:
            return 1.0
        if self.step == "ending":
            return min(1.0, self.round / self.planned)
        begun = 0.0 if self.step == "waiting" else self.round_share or 0.0
        return min(1.0, (max(0, self.round - 1) + (begun if self.round else 0.0)) / self.planned)


def worth_showing(
    clients: Sequence[ClientView], total: int, rows: int
) -> tuple[Sequence[ClientView], int]:
    """Whom ``rows`` lines have room for, and how many are left out (which takes one line).

    ``clients`` are failed ones first. Those get two lines in three where others are to be shown, too.
    """
    if len(clients) == total <= rows:
        return clients, 0
    room = max(0, rows - 1)
    failed = [client for client in clients if client.state == "failed"]
    others = [client for client in clients if client.state != "failed"]
    most = min(room, max(room - len(others), 2 * room // 3, 1))
    shown = failed[:most]
    shown += others[: room - len(shown)]
    return shown, total - len(shown)
