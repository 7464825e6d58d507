"""Records to rows and back: pure, and inverse to each other.

A row is a tuple in the order of its ``…_COLUMNS``. Only times depend on the database: ``times_as_text``
is for SQLite, which has none (`utc_text`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Table

from telemetry.analysis.value import falls
from telemetry.domain import (
    SERVER_PHASES,
    Columns,
    Factors,
    Histogram,
    Lap,
    NoiseRecord,
    Owner,
    ParticipantRecord,
    ReportRecord,
    Rest,
    RoundRecord,
    RoundStatus,
    RoundSummary,
    RunInfo,
    RunTotals,
    StoredRun,
    field_names,
    utc_text,
)
from telemetry.domain.frozen import in_order
from telemetry.store.sql import tables
from telemetry.store.sql.driver import Row

Values = Mapping[Any, Any]
"""A row by the names of its columns."""
RoundKey = tuple[str, int, int]
"""(run_id, round, attempt)"""
R = TypeVar("R")
_json: Final = json.JSONEncoder(allow_nan=False).encode

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
_CUMULATIVE_AT: Final = _SCALARS.index("cumulative_emissions_kg")
_TIMES_AT: Final = tuple(_SCALARS.index(name) for name in ("started_at", "ended_at"))


class RecordTable(Generic[R]):
    """The table that holds one kind of record, several to a round, in their order.

    ``place`` is the column that counts them.
    """

    def __init__(self, table: Table, record: type[R], place: str) -> None:
        self.table = table
        self.place = place
        self._build: Callable[..., R] = in_order(record)
        self.fields: tuple[str, ...] = field_names(record)
        self.columns: tuple[str, ...] = (*KEY_COLUMNS, place, *self.fields)

    def rows(self, key: RoundKey, records: Columns, *, times_as_text: bool) -> Iterator[Row]:
        """One row a record."""
        values = records.written if times_as_text else records.values
        return zip(*map(repeat, key), range(records.length), *values)  # noqa: B905  # endless

    def record(self, values: Row) -> R:
        """The record of a row of ``fields``."""
        return self._build(*values)


LAPS: Final = RecordTable(tables.round_phases, Lap, "lap")
PARTICIPANTS: Final = RecordTable(tables.participants, ParticipantRecord, "position")
REPORTS: Final = RecordTable(tables.reports, ReportRecord, "position")


# --- rounds ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRows:
    """A round as it is stored, one member a table."""

    round: Row
    laps: Iterable[Row]
    metrics: Iterable[Row]
    noise: Iterable[Row]
    """One, or none."""
    participants: Iterable[Row]
    reports: Iterable[Row]


def rows_from_round(
    record: RoundRecord,
    summary: RoundSummary,
    cumulative_emissions_kg: float | None,
    *,
    times_as_text: bool = False,
) -> RoundRows:
    """Every row of a round; ``summary`` is the record's own, stored with that cumulative figure."""
    key = record.run_id, record.round, record.attempt
    keep = record.client_rows
    laps = Columns(Lap, record.laps)
    return RoundRows(
        round=round_row(summary, cumulative_emissions_kg, times_as_text=times_as_text),
        laps=LAPS.rows(key, laps, times_as_text=times_as_text),
        metrics=[
            (*key, split, name, value)
            for split, metrics in (
                ("train", record.train_metrics),
                ("evaluate", record.evaluate_metrics),
            )
            for name, value in metrics.items()
        ],
        noise=[(*key, *_get_noise(noise)) for noise in (record.noise,) if noise is not None],
        participants=PARTICIPANTS.rows(key, record.participant_columns, times_as_text=times_as_text)
        if keep
        else (),
        reports=REPORTS.rows(key, record.report_columns, times_as_text=times_as_text)
        if keep
        else (),
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
        noise=noise_from_rows(rows.noise),
    )


_RECORD_SCALARS: Final = tuple(
    name
    for name in _SCALARS
    if name in RoundRecord.model_fields and name not in ("participants", "reports")
)


def _metrics(rows: Iterable[Row], split: str) -> dict[str, float]:
    return {name: value for *_, row_split, name, value in rows if row_split == split}


def noise_from_rows(rows: Iterable[Row]) -> NoiseRecord | None:
    """The noise of a round from its row of `NOISE_COLUMNS`, if there is one."""
    for row in rows:
        return NoiseRecord(**dict(zip(_NOISE, row[len(KEY_COLUMNS) :], strict=True)))
    return None


def round_row(
    summary: RoundSummary, cumulative_emissions_kg: float | None, *, times_as_text: bool = False
) -> Row:
    """The row of `ROUND_COLUMNS`, with that cumulative figure."""
    scalars = list(_get_scalars(summary))
    scalars[_CUMULATIVE_AT] = cumulative_emissions_kg
    if times_as_text:
        for at in _TIMES_AT:
            scalars[at] = utc_text(scalars[at])
    return (
        *scalars,
        *_get_factors(summary.factors),
        *(summary.phase_energy_kwh[phase] for phase in SERVER_PHASES),
        histogram_text(summary.client_histogram),
        _json(dict(summary.train_metrics)),
        _json(dict(summary.evaluate_metrics)),
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
    return _json({"counts": histogram.counts, "sum_g": histogram.sum_g})


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
_TOTALS_APART: Final = ("rounds", "phase_energy_kwh", "client_histogram", "rests")
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


TOTALS_COLUMNS: Final = (
    "run_id", *_ROUND_COUNTS.values(), *_TOTALS_SCALARS, *_PHASE_COLUMNS, "client_histogram", "rests",
)  # fmt: skip
_get_totals: Final = attrgetter(*_TOTALS_SCALARS)


def totals_row(run_id: str, totals: RunTotals) -> Row:
    """The row of `TOTALS_COLUMNS`."""
    row = (
        run_id,
        *(totals.rounds.get(status, 0) for status in _ROUND_COUNTS),
        *_get_totals(totals),
        *(totals.phase_energy_kwh[phase] for phase in SERVER_PHASES),
        histogram_text(totals.client_histogram),
        _json(dict(totals.rests)),
    )
    if len(_last_written) >= MAX_REMEMBERED:
        _last_written.clear()
    _last_written[run_id] = row, totals
    return row


def totals_from_row(row: Row) -> RunTotals:
    """Inverse of `totals_row`; of the row that was made last for its run, what it was made of."""
    known = _last_written.get(row[0])
    if known is not None and known[0] == row:
        return known[1]
    return totals_from_values(dict(zip(TOTALS_COLUMNS, row, strict=True)))


MAX_REMEMBERED: Final = 1_000
_last_written: Final[dict[str, tuple[Row, RunTotals]]] = {}
"""By run. Whoever adds up a run's rounds reads again and again what it has just written."""


def totals_from_values(values: Values) -> RunTotals:
    """Inverse of `totals_row`, by names."""
    rounds = {status: values[column] for status, column in _ROUND_COUNTS.items()}
    return RunTotals(
        rounds=MappingProxyType({status: count for status, count in rounds.items() if count}),
        phase_energy_kwh=_by_phase(tuple(values[column] for column in _PHASE_COLUMNS)),
        client_histogram=histogram_from_text(values["client_histogram"]),
        rests=_rests(values["rests"]),
        **{name: values[name] for name in _TOTALS_SCALARS},
    )


def _rests(text: str) -> Mapping[str, Rest]:
    return MappingProxyType({name: tuple(rest) for name, rest in json.loads(text).items()})


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
