"""The edge between training and telemetry: a fault of ours is counted there, and our time is noted."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from telemetry.writer import Failures


class Overhead:
    """Seconds of somebody else's time, added up from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """So much more."""
        with self._lock:
            self._seconds += seconds

    @property
    def seconds(self) -> float:
        """All of it so far."""
        with self._lock:
            return self._seconds


class Edge(Protocol):
    """Whoever is called by a training."""

    failures: Failures
    overhead: Overhead


P = ParamSpec("P")
E = TypeVar("E", bound=Edge)
_Method = Callable[Concatenate[E, P], None]


def guarded(method: _Method[E, P]) -> _Method[E, P]:
    """A fault of ours is counted, not raised."""

    @functools.wraps(method)
    def call(self: E, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the edge between training and telemetry
            self.failures.note("hook", f"{method.__name__} failed", error=error)

    return call


def harmless(method: _Method[E, P]) -> _Method[E, P]:
    """The outermost edge between training and telemetry: guarded, and what it takes is noted."""
    inner = guarded(method)

    @functools.wraps(method)
    def call(self: E, /, *args: P.args, **kwargs: P.kwargs) -> None:
        begin = time.perf_counter()
        try:
            inner(self, *args, **kwargs)
        finally:
            self.overhead.add(time.perf_counter() - begin)

    return call
