"""What a delivery passes by, so that it holds up nothing else, and for how long.

What the service refuses (4xx) it would refuse again: passed by until another process tries. What it
stumbles over (500, again and again, while it takes other things) is tried again after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from math import inf
from typing import Final

STUMBLES: Final = 5
"""So often in a row the service fails at the same before somebody asks whether it is that alone."""
ASIDE_S: Final = 600.0
"""How long what it fails at is left alone."""


class Aside:
    """Names of what is passed by: a run's id, or a run's id with a round's key."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[Hashable, float] = {}

    def put(self, name: Hashable, seconds: float = inf) -> None:
        """Pass this by for so long."""
        self._until[name] = self._clock() + seconds

    def holds(self, name: Hashable) -> bool:
        """Whether it is to be passed by now."""
        return self._clock() < self._until.get(name, -inf)


class Stumbles:
    """Counts how often in a row the service failed at something of a run."""

    def __init__(self) -> None:
        self._exchanges = 0
        self._counts: dict[str, tuple[int, int]] = {}

    def went_well(self, run_id: str) -> None:
        """An exchange about the run succeeded."""
        self._exchanges += 1
        self._counts.pop(run_id, None)

    def count(self, run_id: str) -> int:
        """How often in a row it failed so far."""
        return self._counts.get(run_id, (0, 0))[0]

    def stumbled(self, run_id: str) -> int:
        """It failed once more: how often now."""
        count, since = self._counts.get(run_id, (0, self._exchanges))
        self._counts[run_id] = count + 1, since
        return count + 1

    def others_went_well(self, run_id: str) -> bool:
        """Whether exchanges about other runs succeeded since it first failed at this one."""
        return self._exchanges > self._counts.get(run_id, (0, self._exchanges))[1]
