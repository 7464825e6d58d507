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
        # By hash: looking one up tells nothing by its timing.
        self._held: dict[bytes, tuple[float, str]] = {}

    def open(self, holder: str = "") -> str:
        """The id of a new session of ``holder``, for its cookie."""
        session = token_urlsafe(32)
        now = self._clock()
        with self._lock:
            self._held = {key: held for key, held in self._held.items() if held[0] > now}
            while len(self._held) >= MAX_SESSIONS:
                del self._held[next(iter(self._held))]
            self._held[_key(session)] = now + LIFETIME_S, holder
        return session

    def holds(self, session: str | None) -> bool:
        """Whether that id was given out less than `LIFETIME_S` ago."""
        return self.holder(session) is not None

    def holder(self, session: str | None) -> str | None:
        """Whose session it is; None where it does not hold."""
        if session is None:
            return None
        with self._lock:
            end, holder = self._held.get(_key(session), (0.0, ""))
        return holder if self._clock() < end else None


def _key(session: str) -> bytes:
    return sha256(session.encode()).digest()
