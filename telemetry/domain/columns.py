"""Records of one kind, field by field: the values of ten thousand are handled in a few calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from telemetry.domain.once import once
from telemetry.domain.parts import Lap, ParticipantRecord, ReportRecord
from telemetry.domain.times import utc_texts


class Columns:
    """Records of one of the `KINDS` as one list of values for each of their fields, in the fields' order."""

    def __init__(self, kind: type[Any], records: Sequence[Any]) -> None:
        getters, self._times = _FIELDS[kind]
        self.length = len(records)
        self.values: Sequence[Sequence[Any]] = [list(map(get, records)) for get in getters]
        """As they are in the records."""

    @once
    def written(self) -> Sequence[Sequence[Any]]:
        """With times as text (`utc_text`)."""
        written = list(self.values)
        for at in self._times:
            written[at] = utc_texts(self.values[at])
        return written


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
