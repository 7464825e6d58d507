"""All that a report says of a run, read from the store: records, and what is asked of them elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from telemetry.analysis.sci import Score, scores
from telemetry.analysis.value import Value, measured_kg, value_of
from telemetry.domain import RoundSummary, RunTotals, StoredRun
from telemetry.method import Method, method_of
from telemetry.progress import Tell, counted, nobody
from telemetry.report.clients import Clients, read_clients
from telemetry.statement import statement
from telemetry.store.base import Store

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A run as a report tells it. Figures are kg CO2eq and kWh at the meter."""

    run: StoredRun
    """Its totals are those of ``rounds``, also while the run goes on."""
    rounds: tuple[RoundSummary, ...]
    """Closed, by (round, attempt)."""
    method: Method
    statement: str
    clients: Clients
    value: Value | None
    scores: tuple[Score, ...]
    country: str | None
    """Name of the run's country, where the caller knows it."""
    author: str | None
    """Who answers for the report."""
    date: str | None
    """Of the report, ISO 8601; None where nobody said: it is then the data's."""

    @property
    def total_kg(self) -> float | None:
        """Measured emissions."""
        return measured_kg(self.run.totals)

    @property
    def pruned(self) -> bool:
        """Whether the run's rounds were deleted and its totals kept."""
        return self.run.pruned_at is not None and not self.rounds

    @property
    def coverage(self) -> float | None:
        """Reported ÷ asked, over all closed rounds; None where nobody was asked, or nobody knows."""
        reported, asked = self.method.reported, self.method.participants
        return None if reported is None or not asked else reported / asked


def facts_of(
    store: Store,
    run_id: str,
    *,
    country: str | None = None,
    author: str | None = None,
    date: str | None = None,
    tell: Tell = nobody,
) -> Facts:
    """Read a run. ``tell`` hears how many rows of clients were read; raises what the store raises."""
    run = store.run(run_id)
    rounds = tuple(store.rounds(run_id))
    if run.status == "running":
        run = replace(run, totals=_totals(run, rounds))
    closed = {(row.round, row.attempt) for row in rounds}
    kept = all(row.client_rows for row in rounds)
    told = _Told(tell)
    clients = read_clients(
        told.of(row for row in store.participants(run_id) if row[:2] in closed),
        told.of(row for row in store.reports(run_id) if row[:2] in closed),
    )
    value = value_of(rounds, run.info.value_metric)
    return Facts(
        run=run,
        rounds=rounds,
        method=method_of(run, rounds),
        statement=statement(run, rounds, country),
        clients=clients,
        value=value,
        scores=scores(rounds, measured_kg(run.totals), value, clients.examples if kept else None),
        country=country,
        author=author,
        date=date,
    )


def _totals(run: StoredRun, rounds: tuple[RoundSummary, ...]) -> RunTotals:
    """Of exactly these rounds: another may have closed between reading the run and reading them."""
    totals = RunTotals()
    for row in rounds:
        totals = totals.plus(row)
    unplaced = run.totals.reports_late - totals.reports_late
    return totals.with_late_reports(unplaced) if unplaced > 0 else totals


class _Told:
    """Numbers the rows of one stream after those of another."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._done = 0

    def of(self, rows: Iterator[R]) -> Iterator[R]:
        """The same rows, told of; counting goes on where it stands when the first is read."""
        before = self._done

        def tell(done: int, of: int | None = None, what: str | None = None) -> None:
            self._done = before + done
            self._tell(self._done, of, what)

        yield from counted(rows, tell)
