"""The words and units in which records are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from math import fsum
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from telemetry.domain.once import once

Phase = Literal["train", "evaluate"]
Outcome = Literal["reported", "missing", "rejected", "failed"]
RejectionReason = Literal["not_a_number", "not_finite", "negative", "implausible", "inconsistent"]
ServerPhase = Literal["setup", "configure", "wait", "aggregate", "evaluate", "idle"]
RoundStatus = Literal["running", "completed", "partial", "failed", "interrupted"]
RunStatus = Literal["running", "completed", "failed", "interrupted", "stopped_on_budget"]
Sensor = Literal["rapl", "nvml", "mixed", "model", "constant", "unknown"]
Scope = Literal["machine", "allocation", "process", "unknown"]
Component = Literal["server", "clients"]
ReportOutcome = Literal["accepted", "rejected", "repeated", "late"]
OnBudget = Literal["warn", "stop"]

SERVER_PHASES: Final[tuple[ServerPhase, ...]] = get_args(ServerPhase)
ROUND_STATUSES: Final[tuple[RoundStatus, ...]] = get_args(RoundStatus)


def _plain_zero(value: float) -> float:
    """-0.0 as 0.0: SQLite stores no sign of it, and a seal over what was sent would be broken."""
    return value + 0.0


FiniteFloat = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_plain_zero)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_plain_zero)]
Count = Annotated[int, Field(ge=0)]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
ShortText = Annotated[str, Field(max_length=256)]

JOULES_PER_KWH: Final = 3.6e6
GRAMS_PER_KG: Final = 1000.0
COMPLETE_METERED_SHARE: Final = 0.99
"""A round's server figure is called complete from this share of its duration on."""
LEAST_METERED_SHARE: Final = 1e-6
"""Of a round of which less was metered nothing can be said for the rest."""

CLIENT_BUCKETS_G: Final[tuple[float, ...]] = tuple(10.0 ** (k / 2) for k in range(-8, 9))
"""Upper bounds, in grams, of the distribution of emissions over clients and rounds."""

STRICT = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class Record(BaseModel):
    """Base of the records that are built once a round or once a run."""

    model_config = ConfigDict(**STRICT, ignored_types=(once,))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without the figures that were worked out for the original."""
        copy = super().model_copy(update=update, deep=deep)
        for name in set(copy.__dict__) - set(type(self).model_fields):
            del copy.__dict__[name]
        return copy


def sum_known(values: Iterable[float | None]) -> float | None:
    """Exact sum of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return fsum(known) if known else None


def utc_now() -> datetime:
    """The time, aware and in UTC."""
    return datetime.now(UTC)


def field_names(record: type[Any]) -> tuple[str, ...]:
    """Names of a slots record's fields, in order: the order of its stored columns."""
    return tuple(item.name for item in fields(record))
