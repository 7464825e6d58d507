"""The one writer of a service: many deliveries in one commit, answered when they are durable."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Final

from telemetry.domain import utc_now
from telemetry.durations import Durations
from telemetry.errors import StoreError, TelemetryError
from telemetry.store.base import Store
from telemetry.store.deliveries import Delivery

logger = logging.getLogger(__name__)

TOGETHER: Final = 64
"""Deliveries in one transaction."""
GATHER_S: Final = 0.01
"""How long the writer waits, at most, for as many deliveries as were there the last time. What it writes
in one go is sooner written, and whoever reads the next requests meanwhile is not held up by it."""
MAX_WAITING: Final = 512
"""Beyond it senders are told to come again: memory is bounded, and they keep what they have."""

PROBLEM_HOLDS_S: Final = 10.0
OUTCOMES: Final = ("stored", "repeated", "refused", "failed", "busy")
"""What becomes of a delivery: news, none of it news, not acceptable, not written, sent away."""


class Busy(TelemetryError):
    """The writer cannot take more just now, or the service is going away."""


class WriteFault(StoreError):
    """The store failed at a delivery in a way that nobody foresaw, perhaps at this one alone."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    delivery: Delivery
    answer: asyncio.Future[int]
    loop: asyncio.AbstractEventLoop


class Ingest:
    """Writes deliveries in a thread of its own, those that wait together in one transaction."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writes = Durations()
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
        self._last_stored_at: datetime | None = None
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting = 0  # of the event loop alone
        self._expected = 1
        """Deliveries of the last transaction, and those that came while it was written."""
        self._enough = threading.Event()
        self._closing = False
        self._problem: str | None = None
        self._problem_at = 0.0
        self._faulted = False
        self._thread = threading.Thread(target=self._write, name="telemetry-ingest", daemon=True)

    @property
    def problem(self) -> str | None:
        """Why the last write failed; None if it did not, or that is `PROBLEM_HOLDS_S` ago.

        For whoever is not ready gets no deliveries, and would never learn that they can be written.
        """
        fresh = self._monotonic() - self._problem_at < PROBLEM_HOLDS_S
        return self._problem if fresh else None

    @property
    def waiting(self) -> int:
        """Deliveries that were taken in and are not written yet."""
        return self._waiting

    @property
    def outcomes(self) -> Mapping[str, int]:
        """Deliveries so far, by each of `OUTCOMES`."""
        return dict(self._outcomes)

    @property
    def last_stored_at(self) -> datetime | None:
        """When something new was last stored; None if nothing was."""
        return self._last_stored_at

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    async def take(self, delivery: Delivery) -> int:
        """Store a delivery: how much of it was news, once that is durable.

        Raises what `Store.deliver` gives for it, and `Busy`.
        """
        if self._closing or self._waiting >= MAX_WAITING:
            self._outcomes["busy"] += 1
            raise Busy(
                "the service is going away"
                if self._closing
                else "too many deliveries wait to be written"
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        self._waiting += 1
        try:
            self._queue.put(_Waiting(delivery, answer, loop))
            if self._waiting >= self._expected:
                self._enough.set()
            return await answer
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Write what waits, and end."""
        self._closing = True
        self._queue.put(None)
        self._enough.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write(self) -> None:
        going_on = True
        while going_on:
            batch, going_on = self._next()
            if batch:
                came_to = self._stored([one.delivery for one in batch])
                self._expected = min(TOGETHER, len(batch) + self._queue.qsize())
                _answer(batch, came_to)

    def _next(self) -> tuple[list[_Waiting], bool]:
        """What waits, at least one; False with the last of it."""
        first = self._queue.get()
        self._enough.clear()
        if 1 + self._queue.qsize() < self._expected and not self._closing:
            self._enough.wait(GATHER_S)
        batch: list[_Waiting] = []
        while first is not None:
            batch.append(first)
            if len(batch) == TOGETHER:
                return batch, True
            try:
                first = self._queue.get_nowait()
            except Empty:
                return batch, True
        return batch, False

    def _stored(self, deliveries: Sequence[Delivery]) -> Sequence[int | TelemetryError]:
        now, began = self._clock(), self._monotonic()
        came_to = self._came_to(deliveries, now)
        self.writes.observe(self._monotonic() - began)
        self._outcomes.update(map(_outcome, came_to))
        if any(isinstance(one, int) and one for one in came_to):
            self._last_stored_at = now
        broken = self._broken(came_to)
        if broken and self._problem is None:
            logger.error("deliveries cannot be written: %s", broken[0])
        elif not broken and self._problem is not None:
            logger.info("deliveries are written again")
        self._problem = broken[0].problem if broken else None
        self._problem_at = self._monotonic()
        return came_to

    def _came_to(
        self, deliveries: Sequence[Delivery], now: datetime
    ) -> Sequence[int | TelemetryError]:
        try:
            return self._store.deliver(deliveries, now)
        except Exception as error:
            if len(deliveries) > 1:  # one by one: the others must not suffer for one of them
                return [what for one in deliveries for what in self._came_to([one], now)]
            logger.exception("a delivery of run %s could not be written", deliveries[0].run_id)
            return [WriteFault(self._store.url, type(error).__name__)]

    def _broken(self, came_to: Sequence[int | TelemetryError]) -> list[StoreError]:
        """What says that the database cannot be written; a fault alone may be one delivery's own."""
        faults = [one for one in came_to if isinstance(one, WriteFault)]
        again, self._faulted = self._faulted, len(faults) == len(came_to)
        if again and self._faulted:
            return [*faults]
        return [one for one in came_to if type(one) is StoreError]


def _outcome(came_to: int | TelemetryError) -> str:
    if isinstance(came_to, int):
        return "stored" if came_to else "repeated"
    return "failed" if type(came_to) in (StoreError, WriteFault) else "refused"


def _answer(batch: Sequence[_Waiting], came_to: Sequence[int | TelemetryError]) -> None:
    def tell() -> None:
        for one, what in zip(batch, came_to, strict=True):
            if one.answer.done():  # whoever waited went away
                continue
            if isinstance(what, int):
                one.answer.set_result(what)
            else:
                one.answer.set_exception(what)

    try:
        batch[0].loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop is closed: nobody waits any more
        logger.debug("an answer came too late")
