"""One log format for the server, Flower and ours alike."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

from telemetry.printable import printable

_FORMAT: Final = "%(asctime)s %(levelname)-7s %(message)s"
_QUIET: Final = ("flwr", "grpc", "uvicorn", "codecarbon", "alembic", "httpx", "httpcore")
"""Loggers whose everyday lines would bury ours; their warnings are kept."""


class OneLine(logging.Formatter):
    """A message is one line, whatever names are in it: none ends the line or commands a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Line ends as spaces, other controls visible."""
        return " ".join(printable(line) for line in super().formatMessage(record).splitlines())


def set_up_logging(
    stream: TextIO | None = None, level: int = logging.INFO
) -> logging.StreamHandler[TextIO]:
    """Log to ``stream`` (stderr), once a line, with the local time; the handler that does."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(OneLine(_FORMAT, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler
