"""A bar for work that takes its time: on stderr, only where that is a terminal, gone when it is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from telemetry.progress import Tell, nobody

PATIENCE_S: Final = 0.4
"""What takes no longer than this shows no bar."""
_NO_CURSOR: Final = frozenset({"", "dumb", "unknown"})


@contextmanager
def progress(what: str, of: int | None = None, unit: str = "") -> Iterator[Tell]:
    """Whom to tell how much of ``of`` (None: unknown) is done; ``what`` is said before the bar.

    Nothing is shown where stderr is no terminal.
    """
    if not can_move(sys.stderr, os.environ):
        yield nobody
        return
    bar = _Bar(what, of, unit)
    try:
        yield bar.tell
    finally:
        bar.end()


def can_move(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and environ.get("TERM", "").lower() not in _NO_CURSOR


class _Bar:
    """Appears with the first word after `PATIENCE_S`."""

    def __init__(self, what: str, of: int | None, unit: str) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task(what, total=of)
        self._shown_from = time.monotonic() + PATIENCE_S

    def tell(self, done: int, of: int | None = None, what: str | None = None) -> None:
        """See `Tell`."""
        if what is not None:
            self._bar.reset(self._task, description=what, total=of)
        elif of is not None:
            self._bar.update(self._task, total=of)
        self._bar.update(self._task, completed=done)
        if not self._bar.live.is_started and time.monotonic() >= self._shown_from:
            self._bar.start()

    def end(self) -> None:
        """Take it off the terminal."""
        if self._bar.live.is_started:
            self._bar.stop()
