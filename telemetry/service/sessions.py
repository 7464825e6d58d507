"""Who has shown the read token in a browser: random ids in memory, gone with the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from hashlib import sha256
from secrets import token_urlsafe
from typing import Final

COOKIE: Final = "fl_read"
LIFETIME_S: Final = 12 * 3600
MAX_SESSIONS: Final = 1000
"""More than people look at one server; the oldest goes, so that memory stays bounded."""


class Sessions:
    """Opens sessions and knows those that hold. Any thread may call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[bytes, float] = {}  # by hash: looking one up tells nothing by its timing

    def open(self) -> str:
        """The id of a new session, for its cookie."""
        session = token_urlsafe(32)
        now = self._clock()
        with self._lock:
            self._ends = {key: end for key, end in self._ends.items() if end > now}
            while len(self._ends) >= MAX_SESSIONS:
                del self._ends[next(iter(self._ends))]
            self._ends[_key(session)] = now + LIFETIME_S
        return session

    def holds(self, session: str | None) -> bool:
        """Whether that id was given out less than `LIFETIME_S` ago."""
        if session is None:
            return False
        with self._lock:
            end = self._ends.get(_key(session))
        return end is not None and self._clock() < end


def _key(session: str) -> bytes:
    return sha256(session.encode()).digest()
