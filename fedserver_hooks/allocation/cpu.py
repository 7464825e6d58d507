"""How much of the machine's CPU energy is ours: pure rules, and what a sensor teaches of idling.

What the neighbours on the machine do must not move the figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_JOULES_PER_KWH: Final = 3.6e6
_SECONDS_PER_HOUR: Final = 3600
_ENOUGH_INTERVALS: Final = 3
_ENOUGH_SPREAD_CPUS: Final = 0.1
"""Below this standard deviation of busy CPUs, readings do not tell idle from busy."""

CpuModel = Callable[[float], float]
"""Power in W of all the machine's CPUs by their load (0 to 1), where it is a model's."""


@dataclass(frozen=True, slots=True)
class Interval:
    """The machine's CPU energy between two readings, and who worked: seconds of CPU time."""

    wall_s: float
    energy_kwh: float
    own_s: float
    busy_s: float
    cpus: int
    allotted_cpus: float | None

    @property
    def load(self) -> float:
        """The machine's load, 0 to 1, as if only we had worked."""
        return min(1.0, self.own_s / (self.cpus * self.wall_s))

    @property
    def size(self) -> float:
        """What of the machine stood ready for us, 0 to 1: the allotment, else what was used."""
        return self.load if self.allotted_cpus is None else self.allotted_cpus / self.cpus


def modelled_kwh(interval: Interval, model: CpuModel) -> float:
    """Our part of a modelled energy: the model for a machine of the size of our allotment.

    Never more than the model says of the whole machine with our load alone, and never more than it
    said of the machine. The neighbours' load is in neither, so they cannot move the figure.
    """
    size, load = interval.size, interval.load
    if size <= 0:
        return 0.0
    power_w = min(size * model(min(1.0, load / size)), model(load))
    return min(interval.energy_kwh, power_w * interval.wall_s / _JOULES_PER_KWH)


def measured_kwh(interval: Interval, idle_kw: float | None) -> float:
    """Our part of a measured energy: the idle part by size, the rest by CPU time.

    While the idle power is not known, each CPU second counts the same, whether somebody worked in it
    or not: those worked go to who worked, those idle by size.
    """
    possible_s = interval.cpus * interval.wall_s
    busy_s = min(possible_s, max(interval.busy_s, interval.own_s))
    if busy_s <= 0:  # nobody worked: all of it is idle
        return interval.energy_kwh * interval.size
    if idle_kw is None:
        idle_kwh = interval.energy_kwh * (1 - busy_s / possible_s)
    else:
        idle_kwh = min(interval.energy_kwh, idle_kw * interval.wall_s / _SECONDS_PER_HOUR)
    worked = min(1.0, interval.own_s / busy_s)
    return idle_kwh * interval.size + (interval.energy_kwh - idle_kwh) * worked


class IdlePower:
    """A machine's power with nothing to do, as a sensor's own readings show it.

    A straight line through all readings (power against busy CPUs), each with the weight of its
    duration; where it meets no busy CPU is the idle power. Never below 0, nor above the least power
    that was read.
    """

    def __init__(self) -> None:
        self._count = 0
        self._wall_s = self._busy_s = self._energy = self._busy2 = self._busy_energy = 0.0
        self._least_kw = math.inf

    def learn(self, interval: Interval) -> None:
        """Take a reading in."""
        energy_kws = interval.energy_kwh * _SECONDS_PER_HOUR
        self._count += 1
        self._wall_s += interval.wall_s
        self._busy_s += interval.busy_s
        self._energy += energy_kws
        self._busy2 += interval.busy_s**2 / interval.wall_s
        self._busy_energy += interval.busy_s * energy_kws / interval.wall_s
        self._least_kw = min(self._least_kw, energy_kws / interval.wall_s)

    @property
    def kw(self) -> float | None:
        """The idle power, kW; None while the readings do not tell it from the rest."""
        if self._count < _ENOUGH_INTERVALS:
            return None
        mean = self._busy_s / self._wall_s
        variance = self._busy2 / self._wall_s - mean**2
        if variance < _ENOUGH_SPREAD_CPUS**2:
            return None
        mean_kw = self._energy / self._wall_s
        slope = (self._busy_energy / self._wall_s - mean * mean_kw) / variance
        return min(max(0.0, mean_kw - slope * mean), self._least_kw)
