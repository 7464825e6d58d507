"""What training progress cost: grams per point of a metric, and grams to a target.

A *point* is 0.01 of the metric. Grams are those measured since the run's start (set-up and every
attempt included) and known: `RoundSummary.cumulative_emissions_kg`. Where a round was not measured,
they are a lower bound. A metric's value is the clients' evaluation where the run has one, else
training; of a round that was repeated the last attempt's.

The *marginal* cost is that of a round that set a new best: grams since the best before it ÷ points
gained over that. The first value gains nothing over anything, and a round that sets no new best has
no marginal cost: its grams are counted to the next one that does.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from telemetry.domain import GRAMS_PER_KG, RoundSummary, RunTotals

POINT: Final = 0.01
LOWER_IS_BETTER: Final[frozenset[str]] = frozenset(
    {
        "loss", "error", "err", "mse", "rmse", "mae", "mape", "msle", "nll", "crossentropy",
        "perplexity", "ppl", "brier", "wer", "cer", "eer", "hinge", "divergence", "deviance",
    }
)  # fmt: skip
"""A metric with one of these among the words of its name falls as a model improves."""
SAME: Final = 1e-9
"""Two values this near, relatively, are one: an average's last digits are no progress."""

Split = Literal["evaluate", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A round that has a value of the metric."""

    round: int
    value: float
    spent_kg: float | None
    """Known emissions from the run's start to this round's end, kg CO2eq."""
    best: bool
    """Whether it is better than every value before it; the first one is."""
    points: float | None = None
    """Gained over the best before; None where there is no new best, or none before."""
    marginal_g_per_point: float | None = None
    """Grams since the best before ÷ ``points``; None where either is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A run's progress in one metric, and what it cost."""

    metric: str
    split: Split
    lower_is_better: bool
    steps: tuple[Step, ...]
    """In the order in which the rounds ended; never empty."""

    @property
    def best(self) -> Step:
        """The first round that had the best value."""
        return next(step for step in reversed(self.steps) if step.best)

    @property
    def points(self) -> float:
        """Points from the first value to the best; 0 where nothing was gained."""
        return _points(self.steps[0].value, self.best.value)

    @property
    def average_g_per_point(self) -> float | None:
        """Grams from the first value to the best ÷ points; None where nothing was gained."""
        return _price(self.steps[0].spent_kg, self.best.spent_kg, self.points)

    @property
    def marginal_g_per_point(self) -> float | None:
        """Of the last round; None where it set no new best."""
        return self.steps[-1].marginal_g_per_point

    @property
    def last_gain(self) -> Step | None:
        """The last round that gained anything over the best before it."""
        return next((step for step in reversed(self.steps) if step.points is not None), None)

    def reaching(self, target: float) -> Step | None:
        """The first round whose value is ``target`` or better; None where none is."""
        return next((s for s in self.steps if self._reaches(s.value, target)), None)

    def _reaches(self, value: float, target: float) -> bool:
        return value <= target if self.lower_is_better else value >= target


def value_of(
    rounds: Sequence[RoundSummary], metric: str, *, lower_is_better: bool | None = None
) -> Value | None:
    """A run's progress in ``metric`` from its closed rounds; None where no round has it.

    Which way is better follows from the name (`falls`) unless it is said.
    """
    found = _last_attempts(rounds)
    split = _split(found, metric)
    if split is None:
        return None
    falling = falls(metric) if lower_is_better is None else lower_is_better
    first_figure = min(
        (row.ended_at for row in rounds if row.measured_emissions_kg is not None), default=None
    )
    steps: list[Step] = []
    best: Step | None = None
    for row in found:
        value = _metrics(row, split).get(metric)
        if value is None:
            continue
        known = first_figure is not None and row.ended_at >= first_figure
        step = _step(row, value, row.cumulative_emissions_kg if known else None, best, falling)
        steps.append(step)
        best = step if step.best else best
    return Value(metric=metric, split=split, lower_is_better=falling, steps=tuple(steps))


def marginal_g_per_point(rounds: Sequence[RoundSummary], value_metric: str) -> float | None:
    """Grams per point of the last of these closed rounds: since the best value before it.

    None where it set no new best, and where the rounds do not begin with the run's first: the best
    may then be among those that are not given.
    """
    if not rounds or min(row.round for row in rounds) > 1:
        return None
    newest = max(rounds, key=_ended)
    value = value_of(rounds, value_metric)
    if value is None or value.steps[-1].round != newest.round:
        return None
    return value.marginal_g_per_point


def falls(metric: str) -> bool:
    """Whether a metric of this name is better the lower it is: ``loss``, ``val_loss``, ``mse``…"""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", metric)
    joined = [first + second for first, second in pairwise(words)]
    return any(word.lower() in LOWER_IS_BETTER for word in (*words, *joined))


def metric_names(rounds: Sequence[RoundSummary]) -> tuple[str, ...]:
    """Names of all metrics that these rounds have, alphabetically."""
    return tuple(sorted({n for r in rounds for n in (*r.evaluate_metrics, *r.train_metrics)}))


def measured_kg(totals: RunTotals) -> float | None:
    """A run's total, kg CO2eq; None where nothing of server or clients was ever known.

    A round that nobody took part in counts 0 even where the server has no meter, and so does the sum
    of such rounds: no knowledge of what the run emitted.
    """
    parts = (totals.server_emissions_kg, totals.clients_emissions_kg)
    return None if parts == (None, None) else totals.total_emissions_kg


def _step(
    row: RoundSummary, value: float, spent: float | None, best: Step | None, falling: bool
) -> Step:
    is_best = best is None or _better(value, best.value, falling)
    points = _points(best.value, value) if best is not None and is_best else None
    return Step(
        round=row.round,
        value=value,
        spent_kg=spent,
        best=is_best,
        points=points,
        marginal_g_per_point=None
        if best is None or points is None
        else _price(best.spent_kg, spent, points),
    )


def _better(value: float, best: float, falling: bool) -> bool:
    if math.isclose(value, best, rel_tol=SAME):
        return False
    return value < best if falling else value > best


def _points(before: float, after: float) -> float:
    # A metric may be any finite number, and the difference of two beyond one.
    return min(abs(after - before) / POINT, sys.float_info.max)


def _price(before_kg: float | None, after_kg: float | None, points: float) -> float | None:
    """Grams from one round to another ÷ points; None where that is no number."""
    if before_kg is None or after_kg is None or not points:
        return None
    price = (after_kg - before_kg) * GRAMS_PER_KG / points
    return price if math.isfinite(price) else None


def _last_attempts(rounds: Sequence[RoundSummary]) -> list[RoundSummary]:
    last: dict[int, RoundSummary] = {}
    for row in sorted(rounds, key=lambda row: (row.round, row.attempt)):
        last[row.round] = row
    return sorted(last.values(), key=_ended)


def _ended(row: RoundSummary) -> tuple[object, int]:
    return row.ended_at, row.round


def _split(rounds: Sequence[RoundSummary], metric: str) -> Split | None:
    if any(metric in row.evaluate_metrics for row in rounds):
        return "evaluate"
    return "train" if any(metric in row.train_metrics for row in rounds) else None


def _metrics(row: RoundSummary, split: Split) -> Mapping[str, float]:
    return row.evaluate_metrics if split == "evaluate" else row.train_metrics
