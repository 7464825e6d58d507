"""Takes what a service has not acknowledged out of a store and delivers it, in order, in batches.

A run is announced, then its closed rounds follow as they were closed, then its end. What the service
acknowledges is marked in the store, so that whoever comes next goes on there: saying anything twice
changes nothing. What it refuses, or stumbles over again and again, stays in the store, unmarked, and is
passed by (`telemetry.setting_aside`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from math import inf
from typing import Final

from telemetry.domain import Owner, PendingRound, PendingRun, utc_now
from telemetry.errors import DeliveryRefused, RowsNotKept, RunNotFound, ServiceAway, ServiceFault
from telemetry.service.bodies import MAX_ROUNDS, MAX_ROUNDS_BYTES, round_json
from telemetry.service_client import ServiceClient
from telemetry.setting_aside import ASIDE_S, STUMBLES, Aside, Stumbles
from telemetry.store.base import Store
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

STAGE: Final = "delivery"
"""Under which failures are counted."""
MAX_OPEN_BYTES: Final = 1024 * 1024
"""An open round that is larger is not shown before it closes."""
_ENVELOPE_BYTES: Final = 64
_MIB: Final = 1024 * 1024

RoundKey = tuple[int, int]
_Batch = Sequence[tuple[RoundKey, bytes]]


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
    """One store, one service, and what is passed by so far. For one thread at a time."""

    def __init__(
        self,
        store: Store,
        client: ServiceClient,
        owner: Owner | None,
        failures: Failures,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._client = client
        self._owner = owner
        self._failures = failures
        self._clock = clock
        self._aside = Aside(monotonic)
        self._stumbles = Stumbles()
        self._lost_once: set[str] = set()
        self._last_tried: str | None = None

    def backlog(self) -> Backlog:
        """How much waits in the store. From any thread. Raises `StoreError`."""
        pending = self._pending()
        times = [r.ended_at for run in pending for r in run.rounds]
        times += [run.end.ended_at for run in pending if run.end is not None]
        return Backlog(sum(len(run.rounds) for run in pending), min(times, default=None))

    def run_ids(self) -> set[str]:
        """The runs that wait in the store, and are ours to deliver. Raises `StoreError`."""
        return {run.run_id for run in self._pending()}

    def once(self) -> bool:
        """Deliver a batch of each run that waits; True if anything was acknowledged or settled.

        Raises `ServiceAway` and `StoreError`. The run that raised is tried last the next time, so
        that one over which the service stumbles does not hold up the others.
        """
        pending = sorted(self._pending(), key=lambda run: run.run_id == self._last_tried)
        moved = False
        for run in pending:
            if not self._aside.holds(run.run_id):
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
            if not ours or run.ended_at is not None or self._aside.holds(run.run_id):
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
            except (DeliveryRefused, ServiceFault) as error:
                self._failures.note(STAGE, f"an open round is not shown: {error}")

    # --- one run -------------------------------------------------------------------------------

    def _pending(self) -> Sequence[PendingRun]:
        return self._store.undelivered(self._client.url, self._clock(), self._owner)

    def _run(self, run: PendingRun) -> bool:
        """One batch; True if anything was settled."""
        try:
            moved = self._announce(run)
            batch = self._batch(run.run_id, self._waiting(run))
            last = len(batch) == len(self._waiting(run))
            if batch:
                self._rounds(run, batch)
            if last and run.end is not None:
                self._client.finish(run.run_id, run.end)
                self._store.mark_ended(self._client.url, run.run_id, run.end.ended_at)
                moved = True
            self._stumbles.went_well(run.run_id)
            return moved or bool(batch)
        except DeliveryRefused as error:
            return self._run_refused(run, error)
        except ServiceFault as error:
            return self._run_stumbled_over(run, error)
        except RunNotFound:  # deleted while it was delivered
            return True

    def _waiting(self, run: PendingRun) -> list[PendingRound]:
        return [r for r in run.rounds if not self._aside.holds((run.run_id, r.key))]

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
        self._aside.put(run.run_id)
        self._failures.note(STAGE, f"run {run.run_id} is not delivered: {error}")
        return True

    def _run_stumbled_over(self, run: PendingRun, error: ServiceFault) -> bool:
        """Passed by for a while where it fails at this run alone, for it holds up the others."""
        often = self._stumbles.stumbled(run.run_id) >= STUMBLES
        if not (often and self._stumbles.others_went_well(run.run_id)):
            raise error
        self._aside.put(run.run_id, ASIDE_S)
        self._failures.note(STAGE, f"run {run.run_id} is not delivered for now: {error}")
        return True

    def _batch(self, run_id: str, waiting: Sequence[PendingRound]) -> list[tuple[RoundKey, bytes]]:
        """The first of what waits, as much as one body may hold.

        A round that alone is more than that is not even sent: a service ends the connection.
        """
        batch: list[tuple[RoundKey, bytes]] = []
        size = _ENVELOPE_BYTES
        for key, body in self._bodies(run_id, waiting[:MAX_ROUNDS]):
            if _ENVELOPE_BYTES + len(body) > MAX_ROUNDS_BYTES:
                self._too_large(run_id, key, len(body))
                continue
            size += len(body) + 1
            if batch and size > MAX_ROUNDS_BYTES:
                break
            batch.append((key, body))
        return batch

    def _too_large(self, run_id: str, key: RoundKey, size: int) -> None:
        self._aside.put((run_id, key))
        self._failures.note(
            STAGE,
            f"round {key[0]} (attempt {key[1]}) of run {run_id} is not delivered: it has "
            f"{size / _MIB:.1f} MiB, and a service takes {MAX_ROUNDS_BYTES / _MIB:g} MiB at once",
        )

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

    def _rounds(self, run: PendingRun, batch: _Batch) -> None:
        """Deliver a batch; of one that is not taken what can be, and set aside those to blame."""
        try:
            self._send(run.run_id, batch)
        except DeliveryRefused as error:
            if len(batch) == 1:
                self._set_aside(run, batch[0][0], error)
            else:
                self._in_parts(run, batch)
        except ServiceFault as error:
            if self._stumbles.count(run.run_id) + 1 < STUMBLES:
                raise
            logger.info("run %s: looking for the round that the service fails at", run.run_id)
            self._require_service(run, error)
            self._in_parts(run, batch)

    def _require_service(self, run: PendingRun, error: ServiceFault) -> None:
        """Raise where the service fails not at these rounds alone: it must take the run."""
        try:
            self._client.announce(run.run.info)
        except ServiceAway:
            raise error from None

    def _in_parts(self, run: PendingRun, batch: _Batch) -> None:
        """Deliver the halves, and their halves, until those to blame stand alone."""
        half = len(batch) // 2
        for part in filter(None, (batch[:half], batch[half:])):
            try:
                self._send(run.run_id, part)
            except (DeliveryRefused, ServiceFault) as error:
                if len(part) > 1:
                    self._in_parts(run, part)
                else:
                    self._set_aside(run, part[0][0], error)

    def _set_aside(
        self, run: PendingRun, key: RoundKey, error: DeliveryRefused | ServiceFault
    ) -> None:
        for_now = isinstance(error, ServiceFault)
        if isinstance(error, ServiceFault):
            self._require_service(run, error)
        elif error.status == HTTPStatus.NOT_FOUND:  # of the run
            raise error
        self._aside.put((run.run_id, key), ASIDE_S if for_now else inf)
        which = f"round {key[0]} (attempt {key[1]}) of run {run.run_id}"
        self._failures.note(
            STAGE, f"{which} is not delivered{' for now' if for_now else ''}: {error}"
        )

    def _send(self, run_id: str, batch: _Batch) -> None:
        self._client.rounds(run_id, [body for _, body in batch])
        self._store.mark_delivered(self._client.url, run_id, [key for key, _ in batch])
