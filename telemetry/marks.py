"""Marks on reports that look odd: shown beside the figures, never a reason to change one.

*Outlier*: the modified z-score of Iglewicz and Hoaglin (1993), *How to Detect and Handle Outliers*:
|0.6745 (x - median) / MAD| > 3.5, over the reports of one round and phase.

*Looks cumulative*: a client that keeps one tracker for all rounds and sends its running total. Its
values never fall, and what it adds each round is steadier than the values themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import fsum
from statistics import fmean, median, pstdev
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


def looks_cumulative(values: Sequence[float]) -> bool:
    """Whether a client's last five values, oldest first, rise as a running total does.

    None falls, and their differences have a smaller coefficient of variation (standard deviation ÷
    mean) than they have themselves. Equal values are a steady client, not a running total.
    """
    last = values[-ROUNDS_TO_LOOK_CUMULATIVE:]
    if len(last) < ROUNDS_TO_LOOK_CUMULATIVE:
        return False
    steps = [after - before for before, after in pairwise(last)]
    if min(steps) < 0 or fsum(steps) <= 0:
        return False
    return pstdev(steps) / fmean(steps) < pstdev(last) / fmean(last)


class BareHistory:
    """The last bare values of each client of a run: what `looks_cumulative` judges.

    A bare value is an amount without energy or window, as the platform's page shows it. Our helpers
    measure each call by itself and are not looked at. Not thread-safe.
    """

    def __init__(self) -> None:
        self._values: dict[str, deque[float]] = {}

    def of(self, node_id: str) -> Sequence[float]:
        """A client's last values, oldest first; at most one fewer than are judged."""
        return tuple(self._values.get(node_id, ()))

    def add(self, reports: Iterable[ReportRecord]) -> None:
        """Take in the reports of a round that has closed."""
        for report in reports:
            if is_bare(report):
                kept = self._values.setdefault(
                    report.node_id, deque(maxlen=ROUNDS_TO_LOOK_CUMULATIVE - 1)
                )
                kept.append(report.emissions_kg or 0.0)


def is_bare(report: ReportRecord) -> bool:
    """Whether this is an accepted amount from training in its own round, and nothing else."""
    return (
        report.accepted
        and report.phase == "train"
        and not report.late
        and report.energy_kwh is None
        and report.schema_version is None
    )
