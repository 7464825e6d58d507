"""Families filled with the samples of runs, page after page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any

from prometheus_client.metrics_core import Metric

from telemetry.domain import RoundSummary
from telemetry.exporters.closed_rounds import OfClosedRounds
from telemetry.exporters.family import Family, Labels, add
from telemetry.exporters.samples import RunView

_Kept = tuple[Sequence[RoundSummary], Labels, list[Any]]
"""Closed rounds of a run, its training metrics, and the samples that a family made of them."""


class Filling:
    """Fills families, and remembers what the last page had of closed rounds: those never change.

    They are most of a page with many runs, and to make their samples takes as long as to write them.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}

    def filled(self, families: Iterable[Family[RunView]], views: Sequence[RunView]) -> list[Metric]:
        """The families with the samples of these runs."""
        kept: dict[tuple[str, str], _Kept] = {}
        metrics = [self._of(family, views, kept) for family in families]
        self._kept = kept  # what is on the page no more is forgotten
        return metrics

    def _of(
        self,
        family: Family[RunView],
        views: Sequence[RunView],
        kept: dict[tuple[str, str], _Kept],
    ) -> Metric:
        metric = family.empty()
        for view in views:
            if family.tracked_only and not view.tracked:
                continue
            if isinstance(family.samples, OfClosedRounds):
                key = family.name, view.run_id
                kept[key] = _still(self._kept.get(key), view) or _made(family, view)
                metric.samples += kept[key][2]
            else:
                _fill(metric, family, view)
        return metric


def _still(before: _Kept | None, view: RunView) -> _Kept | None:
    """What was made, if it was made of the very same rounds and for the same names."""
    if before is None:
        return None
    rounds = view.exposed.rounds
    same = rounds is before[0] or (
        len(rounds) == len(before[0]) and all(map(is_, rounds, before[0]))
    )
    return before if same and view.metric_names == before[1] else None


def _made(family: Family[RunView], view: RunView) -> _Kept:
    metric = family.empty()
    _fill(metric, family, view)
    return view.exposed.rounds, view.metric_names, metric.samples


def _fill(metric: Metric, family: Family[RunView], view: RunView) -> None:
    for labels, value in family.samples(view):
        add(metric, (view.run_id, *labels), value)
