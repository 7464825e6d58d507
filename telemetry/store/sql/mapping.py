"""Records to rows and back: pure, and inverse to each other.

A row is a tuple in the order of its ``…_COLUMNS``. Only times depend on the database: `TimeForm`
says what the driver takes (text on SQLite, a datetime elsewhere).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Table

from telemetry.analysis.value import falls
from telemetry.domain import (
    SERVER_PHASES,
    Factors,
    Histogram,
    Lap,
    NoiseRecord,
    Owner,
    ParticipantRecord,
    ReportRecord,
    RoundRecord,
    RoundStatus,
    RoundSummary,
    RunInfo,
    RunTotals,
    StoredRun,
    field_names,
)
from telemetry.store.sql import tables
from telemetry.store.sql.types import UtcDateTime

Row = tuple[Any, ...]
Values = Mapping[Any, Any]
"""A row by the names of its columns."""
RoundKey = tuple[str, int, int]
"""(run_id, round, attempt)"""
TimeForm = Callable[[datetime | None], Any]
R = TypeVar("R")

KEY_COLUMNS: Final = ("run_id", "round", "attempt")
_FACTORS: Final = field_names(Factors)
_JSON_FIELDS: Final = ("client_histogram", "train_metrics", "evaluate_metrics")
_APART: Final = ("factors", "phase_energy_kwh", *_JSON_FIELDS)
_SCALARS: Final = tuple(name for name in field_names(RoundSummary) if name not in _APART)
_PHASE_COLUMNS: Final = tuple(f"{phase}_energy_kwh" for phase in SERVER_PHASES)

ROUND_COLUMNS: Final = (*_SCALARS, *_FACTORS, *_PHASE_COLUMNS, *_JSON_FIELDS)
METRIC_COLUMNS: Final = (*KEY_COLUMNS, "split", "name", "value")
_NOISE: Final = field_names(NoiseRecord)
NOISE_COLUMNS: Final = (*KEY_COLUMNS, *_NOISE)

_get_scalars: Final = attrgetter(*_SCALARS)
_get_factors: Final = attrgetter(*_FACTORS)
_get_noise: Final = attrgetter(*_NOISE)
_TIMES_AT: Final = tuple(_SCALARS.index(name) for name in ("started_at", "ended_at"))


def as_it_is(value: datetime | None) -> Any:
    """The `TimeForm` of a driver that knows times."""
    return value


class RecordTable(Generic[R]):
    """The table that holds one kind of record, several to a round, in their order.

    ``place`` is the column that counts them. Times stand last in a row, so that everything before
    them is taken from a record in one call.
    """

    def __init__(self, table: Table, record: type[R], place: str) -> None:
        names = field_names(record)
        is_time = {name: isinstance(table.c[name].type, UtcDateTime) for name in names}
        self.table = table
        self.place = place
        self._record: Callable[..., R] = record
        plain = tuple(name for name in names if not is_time[name])
        times = tuple(name for name in names if is_time[name])
        self._get_plain: Callable[[R], Row] = attrgetter(*plain)
        self._get_times: Callable[[R], Row] = attrgetter(*times) if times else _nothing
        self.fields: tuple[str, ...] = (*plain, *times)
        self.columns: tuple[str, ...] = (*KEY_COLUMNS, place, *self.fields)

    def rows(self, key: RoundKey, records: Iterable[R], time: TimeForm) -> list[Row]:
        """One row a record."""
        plain, times = self._get_plain, self._get_times
        return [
            (*key, place, *plain(record), *map(time, times(record)))
            for place, record in enumerate(records)
        ]

    def record(self, values: Row) -> R:
        """The record of a row of ``fields``."""
        return self._record(**dict(zip(self.fields, values, strict=True)))


def _nothing(_: object) -> tuple[()]:
    return ()


LAPS: Final = RecordTable(tables.round_phases, Lap, "lap")
PARTICIPANTS: Final = RecordTable(tables.participants, ParticipantRecord, "position")
REPORTS: Final = RecordTable(tables.reports, ReportRecord, "position")


# --- rounds ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRows:
    """A round as it is stored, one member a table."""

    round: Row
    laps: list[Row]
    metrics: list[Row]
    noise: list[Row]
    """One, or none."""
    participants: list[Row]
    reports: list[Row]


def rows_from_round(
    record: RoundRecord, summary: RoundSummary, time: TimeForm = as_it_is
) -> RoundRows:
    """Every row of a round; ``summary`` is the record's own, with its cumulative figure."""
    key = record.run_id, record.round, record.attempt
    keep = record.client_rows
    return RoundRows(
        round=round_row(summary, time),
        laps=LAPS.rows(key, record.laps, time),
        metrics=[
            (*key, split, name, value)
            for split, metrics in (
                ("train", record.train_metrics),
                ("evaluate", record.evaluate_metrics),
            )
            for name, value in metrics.items()
        ],
        noise=[(*key, *_get_noise(noise)) for noise in (record.noise,) if noise is not None],
        participants=PARTICIPANTS.rows(key, record.participants if keep else (), time),
        reports=REPORTS.rows(key, record.reports if keep else (), time),
    )


def round_from_rows(rows: RoundRows) -> RoundRecord:
    """Inverse of `rows_from_round`: rows in the order of their places, times as datetimes."""
    known = summary_from_row(rows.round)
    skip = len(KEY_COLUMNS) + 1
    return RoundRecord(
        **{name: getattr(known, name) for name in _RECORD_SCALARS},
        factors=known.factors,
        participants=tuple(PARTICIPANTS.record(row[skip:]) for row in rows.participants),
        reports=tuple(REPORTS.record(row[skip:]) for row in rows.reports),
        laps=tuple(LAPS.record(row[skip:]) for row in rows.laps),
        train_metrics=_metrics(rows.metrics, "train"),
        evaluate_metrics=_metrics(rows.metrics, "evaluate"),
        noise=next((_noise(row[len(KEY_COLUMNS) :]) for row in rows.noise), None),
    )


_RECORD_SCALARS: Final = tuple(
    name
    for name in _SCALARS
    if name in RoundRecord.model_fields and name not in ("participants", "reports")
)


def _metrics(rows: Iterable[Row], split: str) -> dict[str, float]:
    return {name: value for *_, row_split, name, value in rows if row_split == split}


def _noise(values: Row) -> NoiseRecord:
    return NoiseRecord(**dict(zip(_NOISE, values, strict=True)))


def round_row(summary: RoundSummary, time: TimeForm = as_it_is) -> Row:
    """The row of `ROUND_COLUMNS`."""
    scalars = list(_get_scalars(summary))
    for at in _TIMES_AT:
        scalars[at] = time(scalars[at])
    return (
        *scalars,
        *_get_factors(summary.factors),
        *(summary.phase_energy_kwh[phase] for phase in SERVER_PHASES),
        histogram_text(summary.client_histogram),
        json.dumps(dict(summary.train_metrics), allow_nan=False),
        json.dumps(dict(summary.evaluate_metrics), allow_nan=False),
    )


_FACTORS_FROM: Final = len(_SCALARS)
_PHASES_FROM: Final = _FACTORS_FROM + len(_FACTORS)
_JSON_FROM: Final = _PHASES_FROM + len(_PHASE_COLUMNS)


def summary_from_row(row: Row) -> RoundSummary:
    """The flat form of a round from a row of `ROUND_COLUMNS`."""
    histogram, train, evaluate = row[_JSON_FROM:]
    return RoundSummary(
        **dict(zip(_SCALARS, row, strict=False)),
        factors=_factors(row[_FACTORS_FROM:_PHASES_FROM]),
        phase_energy_kwh=_by_phase(row[_PHASES_FROM:_JSON_FROM]),
        client_histogram=histogram_from_text(histogram),
        train_metrics=MappingProxyType(json.loads(train)),
        evaluate_metrics=MappingProxyType(json.loads(evaluate)),
    )


def _factors(values: Row) -> Factors:
    return Factors(**dict(zip(_FACTORS, values, strict=True)))


def _by_phase(values: Row) -> Mapping[Any, float | None]:
    return MappingProxyType(dict(zip(SERVER_PHASES, values, strict=True)))


def histogram_text(histogram: Histogram) -> str:
    """A histogram as JSON."""
    return json.dumps({"counts": histogram.counts, "sum_g": histogram.sum_g}, allow_nan=False)


def histogram_from_text(text: str) -> Histogram:
    """Inverse of `histogram_text`."""
    stored = json.loads(text)
    return Histogram(counts=tuple(stored["counts"]), sum_g=stored["sum_g"])


# --- runs --------------------------------------------------------------------------------------

_INFO_SCALARS: Final = tuple(
    name for name in RunInfo.model_fields if name not in ("factors", "metric_names", "software")
)
_STATE: Final = (
    "status", "reason", "ended_at", "owner", "last_seen_at", "sha256", "writer", "pruned_at",
)  # fmt: skip
_ROUND_COUNTS: Final[Mapping[RoundStatus, str]] = MappingProxyType(
    {status: f"rounds_{status}" for status in tables.ENDED_STATUSES}
)
_TOTALS_APART: Final = ("rounds", "phase_energy_kwh", "client_histogram")
_TOTALS_SCALARS: Final = tuple(f.name for f in fields(RunTotals) if f.name not in _TOTALS_APART)


def values_from_info(info: RunInfo) -> dict[str, Any]:
    """What is fixed about a run, as values of columns of ``runs``."""
    return {
        **{name: getattr(info, name) for name in _INFO_SCALARS},
        **{name: getattr(info.factors, name) for name in _FACTORS},
        "lower_is_better": falls(info.value_metric),
        "metric_names": json.dumps(info.metric_names),
        "software": json.dumps(info.software),
    }


def info_from_values(values: Values) -> RunInfo:
    """Inverse of `values_from_info`."""
    return RunInfo(
        **{name: values[name] for name in _INFO_SCALARS},
        factors=_factors(tuple(values[name] for name in _FACTORS)),
        metric_names=tuple(json.loads(values["metric_names"])),
        software=json.loads(values["software"]),
    )


def values_from_totals(totals: RunTotals) -> dict[str, Any]:
    """Totals as values of columns of ``run_totals``."""
    return {
        **{column: totals.rounds.get(status, 0) for status, column in _ROUND_COUNTS.items()},
        **{name: getattr(totals, name) for name in _TOTALS_SCALARS},
        **{f"{phase}_energy_kwh": kwh for phase, kwh in totals.phase_energy_kwh.items()},
        "client_histogram": histogram_text(totals.client_histogram),
    }


def totals_from_values(values: Values) -> RunTotals:
    """Inverse of `values_from_totals`."""
    rounds = {status: values[column] for status, column in _ROUND_COUNTS.items()}
    return RunTotals(
        rounds=MappingProxyType({status: count for status, count in rounds.items() if count}),
        phase_energy_kwh=_by_phase(tuple(values[column] for column in _PHASE_COLUMNS)),
        client_histogram=histogram_from_text(values["client_histogram"]),
        **{name: values[name] for name in _TOTALS_SCALARS},
    )


def run_from_values(values: Values) -> StoredRun:
    """A run from the columns of ``runs`` and ``run_totals`` together."""
    state = {name: values[name] for name in _STATE}
    owner = state.pop("owner")
    return StoredRun(
        info=info_from_values(values),
        owner=None if owner is None else Owner.parse(owner),
        totals=totals_from_values(values),
        **state,
    )
