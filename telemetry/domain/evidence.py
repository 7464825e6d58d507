"""Canonical JSON and digests: by which a figure can be shown to be the one that was recorded.

Canonical JSON here: UTF-8, no white space, members sorted by name, numbers in the shortest form that
reads back as the same double (Python's ``repr``), times as ISO 8601 UTC with microseconds and ``Z``,
tuples as arrays. NaN and infinities do not occur. Digests are SHA-256 (FIPS 180-4), lower-case hex.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel

from telemetry.domain.columns import Columns
from telemetry.domain.parts import Lap, ParticipantRecord, ReportRecord
from telemetry.domain.times import utc_text


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
    """`columns_sha256` of rows."""
    return columns_sha256(
        Columns(ParticipantRecord, tuple(participants)),
        Columns(ReportRecord, tuple(reports)),
        Columns(Lap, tuple(laps)),
    )


def columns_sha256(
    participants: Columns,
    reports: Columns,
    laps: Columns,
    give_way: Callable[[], object] = lambda: None,
) -> str:
    """Digest of the rows that a round's figures are made from.

    Of the canonical JSON of ``{"laps": …, "participants": …, "reports": …}``, each a list of rows, each
    row a list of the record's fields in their order: a tenth of the bytes that objects would take.
    ``give_way`` is called now and then while that of many rows is made.
    """
    parts = (("laps", laps), ("participants", participants), ("reports", reports))
    if sum(part.length for _, part in parts) <= ROWS_AT_ONCE:
        return sha256_of({name: list(zip(*part.written, strict=True)) for name, part in parts})
    digest = sha256()
    opening = "{"
    for name, part in parts:
        digest.update(f'{opening}"{name}":['.encode())
        rows = zip(*part.written, strict=True)
        between = ""
        while some := list(islice(rows, ROWS_AT_ONCE)):
            digest.update(f"{between}{_encode(some)[1:-1]}".encode())
            between = ","
            give_way()
        opening = "],"
    digest.update(b"]}")
    return digest.hexdigest()


ROWS_AT_ONCE: Final = 200
"""Of a large round, so that never all of its rows are in memory once more, as text."""


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
