"""The decisions of a store that are the same in every backend, as pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from operator import attrgetter
from typing import Any, Final

from telemetry.digest import run_sha256
from telemetry.domain import (
    Owner,
    PendingRound,
    PendingRun,
    Rest,
    RoundRecord,
    RoundSummary,
    RunEnd,
    RunStatus,
    StoredRun,
    added,
)
from telemetry.errors import RunNotFound
from telemetry.store.base import LEASE_EXPIRES_S

GONE: Final = "the server went away without ending the run"
"""Why a run is marked ``interrupted``."""

_node: Final = attrgetter("node_id")
_report: Final = attrgetter("node_id", "phase", "reported_round")
_EXPIRES: Final = timedelta(seconds=LEASE_EXPIRES_S)


class Write(Enum):
    """What to do with a round that is stored already."""

    REPLACE = "a newer revision of an open round"
    SKIP = "out of date"
    COMPARE = "closed: only the same content may come again"


def decide(new: RoundRecord, stored_revision: int, stored_closed: bool) -> Write:
    """What to do with ``new`` where its round is stored with that revision and state."""
    if not stored_closed:
        return Write.REPLACE if new.revision > stored_revision else Write.SKIP
    if not new.closed and new.revision < stored_revision:
        return Write.SKIP
    return Write.COMPARE


def same_content(one: RoundRecord, other: RoundRecord) -> bool:
    """Whether both say the same; a revision number alone is no content."""
    return one.model_copy(update={"revision": other.revision}) == other


def same_figures(record: RoundRecord, stored: RoundSummary) -> bool:
    """`same_content` where the rows of the stored round were not kept."""
    new = record.summary(stored.cumulative_emissions_kg)
    return replace(new, revision=stored.revision) == stored


def impossible(record: RoundRecord) -> str | None:
    """Why a round cannot be stored, in words; None if it can."""
    if record.closed and record.status == "running":
        return "is closed and still running"
    if len(set(map(_node, record.participants))) < len(record.participants):
        return "names a participant twice"
    if len(set(map(_report, record.reports))) < len(record.reports):
        return "holds two reports of one client, phase and round"
    return None


def no_such_round(url: str, run_id: str, number: int, attempt: int | None) -> RunNotFound:
    """The error of a store that has the run, but not this round of it."""
    which = f"round {number}" if attempt is None else f"round {number} (attempt {attempt})"
    return RunNotFound(f"{run_id} with a {which}", (run_id,), url)


def closed_by_interruption(record: RoundRecord) -> RoundRecord:
    """An open round as it is closed for an owner that is gone.

    One revision later than what was stored: to a receiver of the open round this one is news.
    """
    return record.model_copy(update=_interrupted(record))


def summary_closed_by_interruption(summary: RoundSummary) -> RoundSummary:
    """`closed_by_interruption` where the round's rows were not kept."""
    return replace(summary, **_interrupted(summary))


def _interrupted(opened: RoundRecord | RoundSummary) -> dict[str, Any]:
    status = "interrupted" if opened.status == "running" else opened.status
    return {"closed": True, "status": status, "revision": opened.revision + 1}


def lease_expired(last_seen_at: datetime, now: datetime) -> bool:
    """Whether the owner was last heard of too long ago."""
    return now - last_seen_at > _EXPIRES


def is_gone(run: StoredRun, now: datetime, is_alive: Callable[[Owner], bool]) -> bool:
    """Whether nobody is at work on a run, or serves it, any more."""
    return run.owner is None or lease_expired(run.last_seen_at, now) or not is_alive(run.owner)


def resumes(
    status: RunStatus, ended_at: datetime | None, attempts: int, news: Iterable[RoundRecord]
) -> bool:
    """Whether rounds that were delivered after a run's end say that it was taken up again.

    Taking a run up begins a new attempt at its set-up: one later than any that is stored, and later
    than the end. What merely came late does neither.
    """
    if ended_at is None or not may_resume(status):
        return False
    return any(one.attempt > max(attempts, 1) and one.started_at >= ended_at for one in news)


def may_end_again(status: RunStatus) -> bool:
    """Whether another end of a run may be news: of one that was resumed, or is running."""
    return status != "completed"


def may_resume(status: RunStatus) -> bool:
    """Whether a run of this status can be taken up again."""
    return status not in ("running", "completed")


def may_prune(run: StoredRun, before: datetime, *, keep_totals: bool) -> bool:
    """Whether a run ended so long ago, and has something left that is to go."""
    old = run.ended_at is not None and run.ended_at < before
    return old and not (keep_totals and run.pruned_at is not None)


def may_delete(run: StoredRun, now: datetime) -> bool:
    """Whether nobody is at work on a run any more."""
    return run.status != "running" or lease_expired(run.last_seen_at, now)


def sealed(run: StoredRun, rounds: Iterable[RoundSummary]) -> str | None:
    """The seal of a run with these closed rounds; None while it runs."""
    if run.ended_at is None:
        return None
    return run_sha256(run.info, run.status, run.reason, run.ended_at, rounds)


def wrongly_added(rounds: Iterable[RoundSummary]) -> list[RoundSummary]:
    """Closed rounds whose cumulative figure is not that of the order of their closing, with it.

    They may have come in another. Where no round says its place, a run that was never resumed was closed
    by number; how the attempts of another lie among each other is not known, and it stays as it is.
    """
    rows = sorted(rounds, key=attrgetter("closing_order"))
    if not any(row.sequence for row in rows):
        if any(row.attempt > 1 for row in rows):
            return []
        rows.sort(key=attrgetter("round"))
    total: float | None = None
    rest: Rest = ()
    wrong = []
    for row in rows:
        total, rest = added(total, rest, row, row.measured_emissions_kg)
        if row.cumulative_emissions_kg != total:
            wrong.append(replace(row, cumulative_emissions_kg=total))
    return wrong


def require_end(status: RunStatus) -> None:
    """Refuse to end a run as ``running``: a slip of the caller, not of the data."""
    if status == "running":
        raise ValueError("a run cannot end with the status 'running'")


def chosen_runs(
    runs: Sequence[StoredRun], now: datetime, owner: Owner | None, max_runs: int
) -> list[StoredRun]:
    """The runs that ``/metrics`` of ``owner`` shows (None: all), oldest start first."""
    if owner is None:
        return sorted(runs, key=_start)
    mine = [run for run in runs if run.owner == owner]
    if not _comes_first(runs, now, owner):
        return sorted(mine, key=_start)
    others = [r for r in runs if r.owner != owner and r.ended_at is not None and _unheld(r, now)]
    return sorted([*mine, *_last_ended(others, max_runs)], key=_start)


def _comes_first(runs: Sequence[StoredRun], now: datetime, owner: Owner) -> bool:
    """Whether it is ``owner`` among the living who shows the runs that nobody holds: each run has one
    source. It is whose run began first.
    """
    held = [run for run in runs if run.owner == owner or not _unheld(run, now)]
    return not held or min(held, key=_start).owner == owner


def detailed_runs(chosen: Sequence[StoredRun], max_runs: int) -> frozenset[str]:
    """Those of the chosen runs that are shown with their rounds, by id."""
    ended = [run for run in chosen if run.ended_at is not None]
    running = [run for run in chosen if run.ended_at is None]
    return frozenset(run.run_id for run in [*running, *_last_ended(ended, max_runs)])


def deliverable_runs(
    runs: Iterable[StoredRun], now: datetime, owner: Owner | None
) -> list[StoredRun]:
    """The runs that ``owner`` delivers: its own first, then those that nobody holds, by start."""
    chosen = [
        run
        for run in runs
        if is_deliverable(run) and ((owner is not None and run.owner == owner) or _unheld(run, now))
    ]
    return sorted(chosen, key=lambda run: (owner is None or run.owner != owner, *_start(run)))


def is_deliverable(run: StoredRun) -> bool:
    """Whether a service could be told of a run: it adds up the rows itself."""
    return run.info.client_rows and run.pruned_at is None


def pending_run(
    run: StoredRun, rounds: Iterable[PendingRound], known_end: datetime | None, *, announced: bool,
    late_in_rounds: int,
) -> PendingRun:  # fmt: skip
    """What is left to tell of a run, of which a service knows that it ended at ``known_end``.

    Where it ended otherwise since, or goes on, it has to be announced again.
    """
    end = RunEnd.of(run, late_in_rounds)
    return PendingRun(
        run=run,
        announced=announced and known_end in (None, run.ended_at),
        rounds=tuple(sorted(rounds, key=attrgetter("closing_order"))),
        end=None if known_end == run.ended_at else end,
    )


def _unheld(run: StoredRun, now: datetime) -> bool:
    return run.owner is None or lease_expired(run.last_seen_at, now)


def _last_ended(runs: Iterable[StoredRun], limit: int) -> list[StoredRun]:
    return sorted(runs, key=_end, reverse=True)[:limit]


def _start(run: StoredRun) -> tuple[datetime, str]:
    return run.info.started_at, run.run_id


def _end(run: StoredRun) -> tuple[datetime, str]:
    return run.ended_at or run.last_seen_at, run.run_id
