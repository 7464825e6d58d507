"""What is said to the service over HTTP: the bodies that a sender writes and the service takes.

One place for both sides. A body is JSON in UTF-8 and strict: unknown members, numbers in quotes, NaN
and text with NUL characters are refused as a `BadBody` that names the member. A body holds records,
never sums: the service computes those from the rows (`RoundRecord`'s properties), whoever sent them.

``PUT /api/v1/runs/{run_id}``          `RunBody`
``POST /api/v1/runs/{run_id}/rounds``  `RoundsBody`, answered by `Received`
``POST /api/v1/runs/{run_id}/finish``  `FinishBody`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from telemetry.domain import Count, Record, RoundRecord, RunInfo, RunStatus, ShortText
from telemetry.service.bounds import (
    ESCAPED_NUL,
    MAX_TEXT,
    BadBody,
    check,
    check_round,
    member_of,
)
from telemetry.store import rules

SCHEMA: Final = 1
MAX_ROUNDS: Final = 100
"""Rounds in one `RoundsBody`."""
MAX_ROUNDS_BYTES: Final = 16 * 1024 * 1024
MAX_SMALL_BYTES: Final = 256 * 1024
"""Of a `RunBody` and a `FinishBody`."""

MAX_NAMES: Final = 128
"""Training metrics of one split, and entries of `RunInfo.software`."""
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
    check(info, "run")
    _check_names(info.software, "run.software")
    if len(info.metric_names) > MAX_NAMES:
        raise BadBody("run.metric_names", f"has more than {MAX_NAMES} names")
    return info


def take_rounds(body: bytes, run_id: str) -> tuple[RoundRecord, ...]:
    """The rounds in a body for ``run_id``. Raises `BadBody`.

    Their sums are worked out here, by whoever has just read the rows: the one writer finds them done.
    """
    rounds = _parsed(RoundsBody, body).rounds
    escaped_nul = ESCAPED_NUL in body
    for place, record in enumerate(rounds):
        where = f"rounds.{place}"
        _same_run(record.run_id, run_id, f"{where}.run_id")
        if record.noise is not None:
            raise BadBody(f"{where}.noise", "stays in the store of the server that added it")
        if not record.client_rows:
            raise BadBody(f"{where}.client_rows", _ROWS_NEEDED)
        check_round(record, where, escaped_nul=escaped_nul)
        if problem := rules.impossible(record):
            raise BadBody(where, problem)
        _check_names(record.train_metrics, f"{where}.train_metrics")
        _check_names(record.evaluate_metrics, f"{where}.evaluate_metrics")
        record.summary()
    return rounds


def take_finish(body: bytes) -> FinishBody:
    """The end in a body. Raises `BadBody`."""
    finish = _parsed(FinishBody, body)
    check(finish, "")
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


def _check_names(values: Mapping[str, object], where: str) -> None:
    if len(values) > MAX_NAMES:
        raise BadBody(where, f"has more than {MAX_NAMES} names")
    for name, value in values.items():
        shown = member_of(where, _printable(name[:MAX_TEXT]))
        if not 0 < len(name) <= MAX_TEXT or "\0" in name:
            raise BadBody(shown, f"a name has 1 to {MAX_TEXT} characters and no NUL")
        if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
            raise BadBody(shown, f"has more than {MAX_TEXT} characters, or a NUL")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
