"""``/metrics``: a Prometheus collector that reads the store when it is scraped.

Nothing is counted here: a restart, a repeated delivery or a second process cannot change a figure.
The registry is handed over, never the library's global one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from telemetry.domain import Owner, utc_now
from telemetry.errors import StoreError
from telemetry.exporters.families import FAMILIES
from telemetry.exporters.filling import Filling
from telemetry.exporters.process_families import PROCESS_FAMILIES, ProcessFacts, ProcessView
from telemetry.exporters.samples import RunView
from telemetry.exporters.series import just_ended, within
from telemetry.store import rules
from telemetry.store.base import Store
from telemetry.writer import Failures

DEFAULT_RUNS: Final = 5
DEFAULT_ROUNDS: Final = 200
DEFAULT_SERIES: Final = 50_000
DISTRIBUTION: Final = "fedserver-telemetry"
STAGES: Final = (
    "accounting", "delivery", "hook", "lease", "listener", "meter", "scrape", "store", "transport",
)  # fmt: skip
"""Where telemetry of an FL server may fail; a service can only fail to be scraped."""


class EmissionsCollector(Collector):
    """Turns what the store exposes into metric families.

    ``owner`` is the FL server that answers, which shows its own runs; None is a service, which
    shows those of everybody. A store that fails costs the run metrics of that scrape, a counted error
    (stage ``scrape``) and one line in the log; the process's own metrics are answered always.
    ``serves_runs`` False leaves the run metrics to the service that the runs are delivered to: two
    sources would be two series. At most ``max_series`` series of runs are shown, see
    `telemetry.exporters.series`.
    """

    def __init__(
        self,
        store: Store,
        owner: Owner | None = None,
        *,
        facts: ProcessFacts | None = None,
        max_runs: int = DEFAULT_RUNS,
        max_rounds: int = DEFAULT_ROUNDS,
        max_series: int = DEFAULT_SERIES,
        serves_runs: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._owner = owner
        self._facts = facts
        self._max_runs = max_runs
        self._max_rounds = max_rounds
        self._max_series = max_series
        self._families = FAMILIES if serves_runs else ()
        self._clock = clock
        self._filling = Filling()
        self._failures = Failures()
        self._version = _installed_version()

    def describe(self) -> Iterable[Metric]:
        """Every family, empty: registering asks the store nothing."""
        process = [family.empty() for family in PROCESS_FAMILIES]
        return [*(family.empty() for family in self._families), *process]

    def collect(self) -> Iterable[Metric]:
        """The families with their samples."""
        runs, series = self._of_runs()
        view = ProcessView(self._errors(), self._facts, self._version, series, self._max_series)
        return [*runs, *(family.filled(view) for family in PROCESS_FAMILIES)]

    def _of_runs(self) -> tuple[list[Metric], int]:
        """The families of runs, and how many series they are."""
        if not self._families:
            return [], 0
        try:
            views = self._shown()
            metrics = self._filling.filled(self._families, views)
            return metrics, within(self._max_series, metrics, views)
        except StoreError as error:
            self._failures.note("scrape", str(error))
        except Exception as error:  # noqa: BLE001 - a scrape is an edge: it answers, whatever failed
            self._failures.note("scrape", "run metrics could not be made", error=error)
        return [], 0

    def _shown(self) -> list[RunView]:
        """The runs with metrics: of a service those that run, have just ended or ended last."""
        views = self.views()
        if self._owner is not None:
            return views
        shown = rules.detailed_runs([view.exposed.run for view in views], self._max_runs)
        return [view for view in views if view.run_id in shown or just_ended(view)]

    def views(self) -> list[RunView]:
        """The runs at this moment, oldest start first. Raises `StoreError` if the store fails."""
        now = self._clock()
        exposed = self._store.exposed(
            now, self._owner, max_runs=self._max_runs, max_rounds=self._max_rounds
        )
        return [RunView(exposed=run, now=now, owner=self._owner) for run in exposed]

    def _errors(self) -> Counter[str]:
        # From 0 on: a first failure is then a rise, not a series that appears.
        counts = Counter(dict.fromkeys(STAGES if self._facts is not None else ("scrape",), 0))
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
