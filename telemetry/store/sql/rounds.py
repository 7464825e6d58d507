"""Rounds in a SQL database: read whole, and written many at a time, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from time import sleep
from typing import Any, Final

from sqlalchemy import Connection, Table

from telemetry.domain import NoiseRecord, RoundRecord, RoundSummary, RunTotals
from telemetry.errors import RoundConflict, ValueRefused
from telemetry.store import rules
from telemetry.store.sql import direct, mapping, queries, runs, tables
from telemetry.store.sql.bulk import insert_rows
from telemetry.store.sql.driver import Row, is_sqlite
from telemetry.store.sql.mapping import RoundKey

BESIDE_FROM_ROWS: Final = 1000
"""Figures of smaller rounds are made before a thread would be there."""
GIVE_WAY_S: Final = 0.0001
TOGETHER_UP_TO_ROWS: Final = 500
"""Rows of clients that go to PostgreSQL by one statement; of more a COPY for each table is sooner."""


class RoundBatch:
    """Rounds of locked runs: looked up together, judged one by one, written together.

    ``totals`` are those of the runs, and follow what is written. Whatever `take` refuses has left
    no trace: nothing is written before `write`.
    """

    def __init__(self, connection: Connection, url: str, totals: dict[str, RunTotals]) -> None:
        self._connection = connection
        self._url = url
        self._totals = totals
        self._times_as_text = is_sqlite(connection)
        # In a process of its own, in which this one may go on meanwhile.
        self._server_works = not self._times_as_text
        self._stored: dict[RoundKey, tuple[int, bool] | None] = {}
        """Revision of a round in the database, and whether it is closed there; None: not there."""
        self._waiting: dict[RoundKey, RoundRecord] = {}
        """What `write` will store, in the order in which it came."""

    def look_up(self, records: Iterable[RoundRecord]) -> None:
        """Ask the database for those that it may have; what is not looked up, `take` looks up."""
        keys = {key for key in map(key_of, records) if key not in self._stored}
        if keys:
            self._stored.update(dict.fromkeys(keys))
            self._stored.update(direct.revisions(self._connection, keys))

    def take(self, records: Sequence[RoundRecord]) -> list[RoundRecord]:
        """Those that are news, all of them waiting to be written now; or an error, and none is.

        Raises `RoundConflict` and `ValueRefused`, see `Store.record_round`.
        """
        self.look_up(records)
        taken: dict[RoundKey, RoundRecord] = {}
        news = []
        for record in records:
            key = key_of(record)
            if problem := rules.impossible(record):
                raise ValueRefused(self._url, f"round {record.round} of run {key[0]} {problem}")
            if self._is_news(record, taken.get(key) or self._waiting.get(key)):
                taken[key] = record
                news.append(record)
        for record in taken.values():
            self.put(record)
        return news

    def put(self, record: RoundRecord) -> None:
        """Let a round wait to be written whose revision is known to be news."""
        key = key_of(record)
        self._waiting.pop(key, None)  # sums are made in the order of what is stored in the end
        self._waiting[key] = record

    def write(self) -> set[str]:
        """Store what waits; closed rounds enter the totals. The runs of which a round was closed."""
        waiting, self._waiting = list(self._waiting.values()), {}
        self._delete([key for key in map(key_of, waiting) if self._stored.get(key)])
        closed = {record.run_id for record in waiting if record.closed}
        if self._server_works and _are_few(waiting):
            self._write_together(waiting, closed)
        elif waiting:
            self._write_by_table(waiting, closed)
        self._stored.update({key_of(one): (one.revision, one.closed) for one in waiting})
        return closed

    def _write_together(self, waiting: Sequence[RoundRecord], closed: Iterable[str]) -> None:
        from telemetry.store.sql.together import Part, insert_parts  # of PostgreSQL alone

        rows = [self._rows(one, one.summary(), times_as_text=True) for one in waiting]
        totals = [mapping.totals_row(run_id, self._totals[run_id]) for run_id in sorted(closed)]
        insert_parts(
            self._connection,
            [
                Part(table, columns, list(chain.from_iterable(map(rows_of, rows))))
                for table, columns, rows_of in (_ROUNDS, *_SMALL_PARTS, *_CLIENTS)
            ]
            + [Part(tables.run_totals, mapping.TOTALS_COLUMNS, totals, or_update=True)],
        )

    def _write_by_table(self, waiting: Sequence[RoundRecord], closed: Iterable[str]) -> None:
        # One after the other: a run's sum is made in the order of its rounds.
        for large, some in groupby(waiting, lambda one: self._server_works and _is_large(one)):
            if large:
                for record in some:
                    self._write_large(record)
            else:
                rows = [
                    self._rows(one, one.summary(), times_as_text=self._times_as_text)
                    for one in some
                ]
                _insert(self._connection, (_ROUNDS, *_SMALL_PARTS, *_CLIENTS), rows)
        runs.store_totals(self._connection, {run: self._totals[run] for run in sorted(closed)})

    def _write_large(self, record: RoundRecord) -> None:
        """Its figures are made from its clients' rows while the server takes these."""
        # A round must be there before its clients are. It has the figures of one without any until
        # its own are made; nobody sees it before the transaction ends.
        empty = record.model_copy(update={"participants": (), "reports": ()})
        rows = mapping.rows_from_round(empty, empty.summary_with(None), None)
        _insert(self._connection, (_ROUNDS, *_SMALL_PARTS), [rows])
        key = key_of(record)
        figures: list[Future[RoundSummary]] = []
        with ThreadPoolExecutor(1, "telemetry-figures") as beside:
            participants = mapping.PARTICIPANTS.rows(
                key, record.participant_columns, times_as_text=False
            )
            _insert_records(
                self._connection,
                mapping.PARTICIPANTS,
                # Not before the first table's rows are handed over, or the two would take each
                # other's turns: the server is at work on them for a while yet.
                _then(participants, lambda: figures.append(beside.submit(_figures_of, record))),
            )
            reports = mapping.REPORTS.rows(key, record.report_columns, times_as_text=False)
            _insert_records(self._connection, mapping.REPORTS, reports)
        (summary,) = (one.result() for one in figures)
        counted = replace(summary, cumulative_emissions_kg=_count(summary, self._totals))
        runs.store_figures(self._connection, [counted])

    def _is_news(self, record: RoundRecord, waiting: RoundRecord | None) -> bool:
        if waiting is not None:
            state = waiting.revision, waiting.closed
            return _replaces(record, *state, lambda: rules.same_content(waiting, record))
        key = key_of(record)
        stored = self._stored[key]
        return stored is None or _replaces(
            record, *stored, lambda: _is_stored(self._connection, record)
        )

    def _rows(
        self, record: RoundRecord, summary: RoundSummary, *, times_as_text: bool
    ) -> mapping.RoundRows:
        cumulative = _count(summary, self._totals)
        return mapping.rows_from_round(record, summary, cumulative, times_as_text=times_as_text)

    def _delete(self, keys: Sequence[RoundKey]) -> None:
        if keys:  # the rows in the other tables go along (ON DELETE CASCADE)
            self._connection.execute(queries.DELETE_ROUND, [queries.key_of(key) for key in keys])


def _are_few(records: Sequence[RoundRecord]) -> bool:
    rows = sum(len(one.participants) + len(one.reports) for one in records if one.client_rows)
    return bool(records) and rows <= TOGETHER_UP_TO_ROWS


def _is_large(record: RoundRecord) -> bool:
    return record.closed and record.client_rows and len(record.reports) >= BESIDE_FROM_ROWS


def _then(rows: Iterator[Row], do: Callable[[], object]) -> Iterator[Row]:
    yield from rows
    do()


def _figures_of(record: RoundRecord) -> RoundSummary:
    # Whoever hands over the rows gets its turn at once, not after the interpreter's 5 ms.
    return record.summary_with(record.digest_of_rows(lambda: sleep(GIVE_WAY_S)))


def key_of(record: RoundRecord | RoundSummary) -> RoundKey:
    """What names a round."""
    return record.run_id, record.round, record.attempt


def _count(summary: RoundSummary, totals: dict[str, RunTotals]) -> float | None:
    """Let a closed round enter its run's totals: its cumulative figure; an open one has none."""
    if not summary.closed:
        return None
    with_it = totals[summary.run_id] = totals[summary.run_id].plus(summary)
    return with_it.total_emissions_kg


def load(connection: Connection, key: RoundKey) -> RoundRecord | None:
    """A round with its rows; None where it is not stored, or without them."""

    def rows(query: queries.Query) -> list[Row]:
        return [tuple(row) for row in connection.execute(query)]

    found = connection.execute(queries.ROUND, queries.key_of(key)).first()
    if found is None or not mapping.summary_from_row(tuple(found)).client_rows:
        return None
    return mapping.round_from_rows(
        mapping.RoundRows(
            round=tuple(found),
            laps=rows(queries.records_of(mapping.LAPS, key)),
            metrics=rows(queries.metrics_of(key)),
            noise=_noise_rows(connection, key),
            participants=rows(queries.records_of(mapping.PARTICIPANTS, key)),
            reports=rows(queries.records_of(mapping.REPORTS, key)),
        )
    )


def load_summary(connection: Connection, key: RoundKey) -> RoundSummary | None:
    """A round's figures; None where it is not stored."""
    found = connection.execute(queries.ROUND, queries.key_of(key)).first()
    return None if found is None else mapping.summary_from_row(tuple(found))


def close_open(connection: Connection, url: str, run_id: str, totals: RunTotals) -> None:
    """Close the open rounds of a run whose server is gone."""
    so_far = {run_id: totals}
    batch = RoundBatch(connection, url, so_far)
    for number, attempt in connection.execute(queries.open_rounds(run_id)).all():
        key = run_id, number, attempt
        opened = load(connection, key)
        if opened is not None:
            batch.look_up([opened])
            batch.put(rules.closed_by_interruption(opened))
            batch.write()
        elif summary := load_summary(connection, key):  # without its rows
            closed = rules.summary_closed_by_interruption(summary)
            counted = replace(closed, cumulative_emissions_kg=_count(closed, so_far))
            runs.store_figures(connection, [counted])
            runs.store_totals(connection, so_far)


_Part = tuple[Table, tuple[str, ...], Callable[[Any], Iterable[Row]]]
_ROUNDS: Final[_Part] = (tables.rounds, mapping.ROUND_COLUMNS, lambda rows: (rows.round,))
_SMALL_PARTS: Final[tuple[_Part, ...]] = (
    (tables.round_phases, mapping.LAPS.columns, attrgetter("laps")),
    (tables.training_metrics, mapping.METRIC_COLUMNS, attrgetter("metrics")),
    (tables.round_noise, mapping.NOISE_COLUMNS, attrgetter("noise")),
)
_CLIENTS: Final[tuple[_Part, ...]] = (
    (tables.participants, mapping.PARTICIPANTS.columns, attrgetter("participants")),
    (tables.reports, mapping.REPORTS.columns, attrgetter("reports")),
)


def _insert(
    connection: Connection, parts: Iterable[_Part], rounds: Sequence[mapping.RoundRows]
) -> None:
    for table, columns, rows_of in parts:
        insert_rows(connection, table, columns, chain.from_iterable(map(rows_of, rounds)))


def _insert_records(
    connection: Connection, kind: mapping.RecordTable[Any], rows: Iterable[Row]
) -> None:
    insert_rows(connection, kind.table, kind.columns, rows)


def _replaces(
    record: RoundRecord, revision: int, closed: bool, is_same: Callable[[], bool]
) -> bool:
    """Whether ``record`` is to be stored over the round of that revision and state."""
    match rules.decide(record, revision, closed):
        case rules.Write.REPLACE:
            return True
        case rules.Write.SKIP:
            return False
        case rules.Write.COMPARE:
            if is_same():
                return False
            raise RoundConflict(record.run_id, record.round, record.attempt)


def _is_stored(connection: Connection, record: RoundRecord) -> bool:
    """Whether the closed round in the database has the content of ``record``."""
    key = key_of(record)
    summary = load_summary(connection, key)
    if summary is None:
        return False
    # The digest of all rows is one of the figures; noise is in none.
    if rules.same_figures(record, summary) and _stored_noise(connection, key) == record.noise:
        return True
    # A figure may have been worked out by another version of this program, which knew no digest.
    stored = load(connection, key)
    return stored is not None and rules.same_content(stored, record)


def _stored_noise(connection: Connection, key: RoundKey) -> NoiseRecord | None:
    return mapping.noise_from_rows(_noise_rows(connection, key))


def _noise_rows(connection: Connection, key: RoundKey) -> list[Row]:
    return [tuple(row) for row in connection.execute(queries.NOISE, queries.key_of(key))]
