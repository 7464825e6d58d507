"""How a time is written wherever it is text: in digests, in SQLite, in exports.

ISO 8601 in UTC, always with microseconds and ``Z``, such as ``2026-01-31T09:30:00.000000Z``: 27
characters (years have four digits), so that such texts sort in the order of time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, overload

UTC_TEXT_LENGTH: Final = len("2026-01-31T09:30:00.000000Z")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400
_TO_SECONDS: Final = len("2026-01-31T09:30:00")
_MAX_KNOWN: Final = 4096

_known: dict[int, str] = {}
"""Seconds since 1970 → all before the microseconds. The ten thousand times of a round lie within
minutes, and writing one out takes three times as long as to look its second up."""


@overload
def utc_text(value: datetime) -> str: ...
@overload
def utc_text(value: None) -> None: ...
@overload
def utc_text(value: datetime | None) -> str | None: ...
def utc_text(value: datetime | None) -> str | None:
    """An aware time, of whatever zone, as text; None stays None.

    Raises TypeError for a time without a zone: nobody knows when it was.
    """
    if value is None:
        return None
    since = value - _EPOCH
    second = since.days * _DAY_S + since.seconds
    return f"{_known.get(second) or _written(second)}{since.microseconds:06d}Z"


def _written(second: int) -> str:
    text = (_EPOCH + timedelta(seconds=second)).isoformat()[:_TO_SECONDS] + "."
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    _known[second] = text
    return text
