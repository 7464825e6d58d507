"""Durations in buckets, as Prometheus counts them."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry

from telemetry.durations import BOUNDS_S, Durations
from telemetry.exporters.family import FamiliesCollector
from telemetry.exporters.process_families import STORE_FAMILIES

NAME = "fl_store_write_duration_seconds"


def test_a_bucket_holds_what_took_at_most_its_bound() -> None:
    """The bound itself is in it; what is above all of them is in the last."""
    taken = Durations((0.1, 1.0))
    for duration_s in (0.0, 0.1, 0.100001, 1.0, 7.0):
        taken.observe(duration_s)
    so_far = taken.so_far
    assert so_far.counts == (2, 2, 1)
    assert so_far.bounds == (0.1, 1.0)
    assert so_far.sum == 0.0 + 0.1 + 0.100001 + 1.0 + 7.0


def test_buckets_add_up_on_the_page() -> None:
    """Up to each bound, and all of them in the last; nothing yet is a histogram of zeros."""
    taken = Durations()
    registry = CollectorRegistry()
    registry.register(FamiliesCollector(STORE_FAMILIES, taken))
    assert registry.get_sample_value(f"{NAME}_count") == 0
    for duration_s in (0.0005, 0.02, 60.0):
        taken.observe(duration_s)
    found = [registry.get_sample_value(f"{NAME}_bucket", {"le": str(b)}) for b in BOUNDS_S]
    assert found == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert registry.get_sample_value(f"{NAME}_bucket", {"le": "+Inf"}) == 3
    assert registry.get_sample_value(f"{NAME}_sum") == 0.0005 + 0.02 + 60.0


def test_threads_may_count_at_once() -> None:
    """None of their observations is lost."""
    taken = Durations()

    def count() -> None:
        for _ in range(2000):
            taken.observe(0.01)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken.so_far.counts) == 16_000
