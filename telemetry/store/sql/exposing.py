"""What ``/metrics`` shows of the runs in a SQL database, with as few rows read as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from telemetry.domain import ExposedRun, Owner, RoundSummary, StoredRun
from telemetry.store import rules
from telemetry.store.sql import mapping, queries

Rounds = tuple[RoundSummary, ...]


@dataclass(frozen=True, slots=True)
class _Shown:
    """The closed rounds of a run that were shown last, and when they are still all there is to show."""

    state: tuple[object, ...]
    rounds: Rounds


class Exposure:
    """See `Store.exposed`. Remembers the closed rounds that it showed last.

    Whether there are others is told by the run's totals, which count them. They do not change but for
    cumulative figures that are put in order when the run is sealed, and the seal tells that.
    """

    def __init__(self) -> None:
        self._shown: dict[str, _Shown] = {}

    def of(
        self,
        connection: Connection,
        now: datetime,
        owner: Owner | None,
        *,
        max_runs: int,
        max_rounds: int,
    ) -> list[ExposedRun]:
        """The runs at this moment, in the connection's transaction."""
        found = connection.execute(queries.exposed_runs(now, owner, max_runs)).mappings()
        chosen = [mapping.run_from_values(values) for values in found]
        detailed = rules.detailed_runs(chosen, max_runs)
        closed = self._closed(
            connection, [run for run in chosen if run.run_id in detailed], max_rounds
        )
        return _with_rounds(chosen, _open(connection, detailed), closed)

    def _closed(
        self, connection: Connection, runs: Iterable[StoredRun], max_rounds: int
    ) -> dict[str, Rounds]:
        before = self._shown
        states = {
            run.run_id: (
                sum(run.totals.rounds.values()),
                run.totals.total_emissions_kg,  # grows with a set-up too, which is not counted
                run.sha256,
                run.pruned_at,
                max_rounds,
            )
            for run in runs
        }
        known = {
            run_id: before[run_id]
            for run_id, state in states.items()
            if run_id in before and before[run_id].state == state
        }
        changed = states.keys() - known.keys()
        if changed:
            for run_id, rounds in _last_closed(connection, changed, max_rounds).items():
                known[run_id] = _Shown(states[run_id], rounds)
        self._shown = known  # those that are shown no more are forgotten
        return {run_id: shown.rounds for run_id, shown in known.items()}


def latest(connection: Connection, runs: Sequence[StoredRun], max_rounds: int) -> list[ExposedRun]:
    """See `Store.latest`: two queries for all rounds."""
    ids = [run.run_id for run in runs]
    return _with_rounds(runs, _open(connection, ids), _last_closed(connection, ids, max_rounds))


def _with_rounds(
    runs: Iterable[StoredRun], opened: Mapping[str, RoundSummary], closed: Mapping[str, Rounds]
) -> list[ExposedRun]:
    return [
        ExposedRun(run=run, open_round=opened.get(run.run_id), rounds=closed.get(run.run_id, ()))
        for run in runs
    ]


def _last_closed(
    connection: Connection, run_ids: Collection[str], max_rounds: int
) -> dict[str, Rounds]:
    by_run: dict[str, list[RoundSummary]] = {run_id: [] for run_id in run_ids}
    for row in connection.execute(queries.exposed_rounds(run_ids, max_rounds)):
        by_run[row[0]].append(mapping.summary_from_row(tuple(row)))
    return {run_id: tuple(rounds) for run_id, rounds in by_run.items()}


def _open(connection: Connection, run_ids: Iterable[str]) -> dict[str, RoundSummary]:
    """The last open round of each run that has one."""
    rows = connection.execute(queries.open_rounds_of(run_ids))
    # In the order of their numbers: the last one stays.
    return {row[0]: mapping.summary_from_row(tuple(row)) for row in rows}
