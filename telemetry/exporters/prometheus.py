"""``/metrics``: a Prometheus collector that reads the store when it is scraped.

Nothing is counted here: a restart, a repeated delivery or a second process cannot change a figure.
The registry is handed over, never the library's global one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from telemetry.domain import CLIENT_BUCKETS_G, Histogram, Owner, utc_now
from telemetry.errors import StoreError
from telemetry.exporters.families import FAMILIES, Family
from telemetry.exporters.samples import RunView, Sample
from telemetry.store.base import Store
from telemetry.writer import Failures

DEFAULT_RUNS: Final = 5
DEFAULT_ROUNDS: Final = 200
DISTRIBUTION: Final = "fedserver-telemetry"

ERRORS_HELP: Final = "Failures of telemetry by stage; training goes on through all of them."
UNDELIVERED_HELP: Final = (
    "Rounds that are not in the store yet, or not with the service where one is set, and those lost "
    "for good."
)
OLDEST_HELP: Final = (
    "Seconds for which the oldest round, or end of a run, has waited to be acknowledged by the "
    "service; absent where none is set."
)
OVERHEAD_HELP: Final = "Seconds of the training's own time that telemetry took."
BUILD_HELP: Final = "Version of the program that answers."


class ProcessFacts(Protocol):
    """What a process knows of its own telemetry; read at each scrape, from any thread."""

    @property
    def errors(self) -> Mapping[str, int]:
        """Failures so far, by stage."""
        ...

    @property
    def undelivered_rounds(self) -> int:
        """Rounds that are not where they belong yet, and those lost for good."""
        ...

    @property
    def oldest_undelivered_s(self) -> float | None:
        """Seconds for which the oldest has waited for the service; None where none is set."""
        ...

    @property
    def overhead_s(self) -> float:
        """Seconds of the training's own time that telemetry took so far."""
        ...


class EmissionsCollector(Collector):
    """Turns what the store exposes into metric families.

    ``owner`` is the FL server that answers, which shows its own runs; None is a service, which
    shows every run. A store that fails costs the run metrics of that scrape, a counted error
    (stage ``scrape``) and one line in the log; the process's own metrics are answered always.
    ``serves_runs`` False leaves the run metrics to the service that the runs are delivered to: two
    sources would be two series.
    """

    def __init__(
        self,
        store: Store,
        owner: Owner | None = None,
        *,
        facts: ProcessFacts | None = None,
        max_runs: int = DEFAULT_RUNS,
        max_rounds: int = DEFAULT_ROUNDS,
        serves_runs: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._owner = owner
        self._facts = facts
        self._max_runs = max_runs
        self._max_rounds = max_rounds
        self._families = FAMILIES if serves_runs else ()
        self._clock = clock
        self._failures = Failures()
        self._version = _installed_version()

    def describe(self) -> Iterable[Metric]:
        """Every family, empty: registering asks the store nothing."""
        return [*(_empty(family) for family in self._families), *self._process_families()]

    def collect(self) -> Iterable[Metric]:
        """The families with their samples."""
        return [*self._run_families(), *self._process_families()]

    def _run_families(self) -> list[Metric]:
        if not self._families:
            return []
        try:
            views = self.views()
            return [_filled(family, views) for family in self._families]
        except StoreError as error:
            self._failures.note("scrape", str(error))
        except Exception as error:  # noqa: BLE001 - a scrape is an edge: it answers, whatever failed
            self._failures.note("scrape", "run metrics could not be made", error=error)
        return []

    def views(self) -> list[RunView]:
        """The runs at this moment, oldest start first. Raises `StoreError` if the store fails."""
        now = self._clock()
        exposed = self._store.exposed(
            now, self._owner, max_runs=self._max_runs, max_rounds=self._max_rounds
        )
        return [RunView(exposed=run, now=now, owner=self._owner) for run in exposed]

    def _process_families(self) -> Iterator[Metric]:
        errors = CounterMetricFamily("fl_telemetry_errors", ERRORS_HELP, labels=["stage"])
        for stage, count in sorted(self._errors().items()):
            errors.add_metric([stage], count)
        yield errors
        if self._facts is not None:
            undelivered = self._facts.undelivered_rounds
            yield GaugeMetricFamily(
                "fl_telemetry_undelivered_rounds", UNDELIVERED_HELP, undelivered
            )
            oldest_s = self._facts.oldest_undelivered_s
            if oldest_s is not None:
                yield GaugeMetricFamily(
                    "fl_telemetry_oldest_undelivered_seconds", OLDEST_HELP, oldest_s
                )
            overhead_s = self._facts.overhead_s
            yield CounterMetricFamily("fl_telemetry_overhead_seconds", OVERHEAD_HELP, overhead_s)
        yield InfoMetricFamily("fl_build", BUILD_HELP, {"version": self._version})

    def _errors(self) -> Counter[str]:
        counts = Counter(scrape=0)  # a first failure is then a rise, not a series that appears
        if self._facts is not None:
            counts.update(self._facts.errors)
        counts.update(self._failures.counts)
        return counts


def metrics_registry(collector: EmissionsCollector) -> CollectorRegistry:
    """A registry of its own with the collector and the metrics of the process.

    Turns off the library's ``_created`` series, for the whole process: promtool refuses them.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def _installed_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # used from its sources
        return "unknown"


_EMPTY: Final[Mapping[str, Callable[[str, str, Sequence[str]], Metric]]] = {
    "counter": lambda name, text, labels: CounterMetricFamily(name, text, labels=labels),
    "gauge": lambda name, text, labels: GaugeMetricFamily(name, text, labels=labels),
    "histogram": lambda name, text, labels: HistogramMetricFamily(name, text, labels=labels),
    "info": lambda name, text, labels: InfoMetricFamily(
        name.removesuffix("_info"), text, labels=labels
    ),
}


def _empty(family: Family) -> Metric:
    return _EMPTY[family.type](family.name, family.help, ("run_id", *family.labels))


def _filled(family: Family, views: Iterable[RunView]) -> Metric:
    metric = _empty(family)
    for view in views:
        if view.tracked or not family.tracked_only:
            for sample in family.samples(view):
                _add(metric, view.run_id, sample)
    return metric


def _add(metric: Metric, run_id: str, sample: Sample) -> None:
    own_labels, value = sample
    labels = (run_id, *own_labels)
    if isinstance(metric, InfoMetricFamily):
        metric.add_metric(labels, {})
    elif isinstance(metric, HistogramMetricFamily):
        assert isinstance(value, Histogram)
        metric.add_metric(labels, _buckets(value), value.sum_g)
    elif isinstance(metric, CounterMetricFamily | GaugeMetricFamily):
        assert not isinstance(value, Histogram)
        metric.add_metric(labels, value)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Upper bound and number of observations up to it, ``+Inf`` last."""
    bounds = [*map(floatToGoString, CLIENT_BUCKETS_G), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
