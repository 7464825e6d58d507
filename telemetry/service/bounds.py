"""What the records allow and no database could keep: NUL, far years, numbers beyond all measure.

Records take any size; a service's database does not, and a sum of such numbers would be infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar, Final, get_args, get_origin, get_type_hints

from pydantic import AwareDatetime, BaseModel

from telemetry.domain import RoundRecord
from telemetry.errors import TelemetryError

MAX_TEXT: Final = 256
MAX_WHOLE: Final = 2**53 - 1
"""The greatest whole number that every JSON reader takes for what it is (RFC 7493)."""
MAX_NUMBER: Final = 2**31 - 1
"""Of what counts rounds and years: the database keeps them in 32 bits."""
MAX_AMOUNT: Final = 1e90
"""Of energies, emissions, seconds and factors: no sum or product of such numbers is infinite."""
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9000
ESCAPED_NUL: Final = rb"\u0000"
"""The one spelling of a NUL in JSON; a harmless text may hold it, too."""

# Numbers that the database would keep in 32 bits.
_NUMBERS: Final = frozenset(
    {
        "round",
        "reported_round",
        "attempt",
        "revision",
        "sequence",
        "rounds_planned",
        "intensity_year",
    }
)
# Floats of any size that nothing adds up, and mappings whose names are checked on their own.
_FREE: Final = frozenset({"train_metrics", "evaluate_metrics", "privacy_epsilon", "software"})


_Getter = Callable[[object], tuple[Any, ...]]


class BadBody(TelemetryError, ValueError):
    """A body that cannot be taken: the ``member`` (a path such as ``rounds.0.reports.3.phase``) and why."""

    def __init__(self, member: str, problem: str, *, status: int = 422) -> None:
        self.member = member
        self.problem = problem
        self.status = status
        super().__init__(f"{member}: {problem}" if member else problem)


def member_of(where: str, name: str) -> str:
    """The path of a member."""
    return f"{where}.{name}" if where else name


def check(value: Any, where: str) -> None:
    """Walk through a record and all that is in it. Raises `BadBody`."""
    for name, item in _members(value):
        kind = type(item)
        if kind is str:
            if "\0" in item:
                raise BadBody(member_of(where, name), "holds a NUL character")
        elif kind is float:
            if item > MAX_AMOUNT:
                raise BadBody(member_of(where, name), f"is greater than {MAX_AMOUNT:g}")
        elif kind is int:
            most = MAX_NUMBER if name in _NUMBERS else MAX_WHOLE
            if not -most <= item <= most:
                raise BadBody(member_of(where, name), f"is greater than {most}")
        elif isinstance(item, datetime):
            if not FIRST_YEAR <= item.year <= LAST_YEAR:
                raise BadBody(
                    member_of(where, name), f"is not between the years {FIRST_YEAR} and {LAST_YEAR}"
                )
        elif kind is tuple or is_dataclass(item):
            check(item, member_of(where, name))


def check_round(record: RoundRecord, where: str, *, escaped_nul: bool) -> None:
    """`check`, in a tenth of the time for a round in which nothing is out of the ordinary.

    ``escaped_nul`` says that the round's JSON holds an `ESCAPED_NUL`.
    """
    parts = record.participants, record.reports, record.laps, (record.factors,), (record,)
    if escaped_nul or not all(map(_ordinary, parts)):
        check(record, where)


def _ordinary(rows: Sequence[Any]) -> bool:
    """Whether in records of one kind no number is beyond the least of the bounds, and no year."""
    if not rows:
        return True
    kind = type(rows[0])
    numbers, times = _COLUMNS.get(kind) or _COLUMNS.setdefault(kind, _columns_of(kind))
    known = list(filter(None, chain.from_iterable(map(numbers, rows))))
    if known and not -MAX_NUMBER <= min(known) <= max(known) <= MAX_NUMBER:
        return False
    years = [time.year for time in chain.from_iterable(map(times, rows)) if time is not None]
    return not years or FIRST_YEAR <= min(years) <= max(years) <= LAST_YEAR


def _columns_of(kind: type[Any]) -> tuple[_Getter, _Getter]:
    """What gives the numbers of a record, and what gives its times."""
    numbers, times = [], []
    for name, hint in get_type_hints(kind).items():
        types = {*get_args(hint), hint}  # of an optional one, too
        if name in _FREE or get_origin(hint) in (ClassVar, tuple, dict):
            continue
        if types & {int, float}:
            numbers.append(name)
        elif types & {datetime, AwareDatetime}:
            times.append(name)
    return _getter(numbers), _getter(times)


_COLUMNS: Final[dict[type[Any], tuple[_Getter, _Getter]]] = {}


def _getter(names: Sequence[str]) -> _Getter:
    if len(names) < 2:  # of one alone, attrgetter gives no tuple
        return lambda record: tuple(getattr(record, name) for name in names)
    return attrgetter(*names)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple):
        return ((str(place), item) for place, item in enumerate(value))
    if isinstance(value, BaseModel):
        return ((name, item) for name, item in value if name not in _FREE)
    return ((item.name, getattr(value, item.name)) for item in fields(value))
