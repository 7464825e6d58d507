"""Canonical JSON and digests: by which a figure can be shown to be the one that was recorded.

Canonical JSON here: UTF-8, no white space, members sorted by name, numbers in the shortest form that
reads back as the same double (Python's ``repr``), times as ISO 8601 UTC with microseconds and ``Z``,
tuples as arrays. NaN and infinities do not occur. Digests are SHA-256 (FIPS 180-4), lower-case hex.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from hashlib import sha256
from operator import attrgetter
from typing import Any, Final

from pydantic import BaseModel

from telemetry.domain.parts import Lap, ParticipantRecord, ReportRecord
from telemetry.domain.times import utc_text
from telemetry.domain.vocabulary import field_names


def canonical_json(value: Any) -> bytes:
    """A record, or anything made of records, mappings, sequences and plain values, as bytes."""
    return _encode(value).encode()


def sha256_of(value: Any) -> str:
    """Digest of the canonical JSON of ``value``."""
    return sha256(canonical_json(value)).hexdigest()


def rows_sha256(
    participants: Iterable[ParticipantRecord],
    reports: Iterable[ReportRecord],
    laps: Iterable[Lap],
) -> str:
    """Digest of the rows that a round's figures are made from.

    Of ``{"laps": …, "participants": …, "reports": …}``, each a list of rows, each row a list of the
    record's fields in their order: a tenth of the bytes that objects would take.
    """
    return sha256_of(
        {
            "laps": list(map(_get_lap, laps)),
            "participants": _times_written(map(_get_participant, participants), _TIMES_OF_PART),
            "reports": _times_written(map(_get_report, reports), _TIMES_OF_REPORT),
        }
    )


_get_lap = attrgetter(*field_names(Lap))
_get_participant = attrgetter(*field_names(ParticipantRecord))
_get_report = attrgetter(*field_names(ReportRecord))
_TIMES_OF_PART: Final = tuple(map(field_names(ParticipantRecord).index, ("sent_at", "replied_at")))
_TIMES_OF_REPORT: Final = tuple(map(field_names(ReportRecord).index, ("started_at", "ended_at")))


def _times_written(rows: Iterable[tuple[Any, ...]], times: tuple[int, int]) -> list[list[Any]]:
    """The rows with these two times as text: to be asked back for each takes the encoder longer."""
    began, ended = times
    written = []
    for values in rows:
        row = list(values)
        row[began] = utc_text(row[began])
        row[ended] = utc_text(row[ended])
        written.append(row)
    return written


def _plain(value: Any) -> Any:
    """What JSON has no word for, as something it has."""
    if isinstance(value, datetime):
        return utc_text(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    raise TypeError(f"{type(value).__name__} has no canonical form")


_encode: Final = json.JSONEncoder(
    default=_plain,
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,  # no record holds one that holds it
    sort_keys=True,
    separators=(",", ":"),
).encode
