"""Attributes what the server's meter shows to rounds and phases.

A meter gives cumulative readings, and only so often (`Meter.resolution_s`; codecarbon samples at
most every 50 ms). Phases may be shorter, and a round may end between two samples. So each stretch of
time waits here until a reading covers it; a reading is then shared among the stretches since the
one before by wall time. Shares sum to the meter's own total exactly.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fedserver_hooks.clock import Clock
from fedserver_hooks.meter import Meter, MeterError, Reading
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

    `enter` is for the training thread: it costs one reading (under a millisecond) where one is due,
    else next to nothing, and never raises. `settle` is for the writer thread: it may wait for the
    meter's resolution. One lock guards both, because a meter must not be read twice at once.
    """

    def __init__(
        self,
        meter: Meter,
        clock: Clock,
        *,
        on_failure: Callable[[MeterError], None],
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._on_failure = on_failure
        self._wait = wait
        self._lock = threading.Lock()
        self._open: _Stretch | None = None
        self._idle_is_short = False
        self._pending: list[_Stretch] = []
        self._last: tuple[float, Reading] | None = None
        self._sums: dict[RoundKey, dict[ServerPhase, _Sum]] = {}

    def enter(
        self, key: RoundKey, phase: ServerPhase, now: float | None = None, *, read: bool = True
    ) -> float:
        """Leave the phase so far and enter another; returns the instant, epoch seconds.

        ``read=False`` leaves the reading that is due to a `settle` that follows at once, in another
        thread: it is then split at this instant, and costs the training nothing.
        """
        with self._lock:
            instant = self._clock() if now is None else now
            self._leave(instant)
            self._open = _Stretch(key, phase, instant, instant)
            # Going idle is followed at once by something else, as a rule; one reading there serves
            # both boundaries. Where idling was long the last time, it gets a reading of its own.
            skip = phase == "idle" and self._idle_is_short
            if read and not skip and self._due(instant):
                self._read()
            return instant

    def leave(self) -> float:
        """End the last phase: the run is over."""
        with self._lock:
            instant = self._clock()
            self._leave(instant)
            self._open = None
            return instant

    def refresh(self) -> None:
        """Read the meter where a reading is due, so that what a long phase took so far is known."""
        with self._lock:
            if self._open is not None and self._due(self._clock()):
                self._read()

    def settle(self, key: RoundKey) -> None:
        """See that every stretch of a round that has ended is covered, or given up with a reason."""
        while True:
            with self._lock:
                if not any(s.key == key for s in self._pending):
                    return
                now = self._clock()
                due_in = self._due_in(now)
                if math.isinf(due_in):
                    self._give_up(key, "metering is off")
                    return
                if due_in <= 0:
                    failure = self._read()
                    if failure is not None:
                        self._give_up(key, failure.reason)
                    continue
            self._wait(due_in)

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
        if self._last is None:
            return 0.0 if math.isfinite(self._meter.resolution_s) else math.inf
        return self._last[0] + self._meter.resolution_s - now

    def _read(self) -> MeterError | None:
        """Read the meter and share out what it shows; the failure, if it could not be read."""
        try:
            reading = self._meter.read()
        except Exception as error:  # noqa: BLE001 - whatever a meter raises, the reading failed
            failure = error if isinstance(error, MeterError) else MeterError(repr(error)[:200])
            self._on_failure(failure)
            self._note(failure.reason)
            return failure
        now = self._clock()
        if self._open is not None:  # cut the running phase here
            self._leave(now)
            self._open = _Stretch(self._open.key, self._open.phase, now, now)
        if self._last is None:
            for stretch in self._pending:
                self._drop(stretch, "before the meter had started")
        else:
            self._share_out(reading.minus(self._last[1]), now - self._last[0])
        self._pending.clear()
        self._last = (now, reading)
        return None

    def _share_out(self, energy: Reading, interval_s: float) -> None:
        """Give each stretch its share by wall time.

        Time that was given up since the last reading has left no stretch here: its share is dropped,
        because what was called unknown stays unknown.
        """
        shared = len({(s.key, s.phase) for s in self._pending}) > 1
        for stretch in self._pending:
            if stretch.wall_s <= 0:
                continue
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
