"""The sender's thread: delivers while a run is recorded, waits for a service that is away, ends soon."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from telemetry import sender as sending
from telemetry.domain import utc_now
from telemetry.errors import StoreError
from telemetry.exporters.families import FAMILIES
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.sender import LONGEST_PAUSE_S, LONGEST_WISH_S, Sender, SendingFacts, pause_s
from telemetry.service_client import ServiceClient
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from telemetry.writer import Failures
from tests.service_double import ServiceDouble, assert_same
from tests.telemetry.test_delivery import record, rounds_there

PATIENCE_S = 10.0


@pytest.fixture
def service() -> Iterator[ServiceDouble]:
    """A service that does right until it is told otherwise."""
    with ServiceDouble() as double:
        yield double


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, sooner."""
    monkeypatch.setattr(sending, "POLL_S", 0.05)
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(sending, "LONGEST_PAUSE_S", 0.1)


class Process:
    """What an FL server knows of its own telemetry."""

    errors: dict[str, int] = {}  # noqa: RUF012 - a constant
    undelivered_rounds = 2
    oldest_undelivered_s = None
    overhead_s = 0.5


@contextmanager
def sender_to(service: ServiceDouble, store: Store, **client: Any) -> Iterator[Sender]:
    """A sender at work."""
    failures = Failures()
    found = Sender(store, ServiceClient(service.url, None, **client), OWNER, failures)
    found.start()
    try:
        yield found
    finally:
        found.stop(2.0)
        assert not found._thread.is_alive()


def eventually(holds: Any) -> bool:
    """Whether it holds before patience ends."""
    end = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(holds())


def test_rounds_arrive_while_the_run_goes_on(service: ServiceDouble):
    """Nobody hands them over; the open one is shown."""
    store = InMemoryStore()
    store.start_run(make_run(), OWNER, START)
    with sender_to(service, store) as sender:
        for number in range(3):
            store.record_round(make_round(number, clients={"a": 0.5}))
            wanted = [(n, 1) for n in range(number + 1)]
            assert eventually(lambda: service.store.runs() and rounds_there(service) == wanted)  # noqa: B023
        store.finish_run(RUN_ID, "completed", START)
        assert sender.drain(PATIENCE_S)
        assert_same(service.store, store)
        assert sender.backlog().rounds == 0


def test_what_waits_is_counted_and_delivered_when_the_service_is_back(
    service: ServiceDouble, caplog: pytest.LogCaptureFixture
):
    """Each failure counts, one line tells of it, and one of the end."""
    store = InMemoryStore()
    service.always = "503 in 0"
    with caplog.at_level(logging.INFO), sender_to(service, store) as sender:
        record(store)
        assert eventually(lambda: sender._failures.counts.get("delivery", 0) >= 3)
        assert sender.backlog().rounds == 4
        assert not sender.drain(0.1)
        service.always = None
        assert sender.drain(PATIENCE_S)
        assert sender.backlog().rounds == 0
    assert_same(service.store, store)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("telemetry")]
    assert len([m for m in ours if "503" in m]) == 1
    assert len([m for m in caplog.messages if "takes deliveries again" in m]) == 1


@pytest.mark.parametrize("fault", ["hang", "drip", "500"])
def test_the_end_comes_soon_whatever_the_service_does(service: ServiceDouble, fault: str):
    """Also in the middle of an exchange."""
    store = InMemoryStore()
    record(store)
    service.always = fault
    with sender_to(service, store) as sender:
        time.sleep(0.3)
        before = time.monotonic()
        sender.stop(2.0)
        assert time.monotonic() - before < 1.0
        assert not sender._thread.is_alive()
    assert sender.backlog().rounds == 4


def test_waiting_for_the_rest_is_given_up_on_demand(service: ServiceDouble):
    """A signal that arrives meanwhile."""
    store = InMemoryStore()
    record(store)
    service.always = "hang"
    with sender_to(service, store) as sender:
        before = time.monotonic()
        assert not sender.drain(PATIENCE_S, unless=lambda: time.monotonic() > before + 0.2)
        assert time.monotonic() - before < 1.0


class BrokenStore(InMemoryStore):
    """A database that cannot be read for a while, and then raises what no store should."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    def undelivered(self, *arguments: Any) -> Any:
        if self.errors:
            raise self.errors[0] if len(self.errors) == 1 else self.errors.pop(0)
        return super().undelivered(*arguments)


@pytest.mark.parametrize("error", [StoreError("sqlite:///x", "locked"), KeyError("what")])
def test_a_store_that_fails_ends_nothing(service: ServiceDouble, error: Exception):
    """It is counted, and tried again."""
    store = BrokenStore()
    record(store)
    store.errors = [error]
    with sender_to(service, store) as sender:
        assert eventually(lambda: sender._failures.counts.get("delivery", 0) >= 3)
        store.errors = []
        assert sender.drain(PATIENCE_S)
    assert_same(service.store, store)


def test_a_backlog_that_cannot_be_read_is_what_it_was(service: ServiceDouble):
    """A scrape is answered all the same."""
    store = BrokenStore()
    record(store)
    sender = Sender(store, ServiceClient(service.url, None), OWNER, Failures())
    assert sender.backlog().rounds == 4
    store.errors = [StoreError("sqlite:///x", "locked")]
    assert sender.backlog().rounds == 4
    assert sender._failures.counts == {"delivery": 1}
    sender.stop(0.0)


@pytest.mark.parametrize("dice", [0.0, 0.5, 1.0])
def test_pauses_grow_with_chance_and_heed_the_service(dice: float, monkeypatch: pytest.MonkeyPatch):
    """From half a second to a minute, never more than five minutes on request."""
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr(sending, "LONGEST_PAUSE_S", LONGEST_PAUSE_S)
    pauses = [pause_s(tries, None, lambda: dice) for tries in range(1, 12)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0.5 * (0.5 + dice / 2)
    assert pauses[-1] == LONGEST_PAUSE_S * (0.5 + dice / 2)
    assert pause_s(10_000, None, lambda: dice) == pauses[-1]
    assert 120 <= pause_s(1, 120, lambda: dice) <= 132
    assert pause_s(1, 1e9, lambda: dice) <= LONGEST_WISH_S * 1.1
    assert pause_s(1, 0, lambda: dice) == pauses[0]


# --- /metrics --------------------------------------------------------------------------------------


def scraped(store: Store, facts: Any, **options: Any) -> CollectorRegistry:
    """A registry over the store."""
    return metrics_registry(EmissionsCollector(store, OWNER, facts=facts, **options))


def test_metrics_tell_of_what_the_service_has_not_acknowledged(service: ServiceDouble):
    """Rounds beside those that are not even stored, and for how long the oldest has waited."""
    store = InMemoryStore()
    ago = utc_now() - timedelta(seconds=100)
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(1, started_at=ago, ended_at=ago))
    sender = Sender(store, ServiceClient(service.url, None), OWNER, Failures())
    registry = scraped(store, SendingFacts(Process(), sender), serves_runs=False)
    assert registry.get_sample_value("fl_telemetry_undelivered_rounds") == 3
    oldest = registry.get_sample_value("fl_telemetry_oldest_undelivered_seconds")
    assert oldest is not None
    assert 100 <= oldest < 160
    sender.start()
    assert sender.drain(PATIENCE_S)
    assert registry.get_sample_value("fl_telemetry_undelivered_rounds") == 2
    assert registry.get_sample_value("fl_telemetry_oldest_undelivered_seconds") == 0
    sender.stop(2.0)


def test_a_clock_that_was_set_back_makes_no_negative_age(service: ServiceDouble):
    """The oldest seems to come from tomorrow."""
    store = InMemoryStore()
    late = utc_now() + timedelta(days=1)
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(1, started_at=late, ended_at=late))
    sender = Sender(store, ServiceClient(service.url, None), OWNER, Failures())
    assert sender.oldest_s() == 0.0
    sender.stop(0.0)


def test_a_run_has_one_source(service: ServiceDouble):
    """An FL server with a service shows its process, and no run; without one, both and no age."""
    store = InMemoryStore()
    record(store)
    names = {family.name for family in FAMILIES}
    for serves_runs in (True, False):
        registry = scraped(store, Process(), serves_runs=serves_runs)
        found = {sample.name for metric in registry.collect() for sample in metric.samples}
        assert bool(found & names) is serves_runs
        assert "fl_telemetry_undelivered_rounds" in found
        assert "fl_telemetry_oldest_undelivered_seconds" not in found
