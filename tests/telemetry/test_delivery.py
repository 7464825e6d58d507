"""Delivery to a service that may do anything wrong: at the end it holds what the server recorded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry import delivery as delivering
from telemetry.delivery import Backlog, Delivery
from telemetry.domain import NoiseRecord
from telemetry.errors import ServiceAway, TelemetryError
from telemetry.service.bodies import MAX_ROUNDS_BYTES, round_json
from telemetry.service_client import ServiceClient, _retry_after_s
from telemetry.setting_aside import ASIDE_S, STUMBLES
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_report, make_round, make_run
from telemetry.writer import Failures
from tests.service_double import AFTER, BEFORE, ServiceDouble, assert_same, assert_same_run

QUICK_S = 1.0
"""For those that wait for a time-out; the others never do, however busy the machine is."""
PATIENT_S = 20.0
SILENT = ("hang", "hang after", "drip")


@pytest.fixture
def service() -> Iterator[ServiceDouble]:
    """A service that does right until it is told otherwise."""
    with ServiceDouble() as double:
        yield double


class Delivering:
    """A server's store, and its delivery to a service."""

    def __init__(self, service: ServiceDouble, store: Store | None = None, **client: Any) -> None:
        client.setdefault("timeout_s", PATIENT_S)
        monotonic = client.pop("monotonic", time.monotonic)
        self.store = store or InMemoryStore()
        self.failures = Failures()
        self.client = ServiceClient(service.url, client.pop("token", None), **client)
        self.delivery = Delivery(
            self.store, self.client, OWNER, self.failures, clock=lambda: START, monotonic=monotonic
        )
        self.away: list[str] = []

    def deliver(self, tries: int = 30) -> None:
        """Try until nothing moves any more."""
        for _ in range(tries):
            try:
                while self.delivery.once():
                    pass
            except ServiceAway as error:
                self.away.append(str(error))
            else:
                return
        raise AssertionError(self.away)


@pytest.fixture
def server(service: ServiceDouble) -> Iterator[Delivering]:
    """A server with a run of three rounds that has ended."""
    found = Delivering(service)
    record(found.store)
    with closing(found.client):
        yield found


def record(store: Store, run_id: str = RUN_ID, rounds: int = 3) -> None:
    """A whole run with clients of all kinds, noise and a late report."""
    store.start_run(make_run(run_id), OWNER, START)
    store.record_round(make_round(0, run_id=run_id))
    for number in range(1, rounds + 1):
        clients: dict[str, float | str] = {"a": 0.1 * number, "b": "missing", "c": "negative"}
        noise = NoiseRecord(noise_stdv=0.5, distance=2.0)
        store.record_round(make_round(number, run_id=run_id, clients=clients, noise=noise))
    store.add_late_reports(run_id, 2)
    store.finish_run(run_id, "completed", START + timedelta(minutes=rounds + 1))


def rounds_there(service: ServiceDouble, run_id: str = RUN_ID) -> list[tuple[int, int]]:
    """What the service has of a run."""
    return [(row.round, row.attempt) for row in service.store.rounds(run_id)]


# --- as it should be -----------------------------------------------------------------------------


def test_the_service_holds_what_the_server_recorded(service: ServiceDouble, server: Delivering):
    """Run, rounds, rows, totals, seal; noise stays at home; a second time nothing is said."""
    assert server.delivery.backlog() == Backlog(4, make_round(0).ended_at)
    server.deliver()
    assert_same(service.store, server.store)
    assert service.store.round(RUN_ID, 1).noise is None
    assert [path for _, path, _ in service.requests] == [
        RUN_ID,
        f"{RUN_ID}/rounds",
        f"{RUN_ID}/finish",
    ]
    server.deliver()
    assert len(service.requests) == 3
    assert server.delivery.backlog() == Backlog(0, None)
    assert server.failures.counts == {}


def test_rounds_travel_in_batches_in_the_order_of_their_closing(service: ServiceDouble):
    """At most a hundred at once."""
    server = Delivering(service)
    record(server.store, rounds=249)
    with closing(server.client):
        server.deliver()
    assert service.batches() == [100, 100, 50]
    assert_same(service.store, server.store)


@pytest.mark.parametrize("minutes", [1, -1])
def test_rounds_that_were_stored_late_travel_in_the_order_of_their_closing(
    service: ServiceDouble, minutes: int
):
    """Whatever the server's own store added up first, and whichever way its clock went."""
    server = Delivering(service)
    server.store.start_run(make_run(), OWNER, START)
    for number in (0, 2, 3, 1):
        at = START + timedelta(minutes=minutes * number)
        times: dict[str, Any] = {"started_at": at, "ended_at": at + timedelta(seconds=50)}
        server.store.record_round(make_round(number, sequence=number + 1, **times))
    (waiting,) = server.store.undelivered(service.url, START, OWNER)
    assert [pending.round for pending in waiting.rounds] == [0, 1, 2, 3]
    with closing(server.client):
        server.deliver()
    assert service.store.run(RUN_ID).totals == server.store.run(RUN_ID).totals


def test_a_batch_is_no_larger_than_the_service_takes(
    service: ServiceDouble, server: Delivering, monkeypatch: pytest.MonkeyPatch
):
    """Fewer rounds travel then."""
    size = len(round_json(server.store.round(RUN_ID, 3)))
    monkeypatch.setattr(delivering, "MAX_ROUNDS_BYTES", 2 * size + 100)
    server.deliver()
    assert max(service.batches()) == 2
    assert_same(service.store, server.store)


def test_a_round_that_is_larger_than_a_service_takes_stays_and_holds_up_no_other(
    service: ServiceDouble, caplog: pytest.LogCaptureFixture
):
    """It is not even sent; its size is told, it counts as undelivered, and the run's end is told."""
    server = Delivering(service)
    store = server.store
    store.start_run(make_run(), OWNER, START)
    many: dict[str, float | str] = {str(number): 0.1 for number in range(23_000)}
    for number, clients in ((1, {"a": 0.1}), (2, many), (3, {"a": 0.1})):
        store.record_round(make_round(number, clients=clients))
    store.finish_run(RUN_ID, "completed", START + timedelta(minutes=9))
    assert len(round_json(store.round(RUN_ID, 2))) > MAX_ROUNDS_BYTES
    with closing(server.client), caplog.at_level(logging.WARNING):
        server.deliver()
    assert rounds_there(service) == [(1, 1), (3, 1)]
    assert service.store.run(RUN_ID).status == "completed"
    assert service.batches() == [2]
    (told,) = caplog.messages
    assert "round 2 (attempt 1)" in told
    assert "takes 16 MiB at once" in told
    assert server.delivery.backlog().rounds == 1


def test_a_run_is_delivered_while_it_goes_on(service: ServiceDouble):
    """Each round when it closes, the end when it comes, and after a resumption the rest."""
    server = Delivering(service)
    store = server.store
    with closing(server.client):
        store.start_run(make_run(), OWNER, START)
        for number in range(3):
            store.record_round(make_round(number, clients={"a": 0.5}))
            server.deliver()
            assert rounds_there(service) == [(n, 1) for n in range(number + 1)]
        store.record_round(make_round(3, closed=False))
        store.mark_interrupted(START, lambda _: False)
        server.deliver()
        assert_same(service.store, store)
        assert service.store.run(RUN_ID).status == "interrupted"
        store.resume_run(RUN_ID, OWNER, START)
        later: dict[str, Any] = {
            "started_at": START + timedelta(hours=1),
            "ended_at": START + timedelta(hours=2),
        }
        late = make_report("z", 0.5, late=True)
        store.record_round(make_round(0, attempt=2, **later))
        store.record_round(make_round(3, attempt=2, clients={"a": 0.25}, **later))
        server.deliver()
        store.record_round(make_round(4, reports=(late,), **later))
        store.add_late_reports(RUN_ID, 1)
        store.finish_run(RUN_ID, "completed", START + timedelta(hours=3))
        server.deliver()
    assert_same(service.store, store)


def test_the_open_round_is_shown_and_closes_later(service: ServiceDouble):
    """Only that of the own, living run; a large one is only a sign of life."""
    server = Delivering(service)
    with closing(server.client):
        server.store.start_run(make_run(), OWNER, START)
        server.deliver()
        server.delivery.show_open()
        assert service.requests[-1][0] == "PUT"
        server.store.record_round(make_round(1, closed=False, revision=1))
        server.delivery.show_open()
        shown = list(service.store.rounds(RUN_ID, closed_only=False))
        assert [(row.round, row.closed) for row in shown] == [(1, False)]
        server.store.record_round(make_round(1, revision=2))
        server.deliver()
        assert_same(service.store, server.store)
        server.store.finish_run(RUN_ID, "completed", START)
        server.deliver()
        said = len(service.requests)
        server.delivery.show_open()
        assert len(service.requests) == said


def test_the_token_is_shown_and_never_told(
    service: ServiceDouble, caplog: pytest.LogCaptureFixture
):
    """A wrong one is the service's trouble, not the round's: it is tried again."""
    service.token = "flt_right"
    server = Delivering(service, token="flt_wrong")
    record(server.store)
    with closing(server.client), pytest.raises(ServiceAway, match="401") as caught:
        server.delivery.once()
    right = Delivering(service, server.store, token="flt_right")
    with closing(right.client):
        right.deliver()
    assert_same(service.store, server.store)
    assert "flt_" not in str(caught.value) + caplog.text


# --- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("fault", [*BEFORE, *AFTER])
def test_after_any_fault_the_result_is_the_same(service: ServiceDouble, fault: str, at: int):
    """At the announcement, the rounds or the end: told again, and stored once."""
    server = Delivering(service, timeout_s=QUICK_S if fault in SILENT else PATIENT_S)
    record(server.store)
    service.faults.extend([*[None] * at, fault])
    with closing(server.client):
        server.deliver()
    assert len(server.away) == 1, "the fault was not seen"
    assert_same(service.store, server.store)


def test_an_answer_without_end_is_given_up_before_its_time(
    service: ServiceDouble, server: Delivering
):
    """For its length, not after the time-out."""
    service.faults.append("flood")
    server.deliver()
    assert server.away == ["the answer is not one of a telemetry service"]


@settings(max_examples=15)
@given(
    faults=st.lists(st.sampled_from([*BEFORE, *AFTER, *[None] * 6]), max_size=8),
    cut=st.integers(0, 4),
)
def test_any_faults_in_any_order(faults, cut):
    """Also where the process that delivers is another one half-way."""
    with ServiceDouble() as service:
        store = InMemoryStore()
        record(store)
        record(store, "run-b", rounds=1)
        service.faults.extend(f for f in faults if f not in SILENT)
        first = Delivering(service, store)
        with closing(first.client), suppress(AssertionError):
            first.deliver(tries=cut)
        second = Delivering(service, store)
        with closing(second.client):
            second.deliver()
        assert_same(service.store, store)


def test_two_that_deliver_the_same_at_once(service: ServiceDouble):
    """Every round is stored once, whoever says it first."""
    store = InMemoryStore()
    for number in range(4):
        record(store, f"run-{number}", rounds=20)
    both = [Delivering(service, store) for _ in range(2)]
    threads = [threading.Thread(target=one.deliver) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for one in both:
        one.client.close()
    assert_same(service.store, store)


def test_a_refused_round_holds_up_no_other(
    service: ServiceDouble, server: Delivering, caplog: pytest.LogCaptureFixture
):
    """It is kept, counted, told once, and passed by; the next process tries it again."""
    service.refused_rounds = {2}
    with caplog.at_level(logging.WARNING):
        server.deliver()
        server.deliver()
    assert rounds_there(service) == [(0, 1), (1, 1), (3, 1)]
    assert service.store.run(RUN_ID).status == "completed"
    assert server.failures.counts == {"delivery": 1}
    (told,) = caplog.messages
    assert "round 2 (attempt 1)" in told
    assert "422" in told
    assert server.delivery.backlog().rounds == 1

    service.refused_rounds = set()
    later = Delivering(service, server.store)
    with closing(later.client):
        later.deliver()
    assert later.delivery.backlog() == Backlog(0, None)
    assert rounds_there(service) == [(0, 1), (1, 1), (2, 1), (3, 1)]


def test_a_run_of_somebody_else_holds_up_no_other(service: ServiceDouble, server: Delivering):
    """Its id belongs to another writer: 404. The other runs are delivered."""
    record(server.store, "run-b")
    service.foreign_runs = {RUN_ID}
    server.deliver()
    assert_same(service.store, server.store, ["run-b"])
    assert server.failures.counts == {"delivery": 1}
    said = len(service.requests)
    server.deliver()
    assert len(service.requests) == said


def test_a_service_that_stumbles_over_one_run_gets_the_others(service: ServiceDouble):
    """The run that failed is tried last the next time."""
    server = Delivering(service)
    record(server.store, "run-a")
    record(server.store, "run-b")
    with closing(server.client):
        service.faults.append("500")
        with pytest.raises(ServiceAway):
            server.delivery.once()
        service.faults.extend([*[None] * 3, "500"])
        with pytest.raises(ServiceAway):
            server.delivery.once()
        assert [run.run_id for run in service.store.runs()] == ["run-b"]
        assert service.store.run("run-b").status == "completed"
        server.deliver()
    assert_same(service.store, server.store)


def test_rounds_that_the_service_fails_at_hold_up_no_other(
    service: ServiceDouble, caplog: pytest.LogCaptureFixture
):
    """After some tries they are found among the others and left alone for a while; then all is there."""
    now = [0.0]
    server = Delivering(service, monotonic=lambda: now[0])
    record(server.store, rounds=9)
    record(server.store, "run-b")
    service.faulty_rounds = {(RUN_ID, 4), (RUN_ID, 7)}
    with closing(server.client), caplog.at_level(logging.WARNING):
        server.deliver()
        assert len(server.away) == STUMBLES - 1
        assert rounds_there(service) == [(n, 1) for n in range(10) if n not in (4, 7)]
        assert service.store.run(RUN_ID).status == "completed"
        assert_same_run(service.store, server.store, "run-b")
        assert server.delivery.backlog().rounds == 2
        told = [line for line in caplog.messages if "not delivered for now" in line]
        assert [line.split(" (")[1] for line in told] == [
            "delivery): round 4",
            "delivery): round 7",
        ]
        said = len(service.requests)
        server.deliver()
        assert len(service.requests) == said
        service.faulty_rounds = set()
        now[0] += ASIDE_S
        server.deliver()
    assert rounds_there(service) == [(n, 1) for n in range(10)]
    assert server.delivery.backlog() == Backlog(0, None)


def test_a_service_that_fails_at_everything_is_waited_for(service: ServiceDouble):
    """However long: no round is to blame, and so they arrive in their order, with the same seal."""
    server = Delivering(service)
    record(server.store, "run-a", rounds=9)
    record(server.store, "run-b")
    service.faults.extend([None, *["500"] * (6 * STUMBLES)])
    with closing(server.client):
        server.deliver(tries=8 * STUMBLES)
    assert len(server.away) > 4 * STUMBLES
    assert_same(service.store, server.store)


def test_a_service_that_fails_until_somebody_looks_for_the_round_is_not_fooled(
    service: ServiceDouble,
):
    """It gets well between the try and the question: no round is set aside for that."""
    server = Delivering(service)
    record(server.store, rounds=1)
    service.faults.extend([None, *["500"] * STUMBLES])
    with closing(server.client):
        server.deliver()
    assert_same(service.store, server.store)


def test_a_run_that_the_service_fails_at_holds_up_no_other(service: ServiceDouble):
    """It is left alone for a while once others went well meanwhile, and tried again then."""
    now = [0.0]
    server = Delivering(service, monotonic=lambda: now[0])
    record(server.store)
    service.faulty_runs = {RUN_ID}
    with closing(server.client):
        for _ in range(3 * STUMBLES):
            with pytest.raises(ServiceAway):
                server.delivery.once()
        record(server.store, "run-b")
        server.deliver()
        assert_same(service.store, server.store, ["run-b"])
        assert server.delivery.once() is False
        service.faulty_runs = set()
        now[0] += ASIDE_S
        server.deliver()
    assert_same(service.store, server.store)


def test_a_service_that_lost_a_run_gets_it_again(service: ServiceDouble, server: Delivering):
    """All of it, once; if it loses it again, the run is passed by."""
    server.deliver()
    service.store = InMemoryStore()
    server.store.record_round(make_round(4))
    server.deliver()
    assert_same(service.store, server.store)
    service.store = InMemoryStore()
    server.store.record_round(make_round(5))
    server.deliver()
    assert service.store.runs() == []
    assert server.delivery.backlog().rounds == 1


def test_a_proxy_that_takes_less_at_once(service: ServiceDouble):
    """413, whoever says it: the batch is halved until it passes."""
    server = Delivering(service)
    record(server.store, rounds=20)
    sizes = [len(round_json(server.store.round(RUN_ID, n))) for n in range(21)]
    service.max_body_bytes = 3 * max(sizes)
    with closing(server.client):
        server.deliver()
    assert_same(service.store, server.store)
    assert max(service.batches()) <= 3


def test_runs_deleted_meanwhile_are_no_trouble(service: ServiceDouble, server: Delivering):
    """At home, or at the service."""
    record(server.store, "run-b")
    server.deliver()
    service.store.delete_run("run-b", START + timedelta(hours=1))
    server.store.record_round(make_round(4, run_id="run-b"))
    server.store.delete_run(RUN_ID, START + timedelta(hours=1))
    server.deliver()
    assert server.delivery.backlog().rounds == 1


@pytest.mark.parametrize(
    ("says", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("soon", None),
        ("-1", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(says: str, seconds: float | None):
    """What is no time is ignored."""
    assert _retry_after_s(httpx.Headers({"Retry-After": says})) == seconds


def test_what_the_service_asks_for_reaches_the_sender(service: ServiceDouble, server: Delivering):
    """429 with Retry-After."""
    service.faults.append("429 in 17")
    with pytest.raises(ServiceAway, match="429") as caught:
        server.delivery.once()
    assert caught.value.retry_after_s == 17.0


def test_nobody_there(server: Delivering):
    """A port that nobody listens to is a service that is away."""
    nobody = ServiceClient("http://127.0.0.1:9", None, timeout_s=QUICK_S)
    with closing(nobody), pytest.raises(ServiceAway, match="cannot be reached"):
        Delivery(server.store, nobody, OWNER, Failures()).once()
    assert issubclass(ServiceAway, TelemetryError)
