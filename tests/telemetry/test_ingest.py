"""The service's one writer: what waits is stored together, and answered when it is stored."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from telemetry.errors import RunNotFound, StoreError, TelemetryError
from telemetry.exporters.family import FamiliesCollector
from telemetry.exporters.process_families import INGEST_FAMILIES
from telemetry.service import ingest as module
from telemetry.service.ingest import PROBLEM_HOLDS_S, TOGETHER, Busy, Ingest, WriteFault
from telemetry.store.deliveries import DeliveredRun, Delivery
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run


class SlowStore(InMemoryStore):
    """A store whose first write waits until it is let go, and that counts writes."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.sizes: list[int] = []
        self.fault: Exception | None = None

    def deliver(
        self, deliveries: Sequence[Delivery], now: datetime
    ) -> Sequence[int | TelemetryError]:
        """What the store does, later."""
        self.sizes.append(len(deliveries))
        self.entered.set()
        assert self.go_on.wait(10)
        if self.fault is not None:
            raise self.fault
        return super().deliver(deliveries, now)


def a_run(name: str) -> DeliveredRun:
    """A run of that id."""
    return DeliveredRun(writer="a", info=make_run(name))


def taken(store: SlowStore, count: int, writer: Ingest | None = None) -> list[Any]:
    """What becomes of so many runs, all but the first handed over while the first is written."""

    async def all_of_them() -> list[Any]:
        used = writer or Ingest(store)
        used.start()
        first = asyncio.create_task(used.take(a_run("run-0")))
        await asyncio.to_thread(store.entered.wait, 10)
        others = [asyncio.create_task(used.take(a_run(f"run-{n}"))) for n in range(1, count)]
        await asyncio.sleep(0)
        assert not first.done()  # not before it is stored
        store.go_on.set()
        came_to = await asyncio.gather(first, *others, return_exceptions=True)
        await asyncio.to_thread(used.close)
        with pytest.raises(Busy, match="going away"):
            await used.take(a_run("too-late"))
        return came_to

    return asyncio.run(all_of_them())


def test_what_waits_is_stored_together():
    """In batches of a bounded size, each delivery answered."""
    store = SlowStore()
    assert taken(store, TOGETHER + 11) == [1] * (TOGETHER + 11)
    assert store.sizes == [1, TOGETHER, 10]
    assert len(store.runs()) == TOGETHER + 11


def test_the_writer_waits_for_those_who_were_there_the_last_time(monkeypatch: pytest.MonkeyPatch):
    """Whoever was answered and hands over the next is written together with who waited meanwhile."""
    monkeypatch.setattr(module, "GATHER_S", 30.0)
    store = SlowStore()

    async def two_senders() -> None:
        writer = Ingest(store)
        writer.start()
        first = asyncio.create_task(writer.take(a_run("run-0")))
        await asyncio.to_thread(store.entered.wait, 10)
        other = asyncio.create_task(writer.take(a_run("run-1")))
        await asyncio.sleep(0)
        store.go_on.set()
        await first
        assert await asyncio.wait_for(writer.take(a_run("run-2")), 10) == 1
        assert await asyncio.wait_for(other, 10) == 1
        await asyncio.to_thread(writer.close)

    asyncio.run(two_senders())
    assert store.sizes == [1, 2]


def test_too_much_waiting_is_refused(monkeypatch: pytest.MonkeyPatch):
    """What was taken on is stored all the same."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    store = SlowStore()
    came_to = taken(store, 5)
    assert [one if isinstance(one, int) else type(one) for one in came_to] == [1, 1, 1, Busy, Busy]
    assert len(store.runs()) == 3


def test_a_fault_of_the_store_is_an_answer_and_the_writer_goes_on():
    """Whatever is raised; when it happens again, the writer says for a while that something is wrong."""
    now = [0.0]
    store = SlowStore()
    writer = Ingest(store, monotonic=lambda: now[0])
    store.fault = RuntimeError("made to fail")
    assert [type(one) for one in taken(store, 2, writer)] == [WriteFault, WriteFault]
    assert writer.outcomes["failed"] == 2
    assert writer.problem == "RuntimeError"
    now[0] = PROBLEM_HOLDS_S
    assert writer.problem is None


class StumblingStore(SlowStore):
    """Fails at one run in a way that nobody foresaw, and takes all others with it."""

    def deliver(self, deliveries: Any, now: Any) -> Any:
        """What the store does, unless that run is among them."""
        if any(one.run_id == "run-2" for one in deliveries):
            raise KeyError("made up")
        return super().deliver(deliveries, now)


def test_the_others_do_not_suffer_for_a_delivery_that_the_store_stumbles_over():
    """Those that were to be written with it are; the database is not called broken."""
    store = StumblingStore()
    writer = Ingest(store)
    came_to = taken(store, 4, writer)
    assert [one if isinstance(one, int) else type(one) for one in came_to] == [1, 1, WriteFault, 1]
    assert sorted(run.run_id for run in store.runs()) == ["run-0", "run-1", "run-3"]
    assert writer.problem is None


def test_one_bad_delivery_is_no_fault_of_the_database():
    """The writer has no problem, and the others are stored."""
    store = SlowStore()
    store.start_run(make_run("run-1"), None, make_run().started_at)  # type: ignore[arg-type]
    writer = Ingest(store)
    came_to = taken(store, 3, writer)
    assert [one if isinstance(one, int) else type(one) for one in came_to] == [1, RunNotFound, 1]
    assert writer.problem is None


def test_what_became_of_deliveries_is_counted():
    """News, repeats, what cannot be taken, what the database would not write, and who was sent away."""
    store = SlowStore()
    store.start_run(make_run("run-1"), None, make_run().started_at)  # type: ignore[arg-type]
    writer = Ingest(store)
    assert writer.last_stored_at is None
    taken(store, 3, writer)  # the second is another writer's
    assert writer.outcomes == {"stored": 2, "repeated": 0, "refused": 1, "failed": 0, "busy": 1}
    first = writer.last_stored_at
    assert first is not None
    assert (sum(writer.writes.so_far.counts), writer.waiting) == (2, 0)

    again = Ingest(store)
    store.entered.clear()
    store.go_on.clear()
    taken(store, 1, again)
    assert again.outcomes == {"stored": 0, "repeated": 1, "refused": 0, "failed": 0, "busy": 1}
    assert again.last_stored_at is None

    failing = Ingest(store)
    store.entered.clear()
    store.go_on.clear()
    store.fault = StoreError("memory://", "made to fail")
    taken(store, 2, failing)
    assert failing.outcomes == {"stored": 0, "repeated": 0, "refused": 0, "failed": 2, "busy": 1}
    assert sum(failing.writes.so_far.counts) == 2


def test_who_waits_is_counted_while_waiting():
    """From the taking in to the answer."""
    store = SlowStore()
    writer = Ingest(store)

    async def look() -> list[int]:
        writer.start()
        tasks = [asyncio.create_task(writer.take(a_run(f"run-{n}"))) for n in range(3)]
        await asyncio.to_thread(store.entered.wait, 10)
        while writer.waiting < 3:
            await asyncio.sleep(0)
        seen = [writer.waiting]
        store.go_on.set()
        await asyncio.gather(*tasks)
        await asyncio.to_thread(writer.close)
        return [*seen, writer.waiting]

    assert asyncio.run(look()) == [3, 0]


def test_the_page_tells_how_ingest_stands():
    """Failing while the last write failed lately, with how many wait and what became of the others."""
    now = [0.0]
    store = SlowStore()
    writer = Ingest(store, monotonic=lambda: now[0])
    registry = CollectorRegistry()
    registry.register(FamiliesCollector(INGEST_FAMILIES, writer))

    def figures() -> list[float | None]:
        failed = registry.get_sample_value("fl_ingest_deliveries_total", {"outcome": "failed"})
        names = ("fl_ingest_failing", "fl_ingest_waiting_deliveries")
        last = registry.get_sample_value("fl_ingest_last_stored_timestamp_seconds")
        return [failed, *map(registry.get_sample_value, names), last]

    assert figures() == [0, 0, 0, None]
    store.fault = StoreError("memory://", "made to fail")
    taken(store, 2, writer)
    assert figures() == [2, 1, 0, None]
    now[0] = PROBLEM_HOLDS_S
    assert figures() == [2, 0, 0, None]
