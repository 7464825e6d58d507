"""Meters: cumulative energy of this machine since the meter started.

`CodeCarbonMeter` measures, `ReplayMeter` gives exact figures to tests and demonstrations,
`NullMeter` measures nothing. A reading that cannot be had is a `MeterError`, never a zero.

`CodeCarbonMeter` keeps one codecarbon tracker for a whole run and reads it through ``flush()`` and
an output handler, the only public way to figures of a running tracker.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fedserver_hooks.readings import Meter, MeterError, MeterStarting, Reading, describe

if TYPE_CHECKING:
    from fedserver_hooks.codecarbon_tracker import Session, TrackerFactory
    from telemetry.domain import Scope, Sensor

__all__ = [
    "CodeCarbonMeter",
    "Meter",
    "MeterError",
    "MeterStarting",
    "NullMeter",
    "Reading",
    "ReplayMeter",
]

_JOULES_PER_KWH: Final = 3.6e6
_FAILURES_UNTIL_STOP: Final = 3
_LOCK_TIMEOUT_S: Final = 1.0
"""A reading that hangs (a GPU driver may) costs each later caller at most this long."""


class CodeCarbonMeter:
    """The whole machine, through one codecarbon tracker; never a network connection or a file.

    A reading costs under 1 ms. After three failed readings in a row the tracker is stopped, and
    every later reading fails with the last reason. Belongs to the process that started it: in a
    forked child every reading fails.

    ``country`` and ``region`` are handed on to codecarbon, whose emissions are not used.
    ``force_cpu_power`` and ``force_ram_power`` are watts: RAM then draws exactly that, the CPU at
    most that (codecarbon takes it as the CPU's power at full load). Left out, codecarbon's own
    settings (``CODECARBON_FORCE_CPU_POWER`` and so on) apply: they describe the hardware. None of
    its settings can switch on an upload, a file, or another scope.
    """

    resolution_s: float = 0.05
    """codecarbon takes no new sample within 50 ms of the last one."""
    scope: Scope = "machine"

    def __init__(
        self,
        *,
        country: str | None = None,
        region: str | None = None,
        factory: TrackerFactory | None = None,
        force_cpu_power: float | None = None,
        force_ram_power: float | None = None,
    ) -> None:
        self._country = country
        self._region = region
        self._factory = factory
        self._force_cpu_power = force_cpu_power
        self._force_ram_power = force_ram_power
        self._lock = threading.Lock()
        self._settled = threading.Event()
        self._pid: int | None = None
        self._stopped = False
        self._session: Session | None = None
        self._reason: str | None = None
        self._failures = 0
        self._last: Reading | None = None
        self._last_at = -math.inf
        self._sensor: Sensor = "unknown"
        self._tracker: str | None = None
        self._cpu_model: Callable[[float], float] | None = None

    @property
    def sensor(self) -> Sensor:
        """What codecarbon found when it started; ``unknown`` before."""
        return self._sensor

    @property
    def tracker(self) -> str | None:
        """``codecarbon`` and its version; None before it started."""
        return self._tracker

    @property
    def cpu_model(self) -> Callable[[float], float] | None:
        """CPU power in W by load (0 to 1), as codecarbon models it; None where a sensor is read."""
        return self._cpu_model

    def start(self) -> None:
        """Import codecarbon and start a tracker in the background (1.6 to 2.9 s when cold)."""
        with self._lock:
            if self._pid is not None or self._stopped:
                return
            self._pid = os.getpid()
        threading.Thread(target=self._start, name="meter-start", daemon=True).start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the start has ended, at most ``timeout_s``; whether the meter can be read."""
        if self._pid is None or self._is_forked():
            return False
        return self._settled.wait(timeout_s) and self._session is not None

    def read(self) -> Reading:
        """Energy of this machine since the meter started. Raises `MeterError`."""
        if self._is_forked():  # before the lock: another thread may have held it in the parent
            raise MeterError("the meter belongs to the process that this one was forked from")
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_S):
            raise MeterError("the meter is busy: an earlier reading has not come back")
        try:
            return self._read(self._running())
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Stop codecarbon and its timer threads. May be repeated, and never raises."""
        if self._is_forked():
            return
        self._stopped = True  # also for a start under way: it then stops what it has started
        if self._lock.acquire(timeout=_LOCK_TIMEOUT_S):
            try:
                self._end()
            finally:
                self._lock.release()

    # --- in the background thread ------------------------------------------------------------

    def _start(self) -> None:
        try:
            from fedserver_hooks.codecarbon_tracker import Session

            session = Session.open(
                country=self._country,
                region=self._region,
                factory=self._factory,
                force_cpu_power=self._force_cpu_power,
                force_ram_power=self._force_ram_power,
            )
        except Exception as error:  # noqa: BLE001  # codecarbon's constructor may raise anything
            with self._lock:
                self._reason = describe(error)
        else:
            with self._lock:
                self._session = session
                self._sensor, self._tracker = session.sensor, session.tracker
                self._cpu_model = session.cpu_model
                if self._stopped:
                    self._end()
        finally:
            self._settled.set()

    # --- under the lock ----------------------------------------------------------------------

    def _running(self) -> Session:
        if self._session is not None:
            return self._session
        if self._stopped:
            raise MeterError(self._reason or "the meter has been stopped")
        if self._pid is None:
            raise MeterError("the meter has not been started")
        if not self._settled.is_set():
            raise MeterStarting("the meter is starting")
        raise MeterError(self._reason or "the meter has been stopped")

    def _read(self, session: Session) -> Reading:
        if self._last is not None and time.monotonic() - self._last_at < self.resolution_s:
            return self._last  # codecarbon would take no sample either, but compute for 0.2 ms
        try:
            reading = self._checked(session.read())
        except Exception as error:  # codecarbon's flush runs drivers and parsers of every kind
            self._reason = describe(error)
            self._failures += 1
            if self._failures >= _FAILURES_UNTIL_STOP:
                self._end()
            raise MeterError(self._reason) from error
        self._failures = 0
        self._last, self._last_at = reading, time.monotonic()
        return reading

    def _checked(self, reading: Reading) -> Reading:
        figures = (reading.energy_kwh, reading.cpu_kwh, reading.gpu_kwh, reading.ram_kwh)
        if not all(value is None or (math.isfinite(value) and value >= 0) for value in figures):
            raise MeterError(f"codecarbon gave an energy of {reading.energy_kwh} kWh")
        if self._last is not None and reading.energy_kwh < self._last.energy_kwh:
            raise MeterError("codecarbon's total went backwards")
        return reading

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with suppress(Exception):
                session.close()

    def _is_forked(self) -> bool:
        return self._pid is not None and self._pid != os.getpid()


class ReplayMeter:
    """Exact figures: constant watts over a clock of the caller's, or a script.

    With ``script`` each reading takes the next entry, and an error in it is raised; the last entry
    is repeated for ever. Otherwise ``watts`` × the time since `start` by ``clock`` (in seconds).
    """

    scope: Scope = "machine"
    tracker: str | None = "replay"

    def __init__(
        self,
        watts: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        script: Iterable[Reading | MeterError] | None = None,
        resolution_s: float = 0.0,
        sensor: Sensor = "constant",
    ) -> None:
        self.resolution_s = resolution_s
        self.sensor = sensor
        self._watts = watts
        self._clock = clock
        self._script: Iterator[Reading | MeterError] | None = (
            None if script is None else iter(script)
        )
        self._last: Reading | MeterError | None = None
        self._started_at: float | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Count from now on."""
        with self._lock:
            if self._started_at is None:
                self._started_at = self._clock()

    def wait_ready(self, timeout_s: float) -> bool:  # noqa: ARG002  # it is never waited for
        """Whether it has been started."""
        return self._started_at is not None

    def read(self) -> Reading:
        """The next entry of the script, or watts × time."""
        with self._lock:
            if self._started_at is None:
                raise MeterError("the meter has not been started")
            if self._script is None:
                elapsed_s = self._clock() - self._started_at
                return Reading(self._watts * elapsed_s / _JOULES_PER_KWH)
            self._last = next(self._script, self._last)
            if isinstance(self._last, Reading):
                return self._last
            raise self._last or MeterError("the script is empty")

    def stop(self) -> None:
        """Nothing runs, so nothing ends."""


class NullMeter:
    """Reads nothing: for a run that does not meter its server."""

    resolution_s: float = math.inf
    sensor: Sensor = "unknown"
    scope: Scope = "unknown"
    tracker: str | None = None

    def start(self) -> None:
        """Nothing to start."""

    def wait_ready(self, timeout_s: float) -> bool:  # noqa: ARG002  # it is never waited for
        """False, at once: it can never be read."""
        return False

    def read(self) -> Reading:
        """Raises `MeterError`."""
        raise MeterError("metering is off")

    def stop(self) -> None:
        """Nothing to stop."""
