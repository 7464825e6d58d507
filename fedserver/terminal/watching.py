"""Follows a run by what its recorder tells: events and records in, a `View` out.

For one thread.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fedserver.terminal.facts import Facts
from fedserver.terminal.figures import Figures
from fedserver.terminal.view import ClientState, ClientView, Step, View
from fedserver_hooks import events
from fedserver_hooks.events import Node
from telemetry.domain import RoundRecord

MOST_CLIENTS: Final = 40
"""A view has no more clients than fit on a screen."""
SOON_S: Final = 1.0
"""A round in which nobody was asked for so long waits for clients that are free."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A line of the log at WARNING or above."""

    text: str


RunNews = events.Event | RoundRecord | Warned


@dataclass(slots=True)
class _Client:
    node: Node
    number: int
    here: bool = True
    state: ClientState = "idle"
    since: float = 0.0
    took_s: float | None = None
    owes: bool = False
    """It was asked and has not answered."""
    reason: str | None = None


class RunWatch:
    """What is known of a run at this moment."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._clients: dict[Node, _Client] = {}
        self._count = 0
        self._step: Step = "waiting"
        self._round = 0
        self._began = self._first = facts.run.info.started_at.timestamp()
        self._asked: set[Node] = set()
        self._answered = 0
        self._warnings = 0
        self._last_warning = ""
        self._figures = Figures(facts.run, facts.rounds)

    # --- what happens --------------------------------------------------------------------------

    def take(self, news: RunNews) -> None:
        """The next thing that happened."""
        match news:
            case RoundRecord():
                self._figures.take(news)
            case Warned():
                self._warnings += 1
                self._last_warning = news.text
            case events.Began():
                self._begin(news)
            case events.Over():
                self._step = "ending"
            case events.Seen():
                self._client(news.node).here = True
            case events.Gone():
                self._gone(news.node)
            case events.Sent():
                self._sent(news)
            case events.ReplyArrived():
                self._arrived(news)
            case events.Failed():
                client = self._client(news.node)
                client.state, client.reason = "failed", client.reason or news.reason
            case events.Replied():
                self._replied(news)
            case events.LateReport():
                self._client(news.node).owes = False

    def _client(self, node: Node) -> _Client:
        known = self._clients.get(node)
        if known is None:
            self._count += 1
            known = self._clients[node] = _Client(node, self._count)
        return known

    def _begin(self, news: events.Began) -> None:
        if news.key[0] == 0:
            self._first = news.at
        self._round, self._began, self._step = news.key[0], news.at, "preparing"
        if not self._round:
            self._step = "waiting"
        self._asked, self._answered = set(), 0
        self._clients = {node: client for node, client in self._clients.items() if client.here}
        for client in self._clients.values():
            client.state = "busy" if client.owes else "idle"
            client.took_s = client.reason = None

    def _gone(self, node: Node) -> None:
        client = self._client(node)
        client.here = client.owes = False
        if client.state in ("idle", "busy"):
            del self._clients[node]

    def _sent(self, news: events.Sent) -> None:
        """Told of once by the strategy for all, and by the transport for each."""
        step: Literal["training", "evaluating"]
        step = "training" if news.phase == "train" else "evaluating"
        if self._step != step:
            self._step, self._asked, self._answered = step, set(), 0
        for node in news.nodes:
            client = self._client(node)
            self._asked.add(node)
            client.since, client.owes = news.at, True
            if client.state != "failed":  # to train: it may evaluate all the same
                client.state = step

    def _arrived(self, news: events.ReplyArrived) -> None:
        client = self._client(news.node)
        self._answered += client.owes
        client.owes = False
        if news.phase == "train":
            client.took_s = news.at - client.since
        if client.state in ("training", "evaluating"):
            client.state = "done"

    def _replied(self, news: events.Replied) -> None:
        """A phase is over: who was asked and did not answer has failed by now, or cannot evaluate."""
        self._step = "aggregating" if news.phase == "train" else "closing"
        for client in self._clients.values():
            if client.state in ("training", "evaluating"):
                client.state = "done"

    # --- the view ------------------------------------------------------------------------------

    def view(self, now: float) -> View:
        """This moment; ``now`` in epoch seconds."""
        facts, figures = self._facts, self._figures
        expected_s = figures.expected_s
        here = sum(client.here for client in self._clients.values())
        round_s = max(0.0, now - self._began)
        step: Step = self._step
        if step == "preparing" and (here < facts.needed or round_s > SOON_S):
            step = "waiting"
        left_s = None
        if expected_s is not None and self._round and step != "ending":
            rounds_left = facts.planned - self._round
            left_s = expected_s * rounds_left + max(0.0, expected_s - round_s)
        return View(
            run_id=facts.run.run_id,
            run_name=facts.run.info.run_name,
            strategy=facts.run.info.strategy,
            endpoint=facts.endpoint,
            step=step,
            round=self._round,
            planned=facts.planned,
            failed_rounds=figures.failed_rounds,
            needed=facts.needed,
            connected=here,
            asked=len(self._asked),
            answered=self._answered,
            round_s=round_s,
            expected_s=expected_s,
            run_s=max(0.0, now - self._first),
            left_s=left_s,
            states=Counter(client.state for client in self._clients.values()),
            clients=tuple(self._client_view(client, now) for client in self._worth_showing()),
            metrics=figures.metrics,
            footprint=figures.footprint,
            warnings=self._warnings,
            last_warning=self._last_warning,
        )

    def _worth_showing(self) -> Iterable[_Client]:
        everybody = self._clients.values()
        if len(everybody) <= MOST_CLIENTS // 2:
            return everybody
        failed = [client for client in everybody if client.state == "failed"]
        others = (client for client in everybody if client.state != "failed")
        return [
            *failed[: MOST_CLIENTS // 2],
            *heapq.nsmallest(MOST_CLIENTS // 2, others, key=_slow_first),
        ]

    def _client_view(self, client: _Client, now: float) -> ClientView:
        at_work = client.state in ("training", "evaluating")
        return ClientView(
            number=client.number,
            name=self._facts.name(client.node),
            state=client.state,
            seconds=max(0.0, now - client.since) if at_work else client.took_s,
            reason=client.reason,
        )


_AT_WORK_FIRST: Final[dict[ClientState, int]] = {
    "failed": 0, "training": 1, "evaluating": 1, "busy": 2, "done": 3, "idle": 4
}  # fmt: skip


def _slow_first(client: _Client) -> tuple[int, float, int]:
    """At work longest, then who took longest."""
    waited = client.since if client.state in ("training", "evaluating") else -(client.took_s or 0.0)
    return _AT_WORK_FIRST[client.state], waited, client.number
