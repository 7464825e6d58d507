"""Records of one kind, field by field: the values of ten thousand are handled in a few calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final

from telemetry.domain.parts import Lap, ParticipantRecord, ReportRecord
from telemetry.domain.times import utc_texts


@dataclass(frozen=True, slots=True)
class Columns:
    """Records as one sequence of values for each of their fields, in the fields' order."""

    length: int
    values: Sequence[Sequence[Any]]
    """As they are in the records."""
    written: Sequence[Sequence[Any]]
    """With times as text (`utc_text`)."""

    @classmethod
    def of(cls, kind: type[Any], records: Sequence[Any]) -> Columns:
        """The columns of records of a `KINDS`."""
        getters, times = _FIELDS[kind]
        values = [list(map(get, records)) for get in getters]
        written = values.copy()
        for at in times:
            written[at] = utc_texts(values[at])
        return cls(len(records), values, written)


KINDS: Final = (ParticipantRecord, ReportRecord, Lap)
_FIELDS: Final[dict[type[Any], tuple[tuple[Any, ...], tuple[int, ...]]]] = {
    kind: (
        tuple(attrgetter(item.name) for item in fields(kind)),
        # Of a field its type is text here: annotations are not worked out when they are read.
        tuple(at for at, item in enumerate(fields(kind)) if "AwareDatetime" in str(item.type)),
    )
    for kind in KINDS
}
"""What takes each field from a record, and which of them are times."""
