"""The round that is open: any thread appends to it, and the next one takes over at one instant."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fedserver_hooks.draft import Draft, FactBuilder, Names
from fedserver_hooks.events import LateReport, Node, RoundEvent
from fedserver_hooks.phases import RoundKey
from telemetry.domain import NoiseRecord, RoundRecord


class Make(Protocol):
    """How a draft becomes a record; called in the writer's thread."""

    def __call__(
        self, draft: Draft, builder: FactBuilder, revision: int, *, closed: bool
    ) -> RoundRecord:
        """The record of a round as ``draft`` has it."""
        ...


class Submit(Protocol):
    """Has a round written. Called under the round's lock: be quick."""

    def __call__(self, key: RoundKey, make: Callable[[], RoundRecord], *, closed: bool) -> None:
        """``make`` builds the record, in another thread."""
        ...


class OpenRound:
    """The draft of the open round, if any, and who is connected. For any thread.

    What arrives while a round hands over to the next is in the one or in the other, and revisions
    are submitted in their order. ``rounds_before`` is how many the run has had before the first.
    """

    def __init__(
        self, names: Names, *, tracked: bool, make: Make, submit: Submit, rounds_before: int = 0
    ) -> None:
        self._names = names
        self._tracked = tracked
        self._make = make
        self._submit = submit
        self._lock = threading.Lock()
        self._draft: Draft | None = None
        self._builder: FactBuilder | None = None
        self._connected: set[Node] = set()
        self._sees_connections = False
        self._unplaced = 0
        self._begun = rounds_before

    @property
    def key(self) -> RoundKey | None:
        """(round, attempt); None while no round is open."""
        with self._lock:
            return None if self._draft is None else self._draft.key

    @property
    def unplaced(self) -> int:
        """Late reports that came when no round was open."""
        with self._lock:
            return self._unplaced

    def connected(self, node: Node) -> None:
        """A node is there."""
        with self._lock:
            self._connected.add(node)
            self._sees_connections = True

    def gone(self, node: Node) -> None:
        """A node is not there any more."""
        with self._lock:
            self._connected.discard(node)

    def append(self, event: RoundEvent) -> RoundKey | None:
        """Something happened; the round in which, None where none is open."""
        with self._lock:
            if self._draft is None:
                self._unplaced += isinstance(event, LateReport)
                return None
            self._draft.events.append(event)
            return self._draft.key

    def aggregated(self, arrived: bool, metrics: Mapping[str, Any] | None) -> RoundKey | None:
        """What training came to; the round, None where none is open."""
        with self._lock:
            draft = self._draft
            if draft is None:
                return None
            draft.aggregated = arrived
            draft.train_metrics = metrics
            if not arrived and draft.failure is None:
                draft.failure = "nothing was aggregated"
            return draft.key

    def evaluated(self, metrics: Mapping[str, Any] | None) -> RoundKey | None:
        """What evaluation came to; the round, None where none is open."""
        with self._lock:
            if self._draft is None:
                return None
            self._draft.evaluate_metrics = metrics
            return self._draft.key

    def failed(self, reason: str) -> None:
        """There is no new model; the first reason stands."""
        with self._lock:
            if self._draft is not None and self._draft.failure is None:
                self._draft.failure = reason

    def interrupted(self) -> None:
        """It is not played to its end."""
        with self._lock:
            if self._draft is not None:
                self._draft.interrupted = True

    def privacy(self, epsilon: float | None, noise: NoiseRecord | None) -> None:
        """What is spent so far, and the noise of this round's model."""
        with self._lock:
            if self._draft is not None:
                self._draft.privacy_epsilon = epsilon
                self._draft.noise = noise

    def turn_over(self, now: float, key: RoundKey | None) -> None:
        """End the open round and begin another (None: none) at one instant."""
        with self._lock:
            draft, builder = self._draft, self._builder
            if key is None:
                self._draft = self._builder = None
            else:
                connected = len(self._connected) if self._sees_connections else None
                self._begun += 1
                self._draft = Draft(key, sequence=self._begun, started_at=now, connected=connected)
                self._builder = FactBuilder(self._draft, self._names, tracked=self._tracked)
            if draft is not None and builder is not None:
                draft.ended_at = now
                self._hand_in(draft, builder, closed=True)

    def write(self) -> None:
        """Have the open round written as it is now."""
        with self._lock:
            if self._draft is not None and self._builder is not None:
                self._hand_in(self._draft, self._builder, closed=False)

    def _hand_in(self, draft: Draft, builder: FactBuilder, *, closed: bool) -> None:
        draft.revision += 1
        revision = draft.revision

        def make() -> RoundRecord:
            with self._lock:  # a copy: the training goes on with the original
                seen = dataclasses.replace(draft)
            return self._make(seen, builder, revision, closed=closed)

        self._submit(draft.key, make, closed=closed)
