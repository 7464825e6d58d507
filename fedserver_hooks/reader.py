"""Who reads the meter, and when: the threads that have something to do never call it themselves.

A meter may hang inside one reading (a GPU driver does), so its readings have a thread of their own.
Where it hangs, that thread is the only one that does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

HANG_S: Final = 1.25
"""A reading that has not come back after so long hangs. Longer than any that works takes, short
enough for a run to end within two seconds all the same."""
STOP_S: Final = 0.5
"""The longest that the end of a run waits for the meter to stop."""


class Reader(Protocol):
    """Has readings taken. Every method may be called from any thread."""

    def wake(self) -> None:
        """Have a reading taken soon; never waits for it."""

    def wait(self, timeout_s: float) -> bool:
        """Have a reading taken that begins from now on, and wait for it; False where one hangs."""

    def close(self, last: Callable[[], None], timeout_s: float = STOP_S) -> bool:
        """Do ``last`` after the last reading, wait for it for so long; whether it is done."""


class ThreadReader:
    """Reads in a daemon thread, which starts with the first reading.

    ``read`` raises nothing. However often it is asked for a reading while one is under way, one more
    follows. One that has been under way for ``hang_s`` is not waited for.
    """

    def __init__(self, read: Callable[[], None], hang_s: float = HANG_S) -> None:
        self._read = read
        self._hang_s = hang_s
        self._changed = threading.Condition(threading.Lock())
        self._asked = 0
        self._taken = 0
        self._busy_since: float | None = None
        self._last: Callable[[], None] | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have a reading taken soon: microseconds, whatever the meter does."""
        with self._changed:
            self._ask()

    def wait(self, timeout_s: float) -> bool:
        """Have a reading taken, and wait for it; False at once where one has hung for so long."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            ticket = self._ask()
            while self._taken < ticket and not self._done.is_set():
                since = self._busy_since
                until = deadline if since is None else min(deadline, since + self._hang_s)
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            return self._taken >= ticket

    def close(self, last: Callable[[], None], timeout_s: float = STOP_S) -> bool:
        """Do ``last`` in the thread, after a reading that hangs too; not waited for then."""
        with self._changed:
            self._last = last
            self._begin()
            self._changed.notify_all()
            since = self._busy_since
        if since is not None and time.monotonic() - since >= self._hang_s:
            timeout_s = 0.0
        return self._done.wait(timeout_s)

    # --- under the lock --------------------------------------------------------------------

    def _ask(self) -> int:
        self._asked += 1
        self._begin()
        if self._busy_since is None:
            self._changed.notify_all()
        return self._asked

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="meter-reader", daemon=True)
            self._thread.start()

    # --- the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._asked == self._taken and self._last is None:
                    self._changed.wait()
                ticket = self._asked
                if ticket == self._taken:
                    break
                self._busy_since = time.monotonic()
            self._read()
            with self._changed:
                self._taken, self._busy_since = ticket, None
                self._changed.notify_all()
        assert self._last is not None
        try:
            self._last()
        finally:
            self._done.set()
            with self._changed:
                self._changed.notify_all()


class InlineReader:
    """Reads in the caller's thread: for meters that cannot hang and clocks that are turned by hand."""

    def __init__(self, read: Callable[[], None], hang_s: float = HANG_S) -> None:  # noqa: ARG002
        self._read = read

    def wake(self) -> None:
        """Read now."""
        self._read()

    def wait(self, timeout_s: float) -> bool:  # noqa: ARG002  # it is never waited for
        """Read now."""
        self._read()
        return True

    def close(self, last: Callable[[], None], timeout_s: float = STOP_S) -> bool:  # noqa: ARG002
        """Do ``last`` now."""
        last()
        return True
