"""The one thread that accounts for rounds and writes them.

Nothing here is done on the training's time, and nothing that goes wrong here reaches it: a failure
is logged once a kind, counted, and the data is kept and tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from telemetry.domain import Owner, RoundRecord, utc_now
from telemetry.durations import Durations
from telemetry.errors import RoundConflict, StoreError
from telemetry.store.base import LEASE_RENEW_S, Store

logger = logging.getLogger(__name__)

RoundKey = tuple[int, int]
MAX_KEPT_ROUNDS: Final = 1_000
"""Rounds kept in memory while the store cannot be written; beyond it the oldest are lost."""
ABANDON_S: Final = 1.0
"""How long a write that is under way may take to end when the writer is abandoned."""
RETRY_S: Final = (0.05, 0.25, 1.0, 2.0)
"""Pauses before a store that failed is tried again; the last one repeats."""


class Failures:
    """Counts what went wrong, by stage, and logs the first of each kind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._logged: set[tuple[str, str]] = set()

    def note(self, stage: str, problem: str, *, error: BaseException | None = None) -> None:
        """Count one failure; log it if none of its kind was logged. ``error`` adds its traceback."""
        kind = (stage, problem.split(":")[0] if error is None else type(error).__name__)
        with self._lock:
            self._counts[stage] += 1
            first = kind not in self._logged
            self._logged.add(kind)
        if first:
            logger.warning(
                "telemetry (%s): %s; training goes on, further failures of this kind are only counted",
                stage,
                problem,
                exc_info=error,
            )

    def include(self, before: Failures) -> None:
        """Count those, too, and log none of their kinds again."""
        with self._lock, before._lock:
            self._counts += before._counts
            self._logged |= before._logged

    @property
    def counts(self) -> Mapping[str, int]:
        """Failures so far by stage."""
        with self._lock:
            return dict(self._counts)


@dataclass(slots=True)
class _Job:
    """A round to write: how to make its record, and the record once it is made."""

    key: RoundKey
    make: Callable[[], RoundRecord]
    closed: bool
    record: RoundRecord | None = None
    faults: int = 0
    """How often the store raised for it what no store should raise."""

    @property
    def stuck(self) -> bool:
        """Whether the rounds after it no longer wait for it. It is tried on."""
        return self.faults >= len(RETRY_S)


@dataclass(slots=True)
class _Close:
    """Nothing comes after this."""

    last: Callable[[], None]
    faults: int = 0


def _keep_newest(jobs: dict[RoundKey, _Job], job: _Job) -> None:
    known = jobs.get(job.key)
    if known is None or not known.closed:  # a closed round is never overtaken
        jobs[job.key] = job


class RoundWriter:
    """Writes one run's rounds to a store, in order, in a thread of its own.

    A newer revision of a round replaces an older one that still waits. Also keeps the run's lease, and
    calls ``refresh`` as often: a process that is killed has lost no more than that. After the run's
    end it keeps the lease until the run is released, for it is served here. ``on_made`` is told of
    each record, open or closed, once it is made; ``on_closed`` of the closed ones.
    Other threads only put something into the inbox, which costs them next to nothing; all else
    belongs to the writer's thread alone.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        owner: Owner,
        failures: Failures,
        *,
        on_closed: Callable[[RoundRecord], None] | None = None,
        on_made: Callable[[RoundRecord], None] | None = None,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self.writes = Durations()
        self._store = store
        self._run_id = run_id
        self._owner = owner
        self._failures = failures
        self._on_closed = on_closed
        self._on_made = on_made
        self._refresh = refresh
        self._inbox: SimpleQueue[_Job | _Close | threading.Event] = SimpleQueue()
        self._jobs: dict[RoundKey, _Job] = {}
        self._waiting: list[threading.Event] = []
        self._close: _Close | None = None
        self._abandoned = False
        self._done = threading.Event()
        self._making = threading.Lock()
        self._tries = 0
        self._lost = 0
        self._renew_at = 0.0
        self._thread = threading.Thread(target=self._run, name="telemetry-writer", daemon=True)

    # --- for any thread ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, key: RoundKey, make: Callable[[], RoundRecord], *, closed: bool) -> None:
        """Have a round written; ``make`` builds its record in the writer's thread."""
        self._inbox.put(_Job(key, make, closed))

    def barrier(self, timeout_s: float) -> bool:
        """Wait until all that was submitted is written; False if that took longer."""
        written = threading.Event()
        self._inbox.put(written)
        return written.wait(timeout_s)

    @property
    def undelivered_rounds(self) -> int:
        """Rounds that wait to be written, and those that were lost."""
        return len(self._jobs) + self._lost

    def close(self, timeout_s: float, last: Callable[[], None]) -> bool:
        """Write what is left, then do ``last``; True if all was done within ``timeout_s``.

        ``last`` is tried again when it raises, like a round. What is not done in time is tried on,
        until `abandon`.
        """
        self._inbox.put(_Close(last))
        return self.wait_done(timeout_s)

    def wait_done(self, timeout_s: float) -> bool:
        """Wait for what `close` began."""
        return self._done.wait(timeout_s) and not self.undelivered_rounds

    def abandon(self) -> Sequence[RoundRecord]:
        """Try no more; the records that could not be written, in order.

        Those too that the thread has not even seen, because the store keeps it.
        """
        self._abandoned = True
        self._inbox.put(threading.Event())  # wakes the thread
        if self._thread.ident is None:  # never started: the run could not be recorded
            return []
        self._thread.join(ABANDON_S)
        jobs = dict(self._jobs)
        for job in self._unseen():
            _keep_newest(jobs, job)
        for job in jobs.values():
            try:
                self._made(job)
            except Exception as error:  # noqa: BLE001 - as in `_write_all`
                self._failures.note("accounting", f"round {job.key[0]} is lost", error=error)
        return [job.record for job in jobs.values() if job.record is not None]

    def _unseen(self) -> Iterator[_Job]:
        with suppress(Empty):
            while True:
                item = self._inbox.get_nowait()
                if isinstance(item, _Job):
                    yield item

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        self._renew_at = time.monotonic() + LEASE_RENEW_S
        while not self._done.is_set() and not self._abandoned:
            self._receive()
            if time.monotonic() >= self._renew_at:
                self._renew_lease()
            self._make_closed()
            if self._write_all():
                for written in self._waiting:
                    written.set()
                self._waiting.clear()
                self._do_last()
        self._hold()

    def _hold(self) -> None:
        """The run has ended and is still served here: nobody else may, until it is released."""
        while not self._abandoned:
            with suppress(Empty):
                item = self._inbox.get(timeout=max(0.0, self._renew_at - time.monotonic()))
                if isinstance(item, _Job):  # too late; for who asks for what is left
                    self._keep(item)
                continue
            with suppress(Exception):  # a run that has ended loses nothing by it
                if not self._renewed():
                    return

    def _receive(self) -> None:
        """Wait for work, or until it is time to try again or to renew the lease."""
        pause = max(0.0, self._renew_at - time.monotonic())
        if self._tries:
            pause = min(pause, RETRY_S[min(self._tries, len(RETRY_S)) - 1])
        try:
            while True:
                item = self._inbox.get(timeout=pause)
                pause = 0.0  # whatever else is there already
                match item:
                    case _Job():
                        self._keep(item)
                    case _Close():
                        self._close = item
                    case threading.Event():
                        self._waiting.append(item)
        except Empty:
            return

    def _keep(self, job: _Job) -> None:
        _keep_newest(self._jobs, job)
        while len(self._jobs) > MAX_KEPT_ROUNDS:
            oldest = next(iter(self._jobs))
            del self._jobs[oldest]
            self._lost += 1
            self._failures.note("store", f"round {oldest[0]} could not be kept any longer")

    def _make_closed(self) -> None:
        """Make the records of closed rounds before any is written: a store that hangs on one must
        not keep the next from being told.
        """
        for job in list(self._jobs.values()):
            if job.closed:
                try:
                    self._made(job)
                except Exception as error:  # noqa: BLE001 - as in `_write_all`
                    self._drop(job, error)

    def _drop(self, job: _Job, error: Exception) -> None:
        self._failures.note("accounting", f"round {job.key[0]} is not stored", error=error)
        self._jobs.pop(job.key, None)

    def _write_all(self) -> bool:
        """Write round after round until one fails; it then stays first in line. True if none did.

        A `StoreError` concerns every round, whatever else is raised perhaps this one only: after
        some tries the next ones pass it by, and it stays in memory.
        """
        stuck = False
        for key, job in list(self._jobs.items()):
            if self._abandoned:
                return False
            try:
                record = self._made(job)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not stop the next rounds
                self._drop(job, error)
                continue
            try:
                self._timed(record)
            except RoundConflict as error:
                self._failures.note("store", str(error))
            except StoreError as error:
                self._failures.note("store", str(error))
                self._tries += 1
                return False
            except Exception as error:  # noqa: BLE001 - the round is whole: it must not be lost
                self._failures.note("store", f"round {key[0]} is not stored yet", error=error)
                job.faults += 1
                if not job.stuck:
                    self._tries += 1
                    return False
                stuck = True
                continue
            self._jobs.pop(key, None)
        self._tries = self._tries + 1 if stuck else 0
        return True

    def _timed(self, record: RoundRecord) -> None:
        began = time.perf_counter()
        try:
            self._store.record_round(record)
        finally:
            self.writes.observe(time.perf_counter() - began)

    def _made(self, job: _Job) -> RoundRecord:
        """The round's record; made once, however often it takes to write it, one at a time."""
        with self._making:
            known = job.record
            record = job.record = job.make() if known is None else known
        if known is None:
            self._tell(self._on_made, record)
            if record.closed:
                self._tell(self._on_closed, record)
        return record

    def _do_last(self) -> None:
        if self._close is None:
            return
        try:
            self._close.last()
        except StoreError as error:
            self._failures.note("store", str(error))
            self._tries += 1
        except Exception as error:  # noqa: BLE001 - as with a round
            self._failures.note("store", "the run's end is not stored", error=error)
            self._tries += 1
            self._close.faults += 1
            if self._close.faults >= len(RETRY_S):
                self._lost += 1
                self._done.set()
        else:
            self._done.set()

    def _tell(self, listener: Callable[[RoundRecord], None] | None, record: RoundRecord) -> None:
        if listener is None:
            return
        try:
            listener(record)
        except Exception as error:  # noqa: BLE001 - somebody's listener: not ours to fall over
            self._failures.note("listener", "a listener failed", error=error)

    def _renew_lease(self) -> None:
        if self._refresh is not None:
            self._refresh()
        try:
            held = self._renewed()
        except StoreError as error:
            self._failures.note("store", str(error))
            return
        except Exception as error:  # noqa: BLE001 - the thread must go on
            self._failures.note("lease", "the lease is not renewed", error=error)
            return
        if not held:
            self._failures.note("lease", f"run {self._run_id} is not held by this process any more")

    def _renewed(self) -> bool:
        """Renew the lease; False where it is not ours any more."""
        self._renew_at = time.monotonic() + LEASE_RENEW_S
        return self._store.renew_lease(self._run_id, self._owner, utc_now())
