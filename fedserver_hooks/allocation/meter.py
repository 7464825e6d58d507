"""A meter of our share of a machine, made of a meter of the whole."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fedserver_hooks.allocation.cpu import (
    CpuModel,
    IdlePower,
    Interval,
    measured_kwh,
    modelled_kwh,
)
from fedserver_hooks.allocation.shares import Shares, Use
from fedserver_hooks.readings import Meter, MeterError, Reading, describe

if TYPE_CHECKING:
    from telemetry.domain import Scope, Sensor

_LOCK_TIMEOUT_S: Final = 1.0
_UNPLACED: Final = 1e-6
"""Components may differ from their total by this much of it: floating-point sums."""


class MachineMeter(Meter, Protocol):
    """A meter of the whole machine that tells its components apart."""

    @property
    def cpu_model(self) -> CpuModel | None:
        """How the CPU's power is modelled; None where a sensor is read, and before the start."""


@dataclass(frozen=True, slots=True)
class _Instant:
    """Everything that was read at one instant, all of it counted from some beginning."""

    at: float
    machine: Reading
    use: Use


class AllocatedMeter:
    """Our share of what a machine's meter shows, added up from reading to reading.

    CPU energy by the rules of `fedserver_hooks.allocation.cpu`, RAM energy by our share of the
    memory, GPU energy whole (of the devices that we see). ``Reading.machine_kwh`` is what the share
    is of. What cannot be attributed is a `MeterError`; the next good reading makes it good. Counts
    from its first reading; ``clock`` is in seconds.
    """

    def __init__(
        self,
        meter: MachineMeter,
        shares: Shares,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meter = meter
        self._shares = shares
        self._clock = clock
        self._lock = threading.Lock()
        self._idle = IdlePower()
        self._last: _Instant | None = None
        self._total: Reading | None = None

    @property
    def resolution_s(self) -> float:
        """The machine's meter's."""
        return self._meter.resolution_s

    @property
    def sensor(self) -> Sensor:
        """The machine's meter's: a share of it is measured or modelled as it is."""
        return self._meter.sensor

    @property
    def scope(self) -> Scope:
        """What the share is."""
        return self._shares.scope

    @property
    def tracker(self) -> str | None:
        """The machine's meter's."""
        return self._meter.tracker

    def start(self) -> None:
        """Start the machine's meter."""
        self._meter.start()

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the machine's meter."""
        return self._meter.wait_ready(timeout_s)

    def stop(self) -> None:
        """Stop the machine's meter."""
        self._meter.stop()

    def read(self) -> Reading:
        """Our energy since the first reading. Raises `MeterError`."""
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT_S):
            raise MeterError("the meter is busy: an earlier reading has not come back")
        try:
            return self._read()
        finally:
            self._lock.release()

    # --- under the lock ----------------------------------------------------------------------

    def _read(self) -> Reading:
        machine = self._meter.read()
        last, total = self._last, self._total
        if last is not None and total is not None and machine == last.machine:
            return total  # too soon for the machine's meter: nothing to share out yet
        _must_be_whole(machine)
        try:
            use = self._shares.look()
        except (OSError, ValueError, IndexError) as error:
            raise MeterError(f"our share of the machine: {describe(error)}") from error
        now = _Instant(self._clock(), machine, use)
        if last is None or total is None:
            total = machine.times(0.0).of_machine(0.0)
        else:
            total = total.plus(self._share(last, now))
        self._last, self._total = now, total
        return total

    def _share(self, last: _Instant, now: _Instant) -> Reading:
        """Our part of what the machine used between two instants."""
        used = now.machine.minus(last.machine)
        interval = Interval(
            wall_s=now.at - last.at,
            energy_kwh=used.cpu_kwh or 0.0,
            own_s=now.use.own_cpu_s - last.use.own_cpu_s,
            busy_s=now.use.busy_cpu_s - last.use.busy_cpu_s,
            cpus=self._shares.cpus,
            allotted_cpus=self._shares.allotted_cpus,
        )
        if min(interval.own_s, interval.busy_s) < 0 or interval.wall_s <= 0:
            raise MeterError("our share of the machine: CPU time went backwards")
        parts = (used.cpu_kwh, used.gpu_kwh, used.ram_kwh)
        if min((part for part in parts if part is not None), default=0.0) < 0:
            raise MeterError("the machine's energy went backwards")
        cpu = None if used.cpu_kwh is None else self._cpu_kwh(interval)
        ram = None if used.ram_kwh is None else used.ram_kwh * now.use.memory_share
        energy = math.fsum(part for part in (cpu, used.gpu_kwh, ram) if part is not None)
        return Reading(energy, cpu, used.gpu_kwh, ram, machine_kwh=used.energy_kwh)

    def _cpu_kwh(self, interval: Interval) -> float:
        model = self._meter.cpu_model
        if model is not None:
            return modelled_kwh(interval, model)
        self._idle.learn(interval)
        return measured_kwh(interval, self._idle.kw)


def _must_be_whole(machine: Reading) -> None:
    """Energy of no known component cannot be attributed; to leave it out would make it zero."""
    parts = (machine.cpu_kwh, machine.gpu_kwh, machine.ram_kwh)
    known = math.fsum(part for part in parts if part is not None)
    if machine.energy_kwh - known > _UNPLACED * machine.energy_kwh:
        raise MeterError(
            "our share of the machine: some of its energy is neither CPU's, RAM's nor GPU's"
        )
