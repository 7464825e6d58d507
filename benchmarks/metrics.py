"""``/metrics`` of a service with 100 active runs of 16 rounds, against the same page from ready families.

Each run has 16 closed rounds and one that is open. Ours is `generate_latest` of a registry whose collector
reads the store: the runs, their totals and their open rounds each time, closed rounds where there are new
ones (they never change), the families with their samples, and the text. The other side is `generate_latest`
of a registry whose collector hands out the very families that ours made: the text alone. Both take turns in
this process, on pages that are the same; the ratio is the median of the ratios of the pairs. The first page
of a process, which reads all of the rounds, stands beside it.

That the number of series does not depend on the number of clients is shown for 10 and for 10,000.

    python benchmarks/metrics.py [sqlite | postgresql]     (default: both)
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from benchmarks._databases import urls
from telemetry.domain import utc_now
from telemetry.exporters.prometheus import EmissionsCollector
from telemetry.store import Store, open_store
from telemetry.store.deliveries import DeliveredRounds, DeliveredRun
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, START, make_round, make_run

RUNS = 100
ROUNDS = 16
CLIENTS: dict[str, float | str] = {
    **{str(node): 0.001 * node for node in range(8)},
    "8": "missing",
    "9": "negative",
}
REPETITIONS = 15
MOST = {"SQLite": 1.35, "PostgreSQL": 1.5}


class Ready(Collector):
    """Hands out families that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def describe(self) -> Iterable[Metric]:
        """Nothing that would clash with anything."""
        return []

    def collect(self) -> Iterable[Metric]:
        """As they are."""
        return self._families


def fill(store: Store) -> None:
    """The runs and their rounds, as FL servers deliver them."""
    now = utc_now()
    for number in range(RUNS):
        run_id = f"run-{number:03}"
        started_at = START + timedelta(minutes=number)
        info = make_run(run_id, started_at=started_at, metric_names=("accuracy", "loss"))
        rounds = tuple(
            make_round(
                n,
                run_id=run_id,
                sequence=n,
                clients=CLIENTS,
                server_kwh=0.001,
                train_metrics={"accuracy": 0.5 + n / 100, "loss": 1 / n},
                evaluate_metrics={"accuracy": 0.4 + n / 100, "loss": 2 / n},
            )
            for n in range(1, ROUNDS + 1)
        )
        opened = make_round(ROUNDS + 1, run_id=run_id, clients=CLIENTS, closed=False)
        store.deliver(
            [
                DeliveredRun(writer="a", info=info),
                DeliveredRounds(writer="a", run_id=run_id, records=(*rounds, opened)),
            ],
            now,
        )


def timed_s(registry: CollectorRegistry) -> float:
    """How long the page takes."""
    gc.collect()
    begin = time.perf_counter()
    generate_latest(registry)
    return time.perf_counter() - begin


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry of its own."""
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def compare(kind: str, store: Store) -> bool:
    """Print both sides and the ratio; whether the target is missed."""
    collector = EmissionsCollector(store)
    ours = registry_of(collector)
    first_s = timed_s(ours)
    bare = registry_of(Ready(collector.collect()))
    pages = generate_latest(ours), generate_latest(bare)
    samples = sum(not line.startswith(b"#") for line in pages[0].splitlines())
    if len(pages[0]) != len(pages[1]) or samples < RUNS * ROUNDS:
        raise SystemExit("the two pages are not the same")
    pairs = [(timed_s(bare), timed_s(ours)) for _ in range(REPETITIONS)]
    bare_s, ours_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / bare for bare, ours in pairs)
    print(
        f"{kind}: {samples:,} samples, {len(pages[0]) / 1e6:.1f} MB in {ours_s * 1e3:.0f} ms, from ready "
        f"families {bare_s * 1e3:.0f} ms: {ratio:.2f} x (target: at most {MOST[kind]}); the first page {first_s * 1e3:.0f} ms"
    )
    return ratio > MOST[kind]


def series_with(clients: int) -> int:
    """Series of a run with so many clients."""
    store = InMemoryStore()
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(1, clients={str(node): 0.001 for node in range(clients)}))
    families: Callable[[], Iterable[Metric]] = EmissionsCollector(store).collect
    return sum(len(family.samples) for family in families())


def main() -> int:
    """Print all figures; 1 where a target is missed."""
    wanted = [word.lower() for word in sys.argv[1:]]
    missed = False
    with urls() as databases:
        for kind, url in databases.items():
            if not wanted or kind.lower() in wanted:
                with closing(open_store(url)) as store:
                    fill(store)
                    missed |= compare(kind, store)
    few, many = series_with(10), series_with(10_000)
    print(f"series of a run with 10 clients: {few}, with 10,000: {many} (target: the same)")
    return int(missed or few != many)


if __name__ == "__main__":
    sys.exit(main())
