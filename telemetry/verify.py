"""Whether a stored run still is what was recorded: every figure again, from what it was made of.

`verify_run` recomputes the seal from the stored figures, each round's evidence and sums from its
rows, the cumulative figures from the rounds and the run's totals from them. It shows that what is
stored agrees with itself and with the seal; whoever can rewrite the database whole can make a new
seal, which then differs from every copy of the old one (log, ``run.json``, a paper).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isclose
from operator import attrgetter
from typing import Any, Final

from telemetry.domain import Histogram, RoundSummary, RunTotals, StoredRun
from telemetry.errors import RowsNotKept
from telemetry.store import rules
from telemetry.store.base import Store

REL_TOLERANCE: Final = 1e-9
"""Of sums over rounds from before they were exact, which depend on the order of the rounds."""
SINCE_EVIDENCE: Final = frozenset(
    {
        "communication_emissions_kg_estimated",
        "imputed_emissions_kg",
        "imputed_low_emissions_kg",
        "imputed_high_emissions_kg",
        "imputed_clients",
        "estimated_total_emissions_kg",
        "reports_flagged",
        "flagged_emissions_kg",
        "evidence_sha256",
    }
)
"""Figures that rounds from before there was evidence do not have."""

_UNREADABLE: Final = (ValueError, TypeError, KeyError, ArithmeticError)
"""What reading a row raises that no version of this program has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A stored figure that is not what the stored rows come to."""

    where: str
    """``round 3``, ``round 3, attempt 2``, ``the run's totals`` or ``the run``."""
    figure: str
    stored: str
    recomputed: str

    def __str__(self) -> str:
        return f"{self.where}: {self.figure} is {self.stored}, recomputed {self.recomputed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of verifying one run."""

    run_id: str
    rounds: int
    """Closed rounds that were looked at, of every attempt."""
    sha256: str | None
    """The seal as it is stored."""
    differences: tuple[Difference, ...]
    unverified: tuple[str, ...]
    """What could not be verified and why, in words."""

    @property
    def ok(self) -> bool:
        """Whether nothing differs; something may still be unverified."""
        return not self.differences


def verify_run(store: Store, run_id: str) -> Verification:
    """Recompute all that can be recomputed of a run. Raises what the store raises."""
    try:
        run = store.run(run_id)
        rounds = list(store.rounds(run_id))
    except _UNREADABLE as error:
        broken = (_unreadable("the run", "its record", error),)
        return Verification(run_id=run_id, rounds=0, sha256=None, differences=broken, unverified=())
    if run.pruned_at is not None and not rounds:
        gone = (f"the seal and the sums: its rounds were pruned on {run.pruned_at:%Y-%m-%d}",)
        return Verification(
            run_id=run_id, rounds=0, sha256=run.sha256, differences=(), unverified=gone
        )
    unverified: list[str] = []
    differences = [
        *_pruned(run, rounds),
        *_seal(run, rounds, unverified.append),
        *_rounds(store, rounds, unverified.append),
        *_cumulative(run, rounds),
        *_totals(run, rounds, unverified.append),
    ]
    return Verification(
        run_id=run_id,
        rounds=len(rounds),
        sha256=run.sha256,
        differences=tuple(differences),
        unverified=tuple(unverified),
    )


Say = Callable[[str], None]


def _pruned(run: StoredRun, rounds: Sequence[RoundSummary]) -> Iterator[Difference]:
    if run.pruned_at is not None and rounds:
        kept = f"{len(rounds)} rounds are there"
        when = f"{run.pruned_at:%Y-%m-%d}"
        yield Difference(where="the run", figure="pruned_at", stored=when, recomputed=kept)


# --- the seal ------------------------------------------------------------------------------------


def _seal(run: StoredRun, rounds: Sequence[RoundSummary], say: Say) -> Iterator[Difference]:
    if run.ended_at is None:
        say("the seal: the run has not ended")
        return
    sealing = any(row.evidence_sha256 is not None or not row.client_rows for row in rounds)
    if run.sha256 is None and not sealing:
        say("the seal: the run ended before there were seals, or has no closed round")
        return
    try:
        recomputed = rules.sealed(run, rounds)
    except _UNREADABLE as error:
        yield _unreadable("the run", "sha256", error)
        return
    yield from _compared("the run", "sha256", run.sha256, recomputed)


# --- one round -------------------------------------------------------------------------------------


def _rounds(store: Store, rounds: Iterable[RoundSummary], say: Say) -> Iterator[Difference]:
    without_rows, without_evidence = [], []
    for row in rounds:
        if not row.client_rows:
            without_rows.append(_name(row))
            continue
        if row.evidence_sha256 is None:
            without_evidence.append(_name(row))
        yield from _round(store, row)
    if without_rows:
        say(f"the sums of {_listed(without_rows)}: no rows of clients are kept")
    if without_evidence:
        say(f"the rows of {_listed(without_evidence)}: recorded before there was evidence")


def _round(store: Store, row: RoundSummary) -> Iterator[Difference]:
    where = _name(row)
    try:
        record = store.round(row.run_id, row.round, row.attempt)
        recomputed = record.summary(row.cumulative_emissions_kg)
    except RowsNotKept:
        yield Difference(where=where, figure="rows", stored="not kept", recomputed="to be kept")
        return
    except _UNREADABLE as error:
        yield _unreadable(where, "rows", error)
        return
    for item in fields(RoundSummary):
        stored, found = getattr(row, item.name), getattr(recomputed, item.name)
        if row.evidence_sha256 is None and stored is None and item.name in SINCE_EVIDENCE:
            continue
        yield from _compared(where, item.name, stored, found)


# --- over the rounds -------------------------------------------------------------------------------


def _cumulative(run: StoredRun, rounds: Sequence[RoundSummary]) -> list[Difference]:
    """Each round's cumulative figure: the totals of the rounds closed before it, and its own.

    Rounds that say their place are in its order once the run has ended. Before, and of others: they were
    closed by number nearly always; otherwise the figures tell the order, for they never fall.
    """
    if run.ended_at is not None and any(row.sequence for row in rounds):
        return list(_chained(sorted(rounds, key=attrgetter("closing_order"))))
    as_they_came = sorted(
        (replace(row, sequence=None) for row in rounds), key=attrgetter("closing_order")
    )
    by_number = list(_chained(rounds))
    return by_number and min(by_number, list(_chained(as_they_came)), key=len)


def _chained(rounds: Iterable[RoundSummary]) -> Iterator[Difference]:
    sofar = RunTotals()
    for row in rounds:
        sofar = sofar.plus(row)
        stored, found = row.cumulative_emissions_kg, sofar.total_emissions_kg
        if found is None and stored == 0 and row.evidence_sha256 is None:
            continue  # from before there was evidence, when a round that nobody measured made it 0
        yield from _compared(_name(row), "cumulative_emissions_kg", stored, found, _about)


def _totals(run: StoredRun, rounds: Sequence[RoundSummary], say: Say) -> Iterator[Difference]:
    if run.ended_at is None:
        say("the run's totals: rounds may close at any time")
        return
    recomputed = RunTotals()
    for row in rounds:
        recomputed = recomputed.plus(row)
    unplaced = run.totals.reports_late - recomputed.reports_late
    if unplaced > 0:
        say(f"{unplaced} late report(s) in the run's totals: no round was open for them")
        recomputed = recomputed.with_late_reports(unplaced)
    exact = all(row.sequence for row in rounds)
    for item in fields(RunTotals):
        stored, found = getattr(run.totals, item.name), getattr(recomputed, item.name)
        if exact or item.name != "rests":
            same = _same if exact else _about
            yield from _compared("the run's totals", item.name, stored, found, same)


# --- comparing -------------------------------------------------------------------------------------


def _about(stored: Any, recomputed: Any) -> bool:
    if isinstance(stored, float) and isinstance(recomputed, float):
        return isclose(stored, recomputed, rel_tol=REL_TOLERANCE)
    return bool(stored == recomputed)


def _same(stored: Any, recomputed: Any) -> bool:
    return bool(stored == recomputed)


def _compared(
    where: str,
    figure: str,
    stored: Any,
    recomputed: Any,
    same: Callable[[Any, Any], bool] = _same,
) -> Iterator[Difference]:
    """What differs, member by member of a mapping or distribution."""
    if isinstance(stored, Histogram) and isinstance(recomputed, Histogram):
        for name in ("counts", "sum_g"):
            of_both = getattr(stored, name), getattr(recomputed, name)
            yield from _compared(where, f"{figure}.{name}", *of_both, same)
    elif isinstance(stored, Mapping) and isinstance(recomputed, Mapping):
        for name in sorted(stored.keys() | recomputed.keys()):
            of_both = stored.get(name), recomputed.get(name)
            yield from _compared(where, f"{figure}.{name}", *of_both, same)
    elif not same(stored, recomputed):
        yield Difference(
            where=where, figure=figure, stored=_told(stored), recomputed=_told(recomputed)
        )


def _told(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _unreadable(where: str, figure: str, error: Exception) -> Difference:
    told = " ".join(str(error).split())[:160]
    return Difference(where=where, figure=figure, stored=f"unreadable ({told})", recomputed="-")


def _name(row: RoundSummary) -> str:
    return f"round {row.round}" + (f", attempt {row.attempt}" if row.attempt > 1 else "")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} rounds ({names[0]} to {names[-1]})"
