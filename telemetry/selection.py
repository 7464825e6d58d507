"""Which run somebody means."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from telemetry.domain import StoredRun
from telemetry.errors import RunDeleted, RunNotFound
from telemetry.printable import printable
from telemetry.store.base import Store

LATEST: Final = "latest"
MIN_PREFIX: Final = 4
"""Fewer characters of a run's id than this are never taken for it."""
MAX_CANDIDATES: Final = 5


def resolve_run(store: Store, wanted: str) -> StoredRun:
    """The run that ``wanted`` names.

    In this order: its exact id; the beginning of exactly one id, from `MIN_PREFIX` characters on;
    its name (the newest run of that name); ``latest``, the one that started last, running or not.
    Raises `RunNotFound` with at most `MAX_CANDIDATES` candidates, the likeliest first (`RunDeleted`
    for the exact id of a run that was deleted), and `StoreError` where the store cannot be read.
    """
    runs = sorted(store.runs(), key=lambda run: run.info.started_at, reverse=True)
    found = _exact(runs, wanted) or _by_prefix(runs, wanted) or _by_name(runs, wanted)
    if found is None and wanted == LATEST and runs:
        found = runs[0]
    if found is None:
        _refuse_deleted(store, wanted)
        raise RunNotFound(wanted, _candidates(runs, wanted), store.url)
    return found


def _refuse_deleted(store: Store, wanted: str) -> None:
    try:
        store.run(wanted)
    except RunDeleted:
        raise
    except RunNotFound:
        return


def _exact(runs: Sequence[StoredRun], wanted: str) -> StoredRun | None:
    return next((run for run in runs if run.run_id == wanted), None)


def _by_prefix(runs: Sequence[StoredRun], wanted: str) -> StoredRun | None:
    matches = _beginning_with(runs, wanted)
    return matches[0] if len(matches) == 1 else None


def _beginning_with(runs: Sequence[StoredRun], wanted: str) -> list[StoredRun]:
    long_enough = len(wanted) >= MIN_PREFIX
    return [run for run in runs if long_enough and run.run_id.startswith(wanted)]


def _by_name(runs: Sequence[StoredRun], wanted: str) -> StoredRun | None:
    return next((run for run in runs if run.info.run_name == wanted), None)


def _candidates(runs: Sequence[StoredRun], wanted: str) -> tuple[str, ...]:
    """Ids with their names: those that begin so, then those that look alike, then the newest."""
    texts = {text for run in runs for text in (run.run_id, run.info.run_name)}
    alike = get_close_matches(wanted, sorted(texts), n=MAX_CANDIDATES, cutoff=0.5)
    ranked = _beginning_with(runs, wanted)
    for text in alike:
        ranked += [run for run in runs if text in (run.run_id, run.info.run_name)]
    distinct = {
        run.run_id: f"{run.run_id} ({printable(run.info.run_name)})" for run in [*ranked, *runs]
    }
    return tuple(distinct.values())[:MAX_CANDIDATES]
