"""What a run may emit: pure functions from its rounds and its budget to a verdict.

Only measured amounts count, never an estimate: those of the server and of accepted reports, of every
attempt at every round, the set-up included. What is unknown counts nothing, so a verdict errs on the
side of going on.

A report is a client's own claim, and a claim must not end the training of everybody else: reports that
bear a mark (`telemetry.marks`) do not count towards a stop, and where fewer than three clients
reported, or one of them makes more than half of what is spent, `stop` only warns. Of what is *spent*,
the server's part included: that part no client can make up, so the more of it there is, the less a
single client decides. Where nobody reported, the server's figure alone is enough. Where clients show tokens this does not apply: each is somebody the operator
has let in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from statistics import fmean
from types import MappingProxyType
from typing import Final, Literal

from telemetry.domain import GRAMS_PER_KG, OnBudget, RoundSummary, sum_known

FORECAST_ROUNDS: Final = 3
"""The next round is taken to cost the mean of the last so many."""
WARN_FROM: Final = 0.8
"""Share of the budget from which on it is nearly spent."""
FEWEST_REPORTERS: Final = 3
"""Of fewer clients no majority is independent of any one of them."""
GREATEST_SHARE: Final = 0.5
"""What one client may make of what is spent for a stop to rest on it."""

Action = Literal["ok", "warn", "stop"]
Cause = Literal["unknown", "near", "crossing", "spent"]
HeldBack = Literal["flagged", "few_reporters", "one_reporter"]


@dataclass(frozen=True, slots=True)
class Reporters:
    """Who reported what counts towards a stop, kg CO2eq by client; without reports that bear a mark.

    What rounds count for clients beyond that is nobody's by name: it may all be one client's.
    """

    by_client: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the next round may be played. ``cause`` and ``held_back`` say why, in one word each."""

    budget_kg: float
    spent_kg: float | None
    """Measured emissions so far; None while nothing is known."""
    forecast_kg: float | None
    """What the next round is expected to emit; None before the first."""
    action: Action
    cause: Cause | None = None
    held_back: HeldBack | None = None
    """Why a stop that was asked for is a warning."""

    @property
    def used_ratio(self) -> float | None:
        """Spent ÷ budget."""
        return used_ratio(self.spent_kg, self.budget_kg)

    @property
    def reason(self) -> str | None:
        """In words; None where all is well."""
        if self.cause is None:
            return None
        said = self._cause_in_words()
        return said if self.held_back is None else f"{said}; {_HELD_BACK[self.held_back]}"

    def _cause_in_words(self) -> str:
        budget, used = _grams(self.budget_kg), self.used_ratio
        if self.spent_kg is None or used is None:
            return f"of the budget of {budget} nothing is known to be spent: nothing was measured"
        spent = f"{_grams(self.spent_kg)} of the budget of {budget} are spent ({used * 100:.0f} %)"
        if self.cause == "crossing":
            return f"{spent}, and the next round would take about {_grams(self.forecast_kg or 0.0)}"
        return spent


_HELD_BACK: Final[Mapping[HeldBack, str]] = {
    "flagged": "without the reports that look odd it would hold: the training goes on",
    "few_reporters": f"fewer than {FEWEST_REPORTERS} clients reported, and without tokens anybody "
    "could claim so much: the training goes on",
    "one_reporter": "one client may make more than half of it, and without tokens anybody could "
    "claim so much: the training goes on",
}


def used_ratio(spent_kg: float | None, budget_kg: float | None) -> float | None:
    """Spent ÷ budget; None without one of them, or for a budget of 0."""
    return None if spent_kg is None or not budget_kg else spent_kg / budget_kg


def judge(
    rounds: Sequence[RoundSummary],
    budget_kg: float,
    on_budget: OnBudget,
    reporters: Reporters | None = None,
) -> Verdict:
    """Whether another round may follow ``rounds``: all of the run so far, every attempt.

    A round that has been played but not yet closed counts like a closed one. ``reporters`` None
    stands for clients that all show tokens.
    """
    spent_kg = sum_known(row.measured_emissions_kg for row in rounds)
    played = _last_played(rounds)
    forecast_kg = _mean(row.measured_emissions_kg or 0.0 for row in played)

    def verdict(
        action: Action, cause: Cause | None = None, held_back: HeldBack | None = None
    ) -> Verdict:
        return Verdict(
            budget_kg=budget_kg,
            spent_kg=spent_kg,
            forecast_kg=forecast_kg,
            action=action,
            cause=cause,
            held_back=held_back,
        )

    if spent_kg is None:  # a set-up alone need not be known: clients report from round 1 on
        begun = any(row.round > 0 for row in rounds)
        return verdict("warn" if begun else "ok", "unknown" if begun else None)
    crossing = _crosses(spent_kg, forecast_kg, budget_kg)
    cause: Cause | None = None
    if spent_kg > budget_kg:
        cause = "spent"
    elif crossing:
        cause = "crossing"
    elif spent_kg >= WARN_FROM * budget_kg:
        cause = "near"
    if not crossing or on_budget == "warn":
        return verdict("ok" if cause is None else "warn", cause)
    held_back = _held_back(rounds, played, budget_kg, reporters)
    return verdict("stop" if held_back is None else "warn", cause, held_back)


def _last_played(rounds: Sequence[RoundSummary]) -> list[RoundSummary]:
    """The rounds that the forecast rests on: whole ones whose emissions are known."""
    whole = [
        row
        for row in rounds
        if row.round > 0 and row.status != "interrupted" and row.measured_emissions_kg is not None
    ]
    return sorted(whole, key=lambda row: (row.round, row.attempt))[-FORECAST_ROUNDS:]


def _crosses(spent_kg: float, forecast_kg: float | None, budget_kg: float) -> bool:
    return spent_kg + (forecast_kg or 0.0) > budget_kg


def _held_back(
    rounds: Sequence[RoundSummary],
    played: Sequence[RoundSummary],
    budget_kg: float,
    reporters: Reporters | None,
) -> HeldBack | None:
    """Why the run must not be stopped although the budget would be crossed; None if it may be."""
    spent_kg = fsum(map(_unmarked, rounds))
    if not _crosses(spent_kg, _mean(map(_unmarked, played)), budget_kg):
        return "flagged"
    if reporters is None:
        return None
    most_in_a_round = max(
        (row.client_histogram.count - (row.reports_flagged or 0) for row in rounds), default=0
    )
    count = max(len(reporters.by_client), most_in_a_round)
    if not count:  # all of it is the server's own measurement
        return None
    if count < FEWEST_REPORTERS:
        return "few_reporters"
    known = reporters.by_client.values()
    from_clients = fsum(
        (row.clients_emissions_kg or 0.0) - (row.flagged_emissions_kg or 0.0) for row in rounds
    )
    nobodys = max(0.0, from_clients - fsum(known))
    greatest = max(known, default=0.0) + nobodys
    return "one_reporter" if greatest > GREATEST_SHARE * spent_kg else None


def _unmarked(row: RoundSummary) -> float:
    """What a round counts towards a stop."""
    return max(0.0, (row.total_emissions_kg or 0.0) - (row.flagged_emissions_kg or 0.0))


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


def _grams(kg: float) -> str:
    """Three digits, or all before the point, and no exponent."""
    grams = kg * GRAMS_PER_KG
    decimals = 0 if grams <= 0 else max(0, 2 - math.floor(math.log10(grams)))
    return f"{grams:.{decimals}f} g"
