"""What every delivery asks of the database, in its own words and straight to the driver.

For many runs or rounds at once. Through SQLAlchemy a statement with a list in it is worked out anew each
time, which takes longer than the database needs for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection

from telemetry.domain import RunTotals, utc_text
from telemetry.store.sql import driver, mapping
from telemetry.store.sql.mapping import RoundKey, Values

KEYS_AT_ONCE: Final = 64
"""Rounds, or runs, in one statement."""
_STATE: Final = ("status", "reason", "ended_at", "pruned_at", "writer")
_STATE_FROM: Final = len(mapping.TOTALS_COLUMNS)


def lock_runs(
    connection: Connection, run_ids: Iterable[str]
) -> list[tuple[str, Values, RunTotals]]:
    """Id, state and totals of those runs that are there, locked in the order of their ids."""
    locked: list[tuple[str, Values, RunTotals]] = []
    for some in _parts(sorted(set(run_ids))):
        for row in _execute(connection, _lock, some, some):
            state = dict(zip(_STATE, row[_STATE_FROM:], strict=True))
            state |= _times(state, "ended_at", "pruned_at")
            locked.append((row[0], state, mapping.totals_from_row(row[:_STATE_FROM])))
    return locked


def revisions(connection: Connection, keys: Iterable[RoundKey]) -> dict[RoundKey, tuple[int, bool]]:
    """Revision of each of the rounds that is stored, and whether it is closed."""
    known = {}
    for some in _parts(list(set(keys))):
        parameters = [value for key in some for value in key]
        for row in _execute(connection, _revisions, some, parameters):
            run_id, number, attempt, revision, closed = row
            known[run_id, number, attempt] = revision, bool(closed)
    return known


def hear(connection: Connection, run_ids: Iterable[str], now: datetime) -> None:
    """The servers of these runs live: something came from them."""
    seen = utc_text(now) if driver.is_sqlite(connection) else now
    for some in _parts(sorted(run_ids)):
        _execute(connection, _hear, some, [seen, *some])


# --- statements, by how many runs or rounds they are about, and with what mark a parameter ---------


@cache
def _lock(size: int, mark: str) -> str:
    totals = ", ".join(f"run_totals.{name}" for name in mapping.TOTALS_COLUMNS)
    state = ", ".join(f"runs.{name}" for name in _STATE)
    marks = ", ".join([mark] * size)
    return (
        f"SELECT {totals}, {state} FROM runs JOIN run_totals ON run_totals.run_id = runs.run_id "  # noqa: S608
        f"WHERE runs.run_id IN ({marks}) ORDER BY runs.run_id"
        # Both tables: of one that is not locked PostgreSQL gives the state from before it waited.
        + ("" if mark == "?" else " FOR UPDATE")
    )


@cache
def _revisions(size: int, mark: str) -> str:
    # Joined with them: SQLite looks through the whole table for `(…) IN (VALUES …)`.
    keys = ", ".join([f"({mark}, {mark}, {mark})"] * size)
    return (
        f"WITH wanted (run_id, round, attempt) AS (VALUES {keys}) "  # noqa: S608
        "SELECT rounds.run_id, rounds.round, rounds.attempt, revision, closed "
        "FROM wanted JOIN rounds ON rounds.run_id = wanted.run_id "
        "AND rounds.round = wanted.round AND rounds.attempt = wanted.attempt"
    )


@cache
def _hear(size: int, mark: str) -> str:
    marks = ", ".join([mark] * size)
    return f"UPDATE runs SET last_seen_at = {mark} WHERE run_id IN ({marks})"  # noqa: S608


def _execute(
    connection: Connection, statement: Any, of: Sequence[object], parameters: Sequence[object]
) -> list[driver.Row]:
    mark = "?" if driver.is_sqlite(connection) else "%s"
    return driver.execute(connection, statement(len(of), mark), tuple(parameters))


def _parts(things: Sequence[Any]) -> list[Sequence[Any]]:
    return [things[at : at + KEYS_AT_ONCE] for at in range(0, len(things), KEYS_AT_ONCE)]


def _times(row: Values, *names: str) -> dict[str, datetime | None]:
    """As `UtcDateTime` would give them."""
    times: dict[str, datetime | None] = {}
    for name in names:
        value = row[name]
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        times[name] = None if moment is None else moment.astimezone(UTC)
    return times
