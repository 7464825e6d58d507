"""What a row of the catalogue of metrics is, and how it becomes a family of Prometheus's library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Final, Generic, Literal, TypeVar

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from telemetry.domain import CLIENT_BUCKETS_G, Histogram
from telemetry.durations import Distribution

MetricType = Literal["counter", "gauge", "histogram", "info"]
Where = Literal["run", "process", "server", "service"]
"""Whose figure it is: a run's (with the label ``run_id``), any process's that answers ``/metrics``, an
FL server's only, or the telemetry service's only."""

Labels = tuple[str, ...]
Sample = tuple[Labels, float | Histogram | Distribution]
"""Values of the labels (of a run's family: after ``run_id``), and the value."""
View = TypeVar("View")
"""What the samples of a family are taken from."""


@dataclass(frozen=True, slots=True)
class Family(Generic[View]):
    """A metric: its name, what is and is not in it, and its samples."""

    name: str
    type: MetricType
    help: str
    samples: Callable[[View], Iterable[Sample]]
    labels: Labels = ()
    """Beside ``run_id``."""
    tracked_only: bool = False
    """Absent for runs whose emissions are not tracked: unknown there, not zero."""
    where: Where = "run"

    @property
    def all_labels(self) -> Labels:
        """In the order of a sample's."""
        return ("run_id", *self.labels) if self.where == "run" else self.labels

    def empty(self) -> Metric:
        """The family without samples."""
        return _EMPTY[self.type](self.name, self.help, self.all_labels)

    def filled(self, view: View) -> Metric:
        """The family with the samples of one view that has no run."""
        metric = self.empty()
        for labels, value in self.samples(view):
            add(metric, labels, value)
        return metric


class FamiliesCollector(Collector, Generic[View]):
    """Families of one view, read at each scrape from whatever thread answers it."""

    def __init__(self, families: Iterable[Family[View]], view: View) -> None:
        self._families = tuple(families)
        self._view = view

    def describe(self) -> Iterable[Metric]:
        """Every family, empty."""
        return [family.empty() for family in self._families]

    def collect(self) -> Iterable[Metric]:
        """The families with their samples."""
        return [family.filled(self._view) for family in self._families]


def add(metric: Metric, labels: Labels, value: float | Histogram | Distribution) -> None:
    """Put a sample into a family that `Family.empty` made."""
    if isinstance(metric, InfoMetricFamily):
        metric.add_metric(labels, {})
    elif isinstance(metric, HistogramMetricFamily):
        if isinstance(value, Histogram):
            metric.add_metric(labels, _buckets(CLIENT_BUCKETS_G, value.counts), value.sum_g)
        else:
            assert isinstance(value, Distribution)
            metric.add_metric(labels, _buckets(value.bounds, value.counts), value.sum)
    elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
        assert not isinstance(value, Histogram | Distribution)
        metric.add_metric(labels, value)


def _buckets(bounds: Sequence[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Upper bound and number of observations up to it, ``+Inf`` last."""
    return list(zip(_named(tuple(bounds)), accumulate(counts), strict=True))


@cache
def _named(bounds: tuple[float, ...]) -> tuple[str, ...]:
    """Made once: there are three sets of bounds, and a histogram for each run."""
    return (*map(floatToGoString, bounds), "+Inf")


_EMPTY: Final[Mapping[str, Callable[[str, str, Sequence[str]], Metric]]] = {
    "counter": lambda name, text, labels: CounterMetricFamily(name, text, labels=labels),
    "gauge": lambda name, text, labels: GaugeMetricFamily(name, text, labels=labels),
    "histogram": lambda name, text, labels: HistogramMetricFamily(name, text, labels=labels),
    "info": lambda name, text, labels: InfoMetricFamily(
        name.removesuffix("_info"), text, labels=labels
    ),
}
