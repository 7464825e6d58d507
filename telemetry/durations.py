"""How long something took, counted in buckets: light enough for every request and every write."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets in seconds; what took longer is in one more."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Observations in buckets: ``counts`` has one more than ``bounds``, for what lies above."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Durations:
    """Counts durations; from any thread."""

    def __init__(self, bounds_s: Sequence[float] = BOUNDS_S) -> None:
        self._bounds = tuple(bounds_s)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum_s = 0.0
        self._lock = threading.Lock()

    def observe(self, duration_s: float) -> None:
        """Count one; seconds."""
        bucket = bisect_left(self._bounds, duration_s)
        with self._lock:
            self._counts[bucket] += 1
            self._sum_s += duration_s

    @property
    def so_far(self) -> Distribution:
        """All that was counted up to now."""
        with self._lock:
            return Distribution(self._bounds, tuple(self._counts), self._sum_s)
