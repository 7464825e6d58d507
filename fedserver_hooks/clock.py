"""The time, in epoch seconds, that never runs backwards."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Epoch seconds; a later call never gives an earlier time."""


class SystemClock:
    """Wall-clock time of its creation plus what a monotonic clock counted since.

    A clock that is set back during a run would else make a round last a negative time, and the sum
    of the rounds differ from the run.
    """

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self._offset_s + time.monotonic()
