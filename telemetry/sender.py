"""A thread that delivers what a store holds to a service, as long as the process lives.

It looks into the store, so nobody has to hand anything to it and no call of the training's waits for
it. While the service is away it tries again with growing, random pauses; what is not delivered at the
end stays in the store for the next start, or for ``fedserver telemetry flush``.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from telemetry.delivery import STAGE, Backlog, Delivery
from telemetry.domain import Owner, utc_now
from telemetry.errors import ServiceAway, StoreError
from telemetry.exporters.process_families import ProcessFacts
from telemetry.service_client import ServiceClient
from telemetry.store.base import LEASE_RENEW_S, Store
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""How often the store is looked into."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
LONGEST_WISH_S: Final = 300.0
"""The longest ``Retry-After`` that is heeded."""
_LOOK_S: Final = 0.1


def pause_s(tries: int, retry_after_s: float | None, dice: Callable[[], float]) -> float:
    """Seconds until the next try after so many that failed; ``dice`` gives numbers from 0 to 1.

    Doubles from `FIRST_PAUSE_S` to `LONGEST_PAUSE_S`, of which a random half or more is waited. What
    the service asked for is waited at least, and up to a tenth longer.
    """
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30))
    pause = longest * (0.5 + 0.5 * dice())
    if retry_after_s is None:
        return pause
    return max(pause, min(retry_after_s, LONGEST_WISH_S) * (1.0 + 0.1 * dice()))


class Sender:
    """Delivers ``owner``'s runs, and those that nobody holds, from ``store`` to one service.

    Nothing here raises. Failures are counted under the stage ``delivery``.
    """

    def __init__(
        self,
        store: Store,
        client: ServiceClient,
        owner: Owner,
        failures: Failures,
        *,
        clock: Callable[[], datetime] = utc_now,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._failures = failures
        self._clock = clock
        self._dice = dice
        self._delivery = Delivery(store, client, owner, failures, clock=clock)
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._news = threading.Condition()
        self._begun = 0
        self._clean = 0
        self._tries = 0
        self._show_at = 0.0
        self._last_backlog = Backlog(0, None)
        self._thread = threading.Thread(target=self._run, name="telemetry-sender", daemon=True)

    # --- for any thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def drain(self, timeout_s: float, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Try at once, and wait until all that is stored now is delivered or refused.

        False if that took longer, or as soon as ``unless`` holds.
        """
        deadline = time.monotonic() + timeout_s
        with self._news:
            wanted = self._begun + 1  # what is under way may have looked before
            self._wake.set()
            while self._clean < wanted:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or unless():
                    return False
                self._news.wait(min(left_s, _LOOK_S))
        return True

    def stop(self, timeout_s: float) -> None:
        """Break off, and wait so long for the thread to end."""
        self._stopped.set()
        self._client.cancel()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def backlog(self) -> Backlog:
        """What waits in the store; where that cannot be read, what waited when it last could."""
        try:
            self._last_backlog = self._delivery.backlog()
        except StoreError as error:
            self._failures.note(STAGE, str(error))
        return self._last_backlog

    def oldest_s(self) -> float:
        """Seconds for which the oldest of the backlog has waited; 0 where nothing waits."""
        return self.backlog().oldest_s(self._clock())

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            with self._news:
                self._begun += 1
                number = self._begun
            pause = self._step()
            if not self._tries:
                with self._news:
                    self._clean = number
                    self._news.notify_all()
            self._wake.wait(pause)
        self._client.close()

    def _step(self) -> float:
        """Deliver what there is; how long to wait before the next step, seconds."""
        try:
            while not self._stopped.is_set() and self._delivery.once():
                self._succeeded()
            self._show_open()
            self._succeeded()
            return POLL_S
        except ServiceAway as error:
            if self._stopped.is_set():
                return 0.0
            return self._failed(error, error.retry_after_s)
        except StoreError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: it must go on
            self._failures.note(STAGE, "a delivery failed", error=error)
            self._tries += 1
            return pause_s(self._tries, None, self._dice)

    def _show_open(self) -> None:
        if time.monotonic() >= self._show_at:
            self._delivery.show_open()
            self._show_at = time.monotonic() + LEASE_RENEW_S

    def _failed(self, error: Exception, retry_after_s: float | None = None) -> float:
        self._failures.note(STAGE, str(error))
        self._tries += 1
        return pause_s(self._tries, retry_after_s, self._dice)

    def _succeeded(self) -> None:
        if self._tries:
            logger.info("the telemetry service takes deliveries again")
        self._tries = 0


class SendingFacts:
    """What ``/metrics`` tells of a process whose rounds count as delivered at the service only."""

    def __init__(self, process: ProcessFacts, sender: Sender) -> None:
        self._process = process
        self._sender = sender

    @property
    def errors(self) -> Mapping[str, int]:
        """Failures so far, by stage."""
        return self._process.errors

    @property
    def undelivered_rounds(self) -> int:
        """Rounds that the service has not acknowledged, and those lost for good."""
        return self._process.undelivered_rounds + self._sender.backlog().rounds

    @property
    def oldest_undelivered_s(self) -> float | None:
        """Seconds for which the oldest of them has waited."""
        return self._sender.oldest_s()

    @property
    def overhead_s(self) -> float:
        """Seconds of the training's own time that telemetry took so far."""
        return self._process.overhead_s
