"""What a meter is, and what it reads: the vocabulary of `fedserver_hooks.meter`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from telemetry.errors import TelemetryError

if TYPE_CHECKING:
    from telemetry.domain import Scope, Sensor

_REASON_CHARACTERS: Final = 200


class MeterError(TelemetryError):
    """The meter could not be read; ``reason`` is a short plain text."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class MeterStarting(MeterError):
    """The meter has not started yet; a later reading may succeed."""


class MeterHangs(MeterError):
    """A reading has not come back, and nobody waits for it any longer; it may yet."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy in kWh since the meter started; no later reading of the meter is lower.

    A component is None where the meter does not observe it. ``machine_kwh`` is the energy of the
    whole machine that this is a share of; None where it is no share.
    """

    energy_kwh: float
    cpu_kwh: float | None = None
    gpu_kwh: float | None = None
    ram_kwh: float | None = None
    machine_kwh: float | None = None

    def minus(self, earlier: Reading) -> Reading:
        """What was used since an earlier reading of the same meter."""
        return self._with(earlier, lambda mine, other: mine - other)

    def times(self, share: float) -> Reading:
        """A share of this energy."""
        return self._with(self, lambda mine, _: mine * share)

    def plus(self, more: Reading) -> Reading:
        """This energy and more of the same kind."""
        return self._with(more, lambda mine, other: mine + other)

    def of_machine(self, machine_kwh: float) -> Reading:
        """The same energy, as a share of that of a machine."""
        return replace(self, machine_kwh=machine_kwh)

    @classmethod
    def sum(cls, parts: Iterable[Reading]) -> Reading | None:
        """Exact sum of differences; None without any, a component None where any part's is."""
        every = list(parts)
        if not every:
            return None
        return cls(
            math.fsum(part.energy_kwh for part in every),
            _sum_if_all_known(part.cpu_kwh for part in every),
            _sum_if_all_known(part.gpu_kwh for part in every),
            _sum_if_all_known(part.ram_kwh for part in every),
            _sum_if_all_known(part.machine_kwh for part in every),
        )

    def _with(self, other: Reading, combine: Callable[[float, float], float]) -> Reading:
        def known(mine: float | None, its: float | None) -> float | None:
            return None if mine is None or its is None else combine(mine, its)

        return Reading(
            combine(self.energy_kwh, other.energy_kwh),
            known(self.cpu_kwh, other.cpu_kwh),
            known(self.gpu_kwh, other.gpu_kwh),
            known(self.ram_kwh, other.ram_kwh),
            known(self.machine_kwh, other.machine_kwh),
        )


def _sum_if_all_known(values: Iterable[float | None]) -> float | None:
    known: list[float] = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return math.fsum(known)


class Meter(Protocol):
    """Something that counts this machine's energy. Every method may be called from any thread."""

    @property
    def resolution_s(self) -> float:
        """Readings closer together than this carry no new energy."""

    @property
    def sensor(self) -> Sensor:
        """What the figures come from; ``unknown`` before the meter has started."""

    @property
    def scope(self) -> Scope:
        """What the figures are of."""

    @property
    def tracker(self) -> str | None:
        """Name and version of the software that measures, e.g. ``codecarbon 3.3.2``."""

    def start(self) -> None:
        """Begin to start, in the background; returns at once, and never raises."""

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the start has ended, at most ``timeout_s``; whether the meter can be read."""

    def read(self) -> Reading:
        """Energy since the meter started. Raises `MeterError` (`MeterStarting` while it starts)."""

    def stop(self) -> None:
        """End every thread of the meter. May be repeated, and never raises."""


def describe(error: BaseException) -> str:
    """An exception as one short plain text."""
    if isinstance(error, MeterError):
        return error.reason
    return f"{type(error).__name__}: {error}"[:_REASON_CHARACTERS].rstrip(": ")
