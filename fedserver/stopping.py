"""SIGINT and SIGTERM, as something that can be waited for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """SIGINT and SIGTERM as an event that the training and the linger wait for."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._event = threading.Event()
        self._on_stop: list[Callable[[], None]] = []

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        self._event.set()
        for tell in self._on_stop:
            tell()

    def tell(self, callback: Callable[[], None]) -> None:
        """Call this when a signal arrives; at once if one has."""
        self._on_stop.append(callback)
        if self.is_set:
            callback()

    @property
    def is_set(self) -> bool:
        """Whether a signal has arrived."""
        return self._event.is_set()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for a signal; True if one arrived."""
        return self._event.wait(timeout_s)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + (self.number or 0)

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Handle both signals here, and give them back afterwards."""
        before = {s: signal.signal(s, self) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
