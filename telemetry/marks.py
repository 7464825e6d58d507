"""Marks on reports that look odd: shown beside the figures, never a reason to change one.

*Outlier*: the modified z-score of Iglewicz and Hoaglin (1993), *How to Detect and Handle Outliers*:
|0.6745 (x - median) / MAD| > 3.5, over the reports of one round and phase.

*Looks cumulative*: a client that keeps one tracker for all rounds and sends its running total. Over
five rounds and more its values never fall, and what it adds each round is steadier than the values
themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median
from typing import Final, TypeVar

from telemetry.domain import ReportRecord

ROUNDS_TO_LOOK_CUMULATIVE: Final = 5
FEWEST_REPORTS_FOR_OUTLIERS: Final = 5
OUTLIER_SCORE: Final = 3.5
_MAD_TO_SIGMA: Final = 0.6745
_MEAN_TO_SIGMA: Final = 0.7979
"""For a normal distribution; stands in where more than half of the values are equal (MAD = 0)."""
K = TypeVar("K")


def outliers(values: Mapping[K, float]) -> frozenset[K]:
    """The keys whose value is far from the others'; none among fewer than five."""
    if len(values) < FEWEST_REPORTS_FOR_OUTLIERS:
        return frozenset()
    middle = median(values.values())
    away = {key: abs(value - middle) for key, value in values.items()}
    spread = median(away.values())
    scale, factor = (
        (spread, _MAD_TO_SIGMA) if spread > 0 else (fmean(away.values()), _MEAN_TO_SIGMA)
    )
    if scale <= 0:
        return frozenset()
    return frozenset(key for key, value in away.items() if factor * value / scale > OUTLIER_SCORE)


@dataclass(frozen=True, slots=True)
class Spread:
    """Count, mean and squared deviations of a series, by Welford's recurrence."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def plus(self, value: float) -> Spread:
        """The series with one more value."""
        count = self.count + 1
        away = value - self.mean
        mean = self.mean + away / count
        return Spread(count, mean, self.squares + away * (value - mean))

    @property
    def variation(self) -> float:
        """Coefficient of variation: standard deviation ÷ mean; infinite where the mean is 0."""
        return sqrt(self.squares / self.count) / self.mean if self.mean > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Rise:
    """A client's bare values, any unit, since they last fell: what tells a running total.

    All of them and not the last five: the higher a running total stands, the less it varies over
    five rounds, and after some twenty an uneven one would no longer be told from a steady client.
    """

    last: float | None = None
    values: Spread = Spread()
    steps: Spread = Spread()

    def then(self, value: float) -> Rise:
        """After one more value; a lower one begins anew."""
        if self.last is None or value < self.last:
            return Rise(value, Spread().plus(value))
        return Rise(value, self.values.plus(value), self.steps.plus(value - self.last))

    @property
    def looks_cumulative(self) -> bool:
        """Whether these are five values or more that rise as a running total does.

        Their differences have a smaller coefficient of variation than they have themselves, and one
        below 1: four zeros and a first value are no steady rise. Equal values are a steady client.
        """
        return (
            self.values.count >= ROUNDS_TO_LOOK_CUMULATIVE
            and self.steps.mean > 0
            and self.steps.variation < min(1.0, self.values.variation)
        )


class BareHistory:
    """What each client of a run has reported bare: what `Rise.looks_cumulative` judges.

    A bare value is an amount without energy or window, as the platform's page shows it. Our helpers
    measure each call by itself and are not looked at. Bounded for each client. Not thread-safe.
    """

    def __init__(self) -> None:
        self._rises: dict[str, Rise] = {}

    def of(self, node_id: str) -> Rise:
        """A client's values in the rounds that have closed."""
        return self._rises.get(node_id, NO_VALUES)

    def add(self, reports: Iterable[ReportRecord]) -> None:
        """Take in the reports of a round that has closed."""
        for report in reports:
            if is_bare(report):
                self._rises[report.node_id] = self.of(report.node_id).then(
                    report.emissions_kg or 0.0
                )


NO_VALUES: Final = Rise()


def is_bare(report: ReportRecord) -> bool:
    """Whether this is an accepted amount from training in its own round, and nothing else."""
    return (
        report.accepted
        and report.phase == "train"
        and not report.late
        and report.energy_kwh is None
        and report.schema_version is None
        and report.started_at is None
    )
