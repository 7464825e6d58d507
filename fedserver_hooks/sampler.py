"""Windows of energy on a client: one meter for a process, shared by all calls.

A tracker for each call would cost 8 ms a call and lose what the CPU did between its few samples;
one that keeps running costs 0.1 % of a core.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fedserver_hooks.meter import CodeCarbonMeter, Meter, Reading

START_TIMEOUT_S: Final = 10.0
"""The first call in a process waits for the meter's start: 1.6 to 2.9 s, far longer if broken."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading and when it was taken."""

    reading: Reading
    at: float
    """Seconds of the sampler's clock, which never runs backwards."""
    taken_at: datetime
    """UTC."""


class Sampler:
    """Reads a meter no more often than it can resolve, so that no window is a false zero."""

    def __init__(
        self,
        meter: Meter,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.meter = meter
        self._clock = clock
        self._wait = wait
        self._lock = threading.Lock()
        self._last: Sample | None = None

    def begin(self) -> Sample:
        """Start a window, at the last sample where that is younger than the meter's resolution.

        Starts the meter the first time, and waits for it. Raises `MeterError`.
        """
        self.meter.start()
        self.meter.wait_ready(START_TIMEOUT_S)
        return self._sample()

    def now(self, begun: Sample) -> Sample:
        """The energy so far of a window. Raises `MeterError`.

        A window shorter than the meter's resolution (50 ms) is waited out: its energy would else
        read as zero.
        """
        due_in = begun.at + self.meter.resolution_s - self._clock()
        if due_in > 0:
            self._wait(due_in)
        return self._sample()

    def _sample(self) -> Sample:
        with self._lock:
            last = self._last
            if last is None or self._clock() - last.at >= self.meter.resolution_s:
                last = self._last = Sample(self.meter.read(), self._clock(), datetime.now(UTC))
            return last


_shared: Sampler | None = None
_shared_lock = threading.Lock()


def shared_sampler() -> Sampler:
    """The sampler of this process, made when it is first asked for."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Sampler(CodeCarbonMeter())
        return _shared


def _forget() -> None:
    """In a forked child: codecarbon's threads are not there, and the lock may be held for ever."""
    global _shared, _shared_lock
    _shared, _shared_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
