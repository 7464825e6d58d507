"""Takes what a service has not acknowledged out of a store and delivers it, in order, in batches.

A run is announced, then its closed rounds follow as they were closed, then its end. What the service
acknowledges is marked in the store, so that whoever comes next goes on there: saying anything twice
changes nothing. What it refuses stays in the store, unmarked, and is passed by until another process
tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Final

from telemetry.domain import Owner, PendingRound, PendingRun, utc_now
from telemetry.errors import DeliveryRefused, RowsNotKept, RunNotFound
from telemetry.service.bodies import MAX_ROUNDS, MAX_ROUNDS_BYTES, round_json
from telemetry.service_client import ServiceClient
from telemetry.store.base import Store
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

STAGE: Final = "delivery"
"""Under which failures are counted."""
MAX_OPEN_BYTES: Final = 1024 * 1024
"""An open round that is larger is not shown before it closes."""
_ENVELOPE_BYTES: Final = 64

RoundKey = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a service has not acknowledged."""

    rounds: int
    oldest_at: datetime | None
    """When the oldest closed round, or end of a run, came to be; None where nothing waits."""

    def oldest_s(self, now: datetime) -> float:
        """Seconds since then; 0 where nothing waits, or the clock was set back."""
        return 0.0 if self.oldest_at is None else max(0.0, (now - self.oldest_at).total_seconds())


class Delivery:
    """One store, one service, and what was refused so far. For one thread at a time."""

    def __init__(
        self,
        store: Store,
        client: ServiceClient,
        owner: Owner | None,
        failures: Failures,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._client = client
        self._owner = owner
        self._failures = failures
        self._clock = clock
        self._passed_by: set[str] = set()
        self._refused: set[tuple[str, RoundKey]] = set()
        self._lost_once: set[str] = set()
        self._last_tried: str | None = None

    def backlog(self) -> Backlog:
        """How much waits in the store. From any thread. Raises `StoreError`."""
        pending = self._pending()
        times = [r.ended_at for run in pending for r in run.rounds]
        times += [run.end.ended_at for run in pending if run.end is not None]
        return Backlog(sum(len(run.rounds) for run in pending), min(times, default=None))

    def once(self) -> bool:
        """Deliver a batch of each run that waits; True if anything was acknowledged or settled.

        Raises `ServiceAway` and `StoreError`. The run that raised is tried last the next time, so
        that one over which the service stumbles does not hold up the others.
        """
        pending = sorted(self._pending(), key=lambda run: run.run_id == self._last_tried)
        moved = False
        for run in pending:
            if run.run_id not in self._passed_by:
                self._last_tried = run.run_id
                moved |= self._run(run)
        self._last_tried = None
        return moved

    def show_open(self) -> None:
        """Let the service see how far the owner's running rounds are, and that their server lives.

        Best effort: an open round is delivered for good when it closes. Raises as `once` does.
        """
        for shown in self._store.exposed(self._clock(), self._owner, max_runs=0, max_rounds=0):
            run = shown.run
            ours = run.owner is not None and run.owner == self._owner
            if not ours or run.ended_at is not None or run.run_id in self._passed_by:
                continue
            try:
                body = None
                if shown.open_round is not None:
                    key = shown.open_round.round, shown.open_round.attempt
                    body = self._body(run.run_id, key)
                if body is None or len(body) > MAX_OPEN_BYTES:
                    self._client.announce(run.info)
                else:
                    self._client.rounds(run.run_id, [body])
            except DeliveryRefused as error:
                self._failures.note(STAGE, f"an open round is not shown: {error}")

    # --- one run -------------------------------------------------------------------------------

    def _pending(self) -> Sequence[PendingRun]:
        return self._store.undelivered(self._client.url, self._clock(), self._owner)

    def _run(self, run: PendingRun) -> bool:
        """One batch; True if anything was settled."""
        try:
            moved = self._announce(run)
            waiting = [r for r in run.rounds if (run.run_id, r.key) not in self._refused]
            batch = self._batch(run.run_id, waiting)
            if batch:
                self._rounds(run.run_id, batch)
            if len(batch) == len(waiting) and run.end is not None:
                self._client.finish(run.run_id, run.end)
                self._store.mark_ended(self._client.url, run.run_id, run.end.ended_at)
                moved = True
            return moved or bool(batch)
        except DeliveryRefused as error:
            return self._run_refused(run, error)
        except RunNotFound:  # deleted while it was delivered
            return True

    def _announce(self, run: PendingRun) -> bool:
        if run.announced:
            return False
        self._client.announce(run.run.info)
        self._store.mark_announced(self._client.url, run.run_id)
        return True

    def _run_refused(self, run: PendingRun, error: DeliveryRefused) -> bool:
        """A service that has lost the run gets it again, once; else the run is passed by."""
        lost = error.status == HTTPStatus.NOT_FOUND and run.announced
        if lost and run.run_id not in self._lost_once:
            self._lost_once.add(run.run_id)
            logger.warning(
                "the service does not know run %s any more: all of it is delivered again",
                run.run_id,
            )
            self._store.forget_delivered(self._client.url, run.run_id)
            return True
        self._passed_by.add(run.run_id)
        self._failures.note(STAGE, f"run {run.run_id} is not delivered: {error}")
        return True

    def _batch(self, run_id: str, waiting: Sequence[PendingRound]) -> list[tuple[RoundKey, bytes]]:
        """The first of what waits, as much as one body may hold; at least one round."""
        batch: list[tuple[RoundKey, bytes]] = []
        size = _ENVELOPE_BYTES
        for key, body in self._bodies(run_id, waiting[:MAX_ROUNDS]):
            size += len(body) + 1
            if batch and size > MAX_ROUNDS_BYTES:
                break
            batch.append((key, body))
        return batch

    def _bodies(
        self, run_id: str, rounds: Sequence[PendingRound]
    ) -> Iterator[tuple[RoundKey, bytes]]:
        for pending in rounds:
            body = self._body(run_id, pending.key)
            if body is not None:
                yield pending.key, body

    def _body(self, run_id: str, key: RoundKey) -> bytes | None:
        try:
            return round_json(self._store.round(run_id, *key))
        except RowsNotKept:
            return None

    def _rounds(self, run_id: str, batch: Sequence[tuple[RoundKey, bytes]]) -> None:
        """Deliver a batch; of one that is refused the halves, until those to blame stand alone."""
        try:
            self._client.rounds(run_id, [body for _, body in batch])
        except DeliveryRefused as error:
            if error.status == HTTPStatus.NOT_FOUND:  # of the run
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                self._rounds(run_id, batch[:half])
                self._rounds(run_id, batch[half:])
                return
            key = batch[0][0]
            self._refused.add((run_id, key))
            which = f"round {key[0]} (attempt {key[1]}) of run {run_id}"
            self._failures.note(STAGE, f"{which} is not delivered: {error}")
            return
        self._store.mark_delivered(self._client.url, run_id, [key for key, _ in batch])
