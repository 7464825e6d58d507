"""Takes the log's lines while a display owns the terminal, and gives the log back afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the log as it would be written, and what it says."""

    text: str
    message: str
    level: int


class LogTap(logging.Handler):
    """Stands in for the handler that writes to the terminal.

    Lines go to ``put`` until `give_back`, from then on to that handler, whoever still holds this one.
    """

    def __init__(
        self, plain: logging.StreamHandler[TextIO], put: Callable[[LogLine], None]
    ) -> None:
        super().__init__(plain.level)
        self.setFormatter(plain.formatter)
        self._plain = plain
        self._put: Callable[[LogLine], None] | None = put

    def take_over(self) -> None:
        """From now on."""
        handlers = logging.getLogger().handlers
        handlers[:] = [self if handler is self._plain else handler for handler in handlers]

    def give_back(self, left: Callable[[], list[LogLine]]) -> None:
        """From now on the plain handler writes; first what is ``left``, so that no line is lost."""
        self.acquire()
        try:
            if self._put is None:
                return
            self._put = None
            handlers = logging.getLogger().handlers
            handlers[:] = [self._plain if handler is self else handler for handler in handlers]
            for line in left():
                self._write(line)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Formatted here and now: what a record refers to may change."""
        if self._put is None:
            self._plain.handle(record)
            return
        try:
            self._put(LogLine(self.format(record), record.getMessage(), record.levelno))
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)

    def say(self, text: str) -> None:
        """A line that is no line of the log, in the order of those."""
        line = LogLine(text, text, logging.INFO)
        self.acquire()
        try:
            (self._write if self._put is None else self._put)(line)
        finally:
            self.release()

    def _write(self, line: LogLine) -> None:
        try:
            self._plain.stream.write(line.text + self._plain.terminator)
            self._plain.flush()
        except (OSError, ValueError):  # the terminal is gone, and with it whoever would read this
            return
