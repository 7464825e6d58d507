"""What is said to the service over HTTP: the bodies that a sender writes and the service takes.

One place for both sides. A body is JSON in UTF-8 and strict: unknown members, numbers in quotes, NaN
and text with NUL characters are refused as a `BadBody` that names the member. A body holds records,
never sums: the service computes those from the rows (`RoundRecord`'s properties), whoever sent them.

``PUT /api/v1/runs/{run_id}``          `RunBody`
``POST /api/v1/runs/{run_id}/rounds``  `RoundsBody`, answered by `Received`
``POST /api/v1/runs/{run_id}/finish``  `FinishBody`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from re import compile as pattern
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from telemetry.domain import Count, Record, RoundRecord, RunInfo, RunStatus, ShortText
from telemetry.errors import TelemetryError
from telemetry.store import rules

SCHEMA: Final = 1
MAX_ROUNDS: Final = 100
"""Rounds in one `RoundsBody`."""
MAX_ROUNDS_BYTES: Final = 16 * 1024 * 1024
MAX_SMALL_BYTES: Final = 256 * 1024
"""Of a `RunBody` and a `FinishBody`."""

MAX_NAMES: Final = 128
"""Training metrics of one split, and entries of `RunInfo.software`."""
MAX_TEXT: Final = 256
MAX_WHOLE: Final = 2**53 - 1
"""The greatest whole number that every JSON reader takes for what it is (RFC 7493)."""
MAX_NUMBER: Final = 2**31 - 1
"""Of what counts rounds and years: the database keeps them in 32 bits."""
MAX_AMOUNT: Final = 1e90
"""Of energies, emissions, seconds and factors: no sum or product of such numbers is infinite."""
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9000

Ended = Literal["completed", "failed", "interrupted", "stopped_on_budget"]


class RunBody(Record):
    """A run's facts. The same ones again are a no-op; others are a conflict."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    run: RunInfo


class RoundsBody(Record):
    """Rounds of one run, stored all or not at all; what is stored already is a no-op."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    rounds: Annotated[tuple[RoundRecord, ...], Field(min_length=1, max_length=MAX_ROUNDS)]


class FinishBody(Record):
    """The end of a run."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = SCHEMA
    status: Ended
    ended_at: AwareDatetime
    reason: ShortText | None = None
    late_reports: Count = 0
    """Reports of the whole run that came when no round was open, and so are in no round. A total,
    not what is new: saying it twice changes nothing."""


class Received(Record):
    """The answer to `RoundsBody`: what is in it is durable."""

    received: Count
    stored: Count
    """Rounds that were news; the others were stored before, or out of date."""


class BadBody(TelemetryError, ValueError):
    """A body that cannot be taken: the ``member`` (a path such as ``rounds.0.reports.3.phase``) and why."""

    def __init__(self, member: str, problem: str, *, status: int = 422) -> None:
        self.member = member
        self.problem = problem
        self.status = status
        super().__init__(f"{member}: {problem}" if member else problem)


# --- the sender's side ---------------------------------------------------------------------------


def run_json(info: RunInfo) -> bytes:
    """The body that announces a run."""
    return RunBody(run=info).model_dump_json(by_alias=True).encode()


def round_json(record: RoundRecord) -> bytes:
    """One round as it stands in a body: without noise, which never leaves its own store."""
    return record.model_dump_json(exclude={"noise"}).encode()


def rounds_json(rounds: Iterable[bytes]) -> bytes:
    """The body of rounds that `round_json` gave; mind `MAX_ROUNDS` and `MAX_ROUNDS_BYTES`."""
    return b'{"schema":%d,"rounds":[%s]}' % (SCHEMA, b",".join(rounds))


def finish_json(
    status: RunStatus, ended_at: datetime, reason: str | None, late_reports: int
) -> bytes:
    """The body that ends a run; raises ValueError for the status ``running``."""
    values = {
        "status": status,
        "ended_at": ended_at,
        "reason": reason,
        "late_reports": late_reports,
    }
    return FinishBody.model_validate(values).model_dump_json(by_alias=True).encode()


# --- the service's side --------------------------------------------------------------------------

_Body = TypeVar("_Body", bound=BaseModel)


def take_run(body: bytes, run_id: str) -> RunInfo:
    """The run in a body for ``run_id``. Raises `BadBody`."""
    info = _parsed(RunBody, body).run
    _same_run(info.run_id, run_id, "run.run_id")
    if not info.client_rows:
        raise BadBody("run.client_rows", _ROWS_NEEDED)
    _check(info, "run")
    _check_names(info.software, "run.software")
    if len(info.metric_names) > MAX_NAMES:
        raise BadBody("run.metric_names", f"has more than {MAX_NAMES} names")
    return info


def take_rounds(body: bytes, run_id: str) -> tuple[RoundRecord, ...]:
    """The rounds in a body for ``run_id``. Raises `BadBody`."""
    rounds = _parsed(RoundsBody, body).rounds
    suspect = b"\\u" in body or any(look.search(body) for look in _SUSPECT)
    for place, record in enumerate(rounds):
        where = f"rounds.{place}"
        _same_run(record.run_id, run_id, f"{where}.run_id")
        if record.noise is not None:
            raise BadBody(f"{where}.noise", "stays in the store of the server that added it")
        if not record.client_rows:
            raise BadBody(f"{where}.client_rows", _ROWS_NEEDED)
        if suspect:
            _check(record, where)
        if problem := rules.impossible(record):
            raise BadBody(where, problem)
        _check_names(record.train_metrics, f"{where}.train_metrics")
        _check_names(record.evaluate_metrics, f"{where}.evaluate_metrics")
    return rounds


def take_finish(body: bytes) -> FinishBody:
    """The end in a body. Raises `BadBody`."""
    finish = _parsed(FinishBody, body)
    _check(finish, "")
    return finish


_ROWS_NEEDED: Final = "the service computes sums from the rows of clients: true is needed"


def _parsed(kind: type[_Body], body: bytes) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part)[:MAX_TEXT] for part in first["loc"])
        status = 400 if first["type"] == "json_invalid" else 422
        raise BadBody(_printable(place), _printable(first["msg"]), status=status) from None


def _same_run(said: str, wanted: str, member: str) -> None:
    if said != wanted:
        raise BadBody(member, "is not the run of the address")


# What `_check` refuses looks like one of these in JSON: an escape, which may stand for anything; ten
# digits before a point; an exponent of two digits; a year from before 1970 or after 9000. Looking for
# them takes a part of the time of the check, which walks every value of every row.
_SUSPECT: Final = tuple(
    map(
        pattern,
        (
            rb'[:,\[\s"]-?\d{10}',
            rb"[:,\[\s]-?\d[\d.]*[eE]\+?\d\d",
            rb'"(?:0\d{3}|1[0-8]\d\d|19[0-6]\d|9\d{3})-',
        ),
    )
)

# Numbers that the database would keep in 32 bits.
_NUMBERS: Final = frozenset(
    {"round", "reported_round", "attempt", "revision", "rounds_planned", "intensity_year"}
)
# Floats of any size that nothing adds up, and mappings whose names are checked on their own.
_FREE: Final = frozenset({"train_metrics", "evaluate_metrics", "privacy_epsilon", "software"})


def _check(value: object, where: str) -> None:
    """What the records allow and no database could keep: NUL, years, numbers beyond all measure."""
    for name, item in _members(value):
        kind = type(item)
        if kind is str:
            if "\0" in item:
                raise BadBody(_join(where, name), "holds a NUL character")
        elif kind is float:
            if item > MAX_AMOUNT:
                raise BadBody(_join(where, name), f"is greater than {MAX_AMOUNT:g}")
        elif kind is int:
            most = MAX_NUMBER if name in _NUMBERS else MAX_WHOLE
            if not -most <= item <= most:
                raise BadBody(_join(where, name), f"is greater than {most}")
        elif isinstance(item, datetime):
            if not FIRST_YEAR <= item.year <= LAST_YEAR:
                raise BadBody(
                    _join(where, name), f"is not between the years {FIRST_YEAR} and {LAST_YEAR}"
                )
        elif kind is tuple or is_dataclass(item):
            _check(item, _join(where, name))


def _members(value: object) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple):
        return ((str(place), item) for place, item in enumerate(value))
    if isinstance(value, BaseModel):
        return ((name, item) for name, item in value if name not in _FREE)
    return ((name, getattr(value, name)) for name in _names_of(type(value)))


def _names_of(kind: type[Any]) -> tuple[str, ...]:
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(item.name for item in fields(kind))
    return names


_NAMES: Final[dict[type[Any], tuple[str, ...]]] = {}


def _check_names(values: Mapping[str, object], where: str) -> None:
    if len(values) > MAX_NAMES:
        raise BadBody(where, f"has more than {MAX_NAMES} names")
    for name, value in values.items():
        shown = _join(where, _printable(name[:MAX_TEXT]))
        if not 0 < len(name) <= MAX_TEXT or "\0" in name:
            raise BadBody(shown, f"a name has 1 to {MAX_TEXT} characters and no NUL")
        if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
            raise BadBody(shown, f"has more than {MAX_TEXT} characters, or a NUL")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
