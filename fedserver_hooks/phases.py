"""Attributes what the server's meter shows to rounds and phases.

A meter gives cumulative readings, and only so often (`Meter.resolution_s`; codecarbon samples at
most every 50 ms). Phases may be shorter, and a round may end between two samples. So each stretch of
time waits here until a reading covers it; a reading is then shared among the stretches since the
one before by wall time. Shares sum to the meter's own total exactly.

A reading stands for the instant at which it was begun: what a meter finds out later, while a slow
driver keeps it, it shows in the next one. What is left of a stretch then goes on waiting.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fedserver_hooks.clock import Clock
from fedserver_hooks.reader import HANG_S, Reader, ThreadReader
from fedserver_hooks.readings import Meter, MeterError, MeterHangs, Reading, describe
from telemetry.domain import SERVER_PHASES, Lap, ServerPhase

RoundKey = tuple[int, int]
"""(round, attempt)"""


@dataclass(slots=True)
class _Stretch:
    """One uninterrupted piece of one phase that no reading has covered yet."""

    key: RoundKey
    phase: ServerPhase
    start: float
    end: float

    @property
    def wall_s(self) -> float:
        return max(0.0, self.end - self.start)


@dataclass(slots=True)
class _Sum:
    """What is known of one phase of one round so far."""

    wall_s: float = 0.0
    metered_s: float = 0.0
    energies: list[Reading] = field(default_factory=list)
    shared: bool = False
    reason: str | None = None


class PhaseLedger:
    """Which phase of which round the server is in, and what energy each took.

    `enter` and `leave` are for the training thread: they note an instant, in microseconds, and never
    call the meter. `settle` is for the writer thread: it may wait for the meter, never for long. The
    meter is called by the ``reader`` only, in a thread of its own and outside the lock. A reading
    that has not come back after ``hang_s`` hangs.
    """

    def __init__(
        self,
        meter: Meter,
        clock: Clock,
        *,
        on_failure: Callable[[MeterError], None],
        reader: Callable[[Callable[[], None], float], Reader] = ThreadReader,
        wait: Callable[[float], None] = time.sleep,
        hang_s: float = HANG_S,
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._on_failure = on_failure
        self._reader = reader(self._take, hang_s)
        self._wait = wait
        self._hang_s = hang_s
        self._lock = threading.Lock()
        self._open: _Stretch | None = None
        self._idle_is_short = False
        self._pending: list[_Stretch] = []
        self._last: tuple[float, Reading] | None = None
        self._due_at = -math.inf
        self._failure: MeterError | None = None
        self._hangs = self._stopped = False
        self._sums: dict[RoundKey, dict[ServerPhase, _Sum]] = {}

    def enter(self, key: RoundKey, phase: ServerPhase, now: float | None = None) -> float:
        """Leave the phase so far and enter another; returns the instant, epoch seconds."""
        with self._lock:
            instant = self._clock() if now is None else now
            self._leave(instant)
            self._open = _Stretch(key, phase, instant, instant)
            # Going idle is followed at once by something else, as a rule; one reading there serves
            # both boundaries. Where idling was long the last time, it gets a reading of its own.
            due = self._due(instant) and not (phase == "idle" and self._idle_is_short)
        if due:
            self._reader.wake()
        return instant

    def leave(self) -> float:
        """End the last phase: the run is over."""
        with self._lock:
            instant = self._clock()
            self._leave(instant)
            self._open = None
            return instant

    def refresh(self) -> None:
        """Have a reading taken where one is due, so that what a long phase took so far is known."""
        with self._lock:
            due = self._open is not None and self._due(self._clock())
        if due:
            self._reader.wake()

    def catch_up(self) -> None:
        """Have the running phase read to about now; waits for the meter, but never for long."""
        with self._lock:
            due_in = math.inf if self._open is None else self._due_in(self._clock())
        if math.isfinite(due_in):
            if due_in > 0:
                self._wait(due_in)
            self._reader.wait(self._hang_s)

    def settle(self, key: RoundKey) -> None:
        """See that every stretch of a round that has ended is covered, or given up with a reason.

        The meter has ``hang_s`` to answer; what it has not shown by then stays unknown.
        """
        deadline = time.monotonic() + self._hang_s
        while True:
            with self._lock:
                if not any(s.key == key for s in self._pending):
                    return
                due_in = self._due_in(self._clock())
                if math.isinf(due_in):
                    self._give_up(key, "metering is off")
                    return
            if due_in > 0:
                self._wait(due_in)
                deadline += due_in
                continue
            answered = self._reader.wait(max(0.0, deadline - time.monotonic()))
            failure = self._failure if answered else self._no_answer()
            if failure is not None:
                with self._lock:
                    self._give_up(key, failure.reason)

    def close(self) -> None:
        """Stop the meter, after its last reading: waits for it, but never for long."""
        self._reader.close(self._stop)

    def laps(self, key: RoundKey) -> tuple[Lap, ...]:
        """What is known of a round now, one lap a phase that it had, in the order of the phases."""
        with self._lock:
            sums = {phase: _copy(known) for phase, known in self._sums.get(key, {}).items()}
            uncovered = [*self._pending, *([self._open] if self._open else [])]
            now = self._clock()
            for stretch in uncovered:
                if stretch.key == key:
                    end = now if stretch is self._open else stretch.end
                    known = sums.setdefault(stretch.phase, _Sum())
                    known.wall_s += max(0.0, end - stretch.start)
        resolution_s = self._meter.resolution_s
        return tuple(
            _lap(phase, sums[phase], resolution_s)
            for phase in SERVER_PHASES
            if phase in sums and sums[phase].wall_s > 0
        )

    def forget(self, key: RoundKey) -> None:
        """Drop what is known of a closed round."""
        with self._lock:
            self._sums.pop(key, None)

    # --- in the reader's thread ---------------------------------------------------------------

    def _take(self) -> None:
        """Read the meter where a reading is due, and share out what it shows; raises nothing."""
        with self._lock:
            began = self._clock()
            if not self._due(began):  # somebody asked while the one before was under way
                return
            self._hangs = False
        try:
            reading = self._meter.read()
            with self._lock:
                self._note_reading(began, reading)
                self._failure = None
        except Exception as error:  # noqa: BLE001 - whatever a meter raises or returns, it failed
            failure = error if isinstance(error, MeterError) else MeterError(describe(error))
            with self._lock:
                self._failure = failure
                self._note(failure.reason)
            self._on_failure(failure)

    def _stop(self) -> None:
        try:
            self._meter.stop()
        except Exception as error:  # noqa: BLE001 - the run is over all the same
            self._on_failure(MeterError(describe(error)))
        self._stopped = True

    # --- in the writer's thread ---------------------------------------------------------------

    def _no_answer(self) -> MeterError:
        """Why a reading did not come; each one that hangs is told once."""
        if self._stopped:
            return MeterError("the meter has been stopped")
        failure = MeterHangs("the meter hangs: a reading has not come back")
        with self._lock:
            told, self._hangs = self._hangs, True
            self._note(failure.reason)
        if not told:
            self._on_failure(failure)
        return failure

    # --- under the lock --------------------------------------------------------------------

    def _leave(self, instant: float) -> None:
        if self._open is not None:
            self._open.end = instant
            if self._open.phase == "idle":
                self._idle_is_short = self._open.wall_s < self._meter.resolution_s
            if self._open.wall_s > 0:
                self._pending.append(self._open)

    def _due(self, now: float) -> bool:
        return self._due_in(now) <= 0

    def _due_in(self, now: float) -> float:
        """Seconds until a reading would carry new energy; infinite for a meter that is off."""
        if math.isinf(self._meter.resolution_s):
            return math.inf
        return max(0.0, self._due_at - now)

    def _note_reading(self, began: float, reading: Reading) -> None:
        """Share out what a reading shows among the stretches until it was begun."""
        since = reading.minus(reading if self._last is None else self._last[1])
        covered = self._cut(began)
        if self._last is None:
            for stretch in covered:
                self._drop(stretch, "before the meter had started")
        else:
            self._share_out(covered, since, began - self._last[0])
        self._last = (began, reading)
        # From its end, not its beginning: that is what the meter counts its resolution from.
        self._due_at = self._clock() + self._meter.resolution_s

    def _cut(self, instant: float) -> list[_Stretch]:
        """Take out what lies before an instant, of the running phase too; the rest goes on waiting."""
        before: list[_Stretch] = []
        after: list[_Stretch] = []
        for stretch in self._pending:
            if stretch.start < instant:
                before.append(replace(stretch, end=min(stretch.end, instant)))
            if stretch.end > instant:
                after.append(replace(stretch, start=max(stretch.start, instant)))
        if self._open is not None and self._open.start < instant:
            before.append(replace(self._open, end=instant))
            self._open.start = instant
        self._pending = after
        return before

    def _share_out(self, covered: list[_Stretch], energy: Reading, interval_s: float) -> None:
        """Give each stretch its share by wall time.

        Time that was given up since the last reading has left no stretch here: its share is dropped,
        because what was called unknown stays unknown.
        """
        shared = len({(s.key, s.phase) for s in covered}) > 1
        for stretch in covered:
            known = self._sum_of(stretch)
            known.wall_s += stretch.wall_s
            known.metered_s += stretch.wall_s
            known.energies.append(energy.times(stretch.wall_s / interval_s))
            known.shared |= shared

    def _give_up(self, key: RoundKey, reason: str) -> None:
        for stretch in self._pending:
            if stretch.key == key:
                self._drop(stretch, reason)
        self._pending = [s for s in self._pending if s.key != key]

    def _drop(self, stretch: _Stretch, reason: str) -> None:
        known = self._sum_of(stretch)
        known.wall_s += stretch.wall_s
        known.reason = reason

    def _note(self, reason: str) -> None:
        if self._open is not None:
            self._sum_of(self._open).reason = reason

    def _sum_of(self, stretch: _Stretch) -> _Sum:
        return self._sums.setdefault(stretch.key, {}).setdefault(stretch.phase, _Sum())


def _copy(known: _Sum) -> _Sum:
    return replace(known, energies=list(known.energies))


def _lap(phase: ServerPhase, known: _Sum, resolution_s: float) -> Lap:
    total = Reading.sum(known.energies)
    whole = known.metered_s >= known.wall_s
    return Lap(
        phase=phase,
        wall_s=known.wall_s,
        metered_s=known.metered_s,
        energy_kwh=None if total is None else total.energy_kwh,
        cpu_kwh=None if total is None else total.cpu_kwh,
        gpu_kwh=None if total is None else total.gpu_kwh,
        ram_kwh=None if total is None else total.ram_kwh,
        prorated=known.shared and known.wall_s < resolution_s,
        reason=None if whole else known.reason,
        machine_kwh=None if total is None else total.machine_kwh,
    )
