"""Whether a stream gets a display, and what to say where it cannot have the one that was asked for."""

from __future__ import annotations

import codecs
import logging
from collections.abc import Mapping
from typing import TextIO

from fedserver.progress import can_move
from fedserver.terminal.display import LiveDisplay

logger = logging.getLogger(__name__)


def chosen(
    plain: logging.StreamHandler[TextIO], asked: bool | None, environ: Mapping[str, str]
) -> LiveDisplay | None:
    """The display on the terminal that ``plain`` writes to, or None for plain lines.

    ``asked`` is what the user wants; None takes a display where a person looks: not in CI.
    """
    if asked is False:
        return None
    lacks = _lacks(plain.stream, environ)
    if lacks is None:
        in_ci = environ.get("CI", "").lower() not in ("", "0", "false")
        return LiveDisplay(plain) if asked or not in_ci else None
    if asked:
        logger.warning("plain lines instead of a live display: %s", lacks)
    return None


def _lacks(stream: TextIO, environ: Mapping[str, str]) -> str | None:
    """What a stream cannot do."""
    if not stream.isatty():
        return "the log does not go to a terminal"
    if not can_move(stream, environ):
        return f"the terminal cannot move its cursor (TERM={environ.get('TERM', '')})"
    if codecs.lookup(stream.encoding or "ascii").name != "utf-8":
        return f"the terminal's signs are {stream.encoding}, not UTF-8"
    return None
