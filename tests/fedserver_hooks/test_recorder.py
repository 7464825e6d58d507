"""The record of a run: rounds that add up, failures that stay ours."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from math import fsum
from pathlib import Path
from typing import Any

import pytest

from fedserver_hooks.meter import MeterError, Reading, ReplayMeter
from fedserver_hooks.reader import InlineReader
from fedserver_hooks.recorder import RoundRecorder
from telemetry.domain import Owner, RoundRecord
from telemetry.errors import StoreError
from telemetry.store import open_store
from telemetry.store.memory import InMemoryStore
from tests.fedserver_hooks.fakes import T0, HandClock, recorder


def play(book: RoundRecorder, clock: HandClock, rounds: int = 3) -> None:
    """So many rounds with two clients, the second silent."""
    for number in range(1, rounds + 1):
        book.begin_round(number)
        clock.advance(0.1)
        book.sent("train", [1, 2])
        book.enter("wait")
        clock.advance(10)
        book.replies(
            "train",
            [(1, {"emissions_kg": 0.001}, {"num-examples": 30}), (2, None, {"num-examples": 10})],
        )
        clock.advance(0.5)
        book.aggregated(True, {"loss": 1.0 / number})
        book.evaluating()
        clock.advance(5)
        book.evaluated({"accuracy": number / 10})


def test_the_rounds_add_up_to_the_run() -> None:
    """Round 0 to the last: no second and no joule of the run is in none of them, or in two."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    clock.advance(7)
    play(book, clock)
    clock.advance(2)
    book.finish("completed")
    run = store.run(book.run.run_id)
    rows = list(store.rounds(book.run.run_id))
    assert [row.round for row in rows] == [0, 1, 2, 3]
    assert run.ended_at is not None
    assert fsum(row.duration_s for row in rows) == pytest.approx(
        (run.ended_at - run.info.started_at) / timedelta(seconds=1), abs=1e-6
    )
    assert [row.started_at for row in rows[1:]] == [row.ended_at for row in rows[:-1]]
    watt_seconds = 100.0 * (7 + 3 * 15.6 + 2)
    assert fsum(row.server_energy_kwh or 0 for row in rows) == pytest.approx(watt_seconds / 3.6e6)
    assert run.status == "completed"
    assert dict(run.totals.rounds) == {"completed": 3}


def test_a_round_knows_its_clients_phases_and_metrics() -> None:
    """What was told between two rounds stands in one record."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    play(book, clock, rounds=1)
    book.finish("completed")
    record = store.round(book.run.run_id, 1)
    assert {p.node_id: (p.outcome, p.examples) for p in record.participants} == {
        "1": ("reported", 30), "2": ("missing", 10)
    }  # fmt: skip
    assert {lap.phase: round(lap.wall_s, 6) for lap in record.laps} == {
        "configure": 0.1, "wait": 10.0, "aggregate": 0.5, "evaluate": 5.0
    }  # fmt: skip
    assert dict(record.train_metrics) == {"loss": 1.0}
    assert dict(record.evaluate_metrics) == {"accuracy": 0.1}
    assert record.closed


def test_the_bytes_of_a_round_are_those_of_both_its_phases() -> None:
    """To each client and from it, training and evaluation added; unknown where nobody counted."""
    store = InMemoryStore()
    book = recorder(store)
    book.start()
    book.begin_round(1)
    book.sent("train", [1, 2], size_bytes=100)
    book.replied(1, "train", T0, 90)
    book.sent("evaluate", [1], size_bytes=70)
    book.replied(1, "evaluate", T0, 5)
    book.begin_round(2)
    book.sent("train", [1, 2])
    book.replied(1, "train", T0)
    book.finish("completed")
    first, second = (store.round(book.run.run_id, number) for number in (1, 2))
    assert [(p.bytes_to, p.bytes_from) for p in first.participants] == [(170, 95), (100, None)]
    assert (first.bytes_to_clients, first.bytes_from_clients) == (270, 95)
    assert (second.bytes_to_clients, second.bytes_from_clients) == (None, None)


def test_a_client_that_sends_its_running_total_is_marked_and_told_of_once(warnings: Any) -> None:
    """From its fifth report on; nothing is corrected, and a steady client is left alone."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    for number in range(1, 8):
        book.begin_round(number)
        book.sent("train", [1, 2])
        clock.advance(10)
        steady = 0.001 * (1 + 0.05 * (-1) ** number)
        sent = {1: number * 0.001 + 0.0001 * (number % 2), 2: steady}
        parts = [(n, {"emissions_kg": kg}, {"num-examples": 10}) for n, kg in sent.items()]
        book.replies("train", parts)
        book.aggregated(True, None)
    book.finish("completed")
    marked = {
        (number, report.node_id, report.emissions_kg == report.counted_emissions_kg)
        for number, _, report in store.reports(book.run.run_id)
        if report.looks_cumulative
    }
    assert marked == {(5, "1", True), (6, "1", True), (7, "1", True)}
    [told] = [line for line in warnings.messages if "look cumulative" in line]
    assert store.round(book.run.run_id, 5).reports[0].client in told


def test_a_run_that_keeps_no_client_rows_keeps_its_sums() -> None:
    """``RunInfo.client_rows`` reaches every round."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.run = book.run.model_copy(update={"client_rows": False})
    book.start()
    play(book, clock, rounds=2)
    book.finish("completed")
    assert list(store.reports(book.run.run_id)) == []
    assert list(store.participants(book.run.run_id)) == []
    assert [row.reported for row in store.rounds(book.run.run_id)] == [0, 1, 1]


def test_an_open_round_is_stored_before_it_closes() -> None:
    """After aggregation the round can be seen, as an open revision."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    play(book, clock, rounds=1)
    deadline = time.monotonic() + 5
    while not (found := list(store.rounds(book.run.run_id, closed_only=False))[1:]):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert not found[0].closed
    book.finish("completed")


def test_a_late_reply_counts_in_the_round_open_on_arrival() -> None:
    """It came for round 1 and counts in round 2; client 2 stays failed in round 1."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.sent("train", [1, 2], clock.now)
    clock.advance(10)
    book.failed(2, "no reply within 10 s")
    book.replies("train", [(1, {"emissions_kg": 0.001}, None)])
    book.aggregated(True, {})
    book.begin_round(2)
    book.late(2, "train", {"emissions_kg": 0.004}, 1, clock.now - 10)
    book.aggregated(True, {})
    book.finish("completed")
    first, second = (store.round(book.run.run_id, n) for n in (1, 2))
    assert first.status == "partial"
    assert first.outcome_count("failed") == 1
    assert first.clients_emissions_kg == 0.001
    assert second.clients_emissions_kg == 0.004
    assert second.report_count("late") == 1
    assert store.run(book.run.run_id).totals.reports_late == 1


def test_bytes_of_a_late_reply_count_in_the_round_open_on_arrival() -> None:
    """They travelled, whatever is in them; the client is no participant of that round for it."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.sent("train", [1, 2], clock.now, 100)
    clock.advance(10)
    book.replied(1, "train", clock.now, 40)
    book.failed(2, "no reply within 10 s")
    book.replies("train", [(1, {"emissions_kg": 0.001}, None)])
    book.aggregated(True, {})
    book.begin_round(2)
    book.sent("train", [1], clock.now, 100)
    book.overdue(2, 30)
    book.replied(1, "train", clock.now, 40)
    book.replies("train", [(1, {"emissions_kg": 0.001}, None)])
    book.aggregated(True, {})
    book.begin_round(3)
    book.sent("train", [1, 2], clock.now, 100)
    book.failed(2, "no reply within 10 s")
    book.overdue(2, 30)
    book.finish("completed")
    rows = list(store.rounds(book.run.run_id))[1:]
    assert [row.bytes_from_clients for row in rows] == [40, 70, 30]
    assert [row.bytes_to_clients for row in rows] == [200, 100, 200]
    assert [(row.participants, row.coverage) for row in rows[:2]] == [(2, 0.5), (1, 1.0)]
    (_, straggler) = store.round(book.run.run_id, 2).participants
    assert (straggler.node_id, straggler.train, straggler.outcome) == ("2", False, None)
    assert (straggler.sent_at, straggler.replied_at) == (None, None)


def test_a_late_reply_before_its_round_closes_is_accepted_there() -> None:
    """The outcome stays failed, the energy counts where it was used."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.sent("train", [2])
    clock.advance(10)
    book.failed(2, "no reply within 10 s")
    book.late(2, "train", {"emissions_kg": 0.004}, 1, clock.now - 10)
    book.aggregated(False, None)
    book.finish("completed")
    record = store.round(book.run.run_id, 1)
    assert record.outcome_count("failed") == 1
    assert record.report_count("accepted") == 1
    assert record.clients_emissions_kg == 0.004
    assert record.status == "failed"


def test_a_report_after_the_end_is_only_counted() -> None:
    """With no open round it stands in the totals' count and in no round."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.finish("completed")
    book.late(1, "train", {"emissions_kg": 1.0}, 1, clock.now)
    assert [row.reports_late for row in store.rounds(book.run.run_id)] == [0]


def test_interrupted_means_the_open_round_too() -> None:
    """A signal in the middle of a round: that round is interrupted, the closed ones are not."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    play(book, clock, rounds=1)
    book.begin_round(2)
    book.round_failed("Stopped")
    book.finish("interrupted")
    assert [row.status for row in store.rounds(book.run.run_id)] == [
        "completed", "completed", "interrupted"
    ]  # fmt: skip
    assert store.run(book.run.run_id).status == "interrupted"


def test_two_live_nodes_of_one_name_are_two_clients() -> None:
    """The second becomes name#2; when the first is gone its name is free again."""
    book = recorder()
    book.seen(1, "10.0.0.1 #1", False)
    book.seen(2, "10.0.0.1 #2", False)
    book.names.claim(1, "hospital")
    book.names.claim(2, "hospital")
    assert book.names.pseudonym(1) != book.names.pseudonym(2)
    assert (book.names.name(1), book.names.name(2)) == ("hospital", "hospital#2")
    book.gone(1)
    book.seen(3, "10.0.0.1 #3", False)
    book.names.claim(3, "hospital")
    assert book.names.name(3) == "hospital"


def test_untracked_runs_read_no_meter_and_keep_training_metrics() -> None:
    """With tracking off nothing is metered or judged, and the rounds are there all the same."""
    store, clock = InMemoryStore(), HandClock()
    meter = ReplayMeter(script=[MeterError("must not be read")], clock=clock)
    book = recorder(store, clock=clock, meter=meter, tracked=False)
    book.start()
    play(book, clock, rounds=1)
    book.finish("completed")
    record = store.round(book.run.run_id, 1)
    assert record.laps == ()
    assert record.reports == ()
    assert dict(record.evaluate_metrics) == {"accuracy": 0.1}
    assert book.errors == {}


# --- faults ----------------------------------------------------------------------------------------


class FailingStore(InMemoryStore):
    """Raises from what it is told to, for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = threading.Event()
        self.error: Exception = StoreError("memory://", "the disk is full")

    def record_round(self, record: RoundRecord) -> bool:
        if self.broken.is_set():
            raise self.error
        return super().record_round(record)

    def renew_lease(self, run_id: str, owner: Owner, now: datetime) -> bool:
        if self.broken.is_set():
            raise self.error
        return super().renew_lease(run_id, owner, now)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is logged as a warning."""
    with caplog.at_level(logging.WARNING):
        yield caplog


def test_a_store_that_fails_for_a_while_loses_nothing(warnings: Any) -> None:
    """Rounds wait in memory and are written when it works again; one warning, all counted."""
    store, clock = FailingStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    store.broken.set()
    begin = time.monotonic()
    play(book, clock, rounds=3)
    assert time.monotonic() - begin < 3 * 0.25 + 1.0, "a round's start waits 250 ms at the most"
    assert book.undelivered_rounds >= 3
    store.broken.clear()
    book.finish("completed")
    assert [row.round for row in store.rounds(book.run.run_id)] == [0, 1, 2, 3]
    assert book.undelivered_rounds == 0
    assert book.errors["store"] >= 1
    assert len([r for r in warnings.records if "disk is full" in r.getMessage()]) == 1


def test_a_store_that_never_works_again_does_not_hold_up_the_end(warnings: Any) -> None:
    """The end waits as long as it is given, and says what could not be stored."""
    store, clock = FailingStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    store.broken.set()
    play(book, clock, rounds=1)
    begin = time.monotonic()
    book.finish("completed", timeout_s=0.3)
    assert time.monotonic() - begin < 1.5
    assert any("not stored yet" in r.getMessage() for r in warnings.records)
    left = book.leftovers()
    assert [record.round for record in left] == [0, 1]
    assert all(record.closed for record in left)


def test_a_store_that_raises_anything_loses_nothing_either(warnings: Any) -> None:
    """Not every fault is a StoreError; it is logged once with its traceback, and all rounds come."""
    store, clock = FailingStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    store.error = ZeroDivisionError("a bug of ours")
    store.broken.set()
    play(book, clock, rounds=1)
    book._writer.barrier(2.0)
    store.broken.clear()
    book.begin_round(2)
    book.aggregated(True, {})
    book.finish("completed")
    assert [row.round for row in store.rounds(book.run.run_id)] == [0, 1, 2]
    assert book.errors["store"] >= 1
    traced = [r for r in warnings.records if r.exc_info]
    assert len(traced) == 1


def test_a_meter_that_fails_leaves_the_server_unknown(warnings: Any) -> None:
    """No energy, a reason in every lap, one warning; the clients' figures stand."""
    store, clock = InMemoryStore(), HandClock()
    broken = MeterError("codecarbon is not installed")
    book = recorder(store, clock=clock, meter=ReplayMeter(script=[broken], clock=clock))
    book.start()
    play(book, clock, rounds=2)
    book.finish("completed")
    record = store.round(book.run.run_id, 2)
    assert record.server_emissions_kg is None
    assert {lap.reason for lap in record.laps} == {"codecarbon is not installed"}
    assert record.clients_emissions_kg == 0.001
    assert len([r for r in warnings.records if "not installed" in r.getMessage()]) == 1


def test_a_meter_that_breaks_half_way_keeps_what_it_showed() -> None:
    """Rounds before the fault keep their figures."""
    store, clock = InMemoryStore(), HandClock()
    readings: list[Reading | MeterError] = [Reading(n * 0.001) for n in range(8)]
    meter = ReplayMeter(script=[*readings, MeterError("gone")], clock=clock)
    book = recorder(store, clock=clock, meter=meter)
    book.start()
    play(book, clock, rounds=3)
    book.finish("completed")
    known = [row.server_energy_kwh for row in store.rounds(book.run.run_id)]
    assert known[1] is not None
    assert known[3] is None


def test_a_listener_that_fails_is_counted() -> None:
    """Somebody's callback cannot stop the record."""

    def broken(record: RoundRecord) -> None:
        raise RuntimeError("no")

    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock, on_round_closed=broken)
    book.start()
    play(book, clock, rounds=2)
    book.finish("completed")
    assert len(list(store.rounds(book.run.run_id))) == 3
    assert book.errors["listener"] == 3


def test_start_says_what_is_wrong_with_the_store() -> None:
    """Before training, a store that cannot be written is an error."""

    class ReadOnly(InMemoryStore):
        def start_run(self, *args: Any) -> None:
            raise StoreError("memory://", "it is read-only")

    with pytest.raises(StoreError, match="read-only"):
        recorder(ReadOnly()).start()
    late = recorder(ReadOnly())
    late.start_quietly()
    late.begin_round(1)
    late.aggregated(True, {})
    late.finish("completed")
    assert late.errors["hook"] == 1


def test_a_run_that_is_taken_up_plays_new_attempts_and_old_ones_keep_their_energy() -> None:
    """Set-up and the lost round come again as attempt 2; every attempt is in the totals."""
    store, clock = InMemoryStore(), HandClock()
    first = recorder(store, clock=clock)
    first.start()
    play(first, clock, rounds=2)
    first.begin_round(3)
    clock.advance(20)
    first.finish("interrupted")
    clock.advance(1000)
    again = RoundRecorder(
        first.run,
        store,
        ReplayMeter(100.0, clock=clock),
        clock=clock,
        owner=Owner(host="test", pid=2, token="t"),
        attempts={0: 2, 1: 2, 2: 2, 3: 2},
        rounds_before=4,
        reader=InlineReader,
    )
    again.start()
    clock.advance(5)
    again.begin_round(3)
    clock.advance(10)
    again.finish("completed")
    rows = list(store.rounds(first.run.run_id))
    assert [(row.round, row.attempt) for row in rows] == [
        (0, 1), (0, 2), (1, 1), (2, 1), (3, 1), (3, 2),
    ]  # fmt: skip
    assert [row.sequence for row in rows] == [1, 5, 2, 3, 4, 6]
    assert [row.duration_s for row in rows if row.attempt == 2] == pytest.approx([5, 10])
    totals = store.run(first.run.run_id).totals
    assert totals.server_energy_kwh == pytest.approx((2 * 15.6 + 20 + 5 + 10) * 100 / 3.6e6)
    assert store.run(first.run.run_id).status == "completed"


def test_a_round_is_stored_from_its_beginning_and_what_it_took_now_and_then() -> None:
    """A server that is killed in a long round leaves the round, and most of its energy."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.sent("train", [1, 2])
    book.enter("wait")
    clock.advance(30)
    book._refresh()  # as the writer's thread does with each renewal of the lease
    assert book._writer.barrier(5)
    record = store.round(book.run.run_id, 1)
    assert (record.closed, record.status, len(record.participants)) == (False, "running", 2)
    assert record.host_energy_kwh == pytest.approx(30 * 100 / 3.6e6)
    book.finish("interrupted")


def test_a_run_that_could_not_be_recorded_still_returns_its_model() -> None:
    """The two-line form on a store that refuses: the training's result is handed out."""
    from flwr.serverapp.strategy import FedAvg

    from fedserver_hooks.strategy import EmissionsStrategy
    from tests.fedserver_hooks.fakes import LocalGrid, model, trains

    class ReadOnly(InMemoryStore):
        def start_run(self, *args: Any) -> None:
            raise StoreError("memory://", "it is read-only")

    book = recorder(ReadOnly())
    result = EmissionsStrategy(FedAvg(), book).start(
        LocalGrid({1: trains(), 2: trains()}), model(), num_rounds=1
    )
    assert list(result.arrays) == ["dense", "bias"]
    assert book.errors["hook"] >= 1


def test_a_reason_that_is_no_unicode_keeps_its_round_and_end(tmp_path: Path) -> None:
    """Half a character of a file's name in an error's words: SQL databases take none."""
    with closing(open_store(f"sqlite:///{tmp_path}/t.db")) as store:
        book = recorder(store)
        book.start()
        book.begin_round(1)
        book.round_failed("no file caf\udce9")
        book.finish("failed", "no file caf\udce9")
        assert book.delivered(5)
        assert store.round(book.run.run_id, 1).reason == "no file caf?"
        assert store.run(book.run.run_id).reason == "no file caf?"


def test_a_reason_of_any_length_keeps_its_round() -> None:
    """It is cut, not the round dropped."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.round_failed("x" * 5000)
    book.aggregated(False, None)
    book.finish("failed", "y" * 5000)
    record = store.round(book.run.run_id, 1)
    assert record.status == "failed"
    assert len(record.reason or "") == 256


def test_late_reports_are_counted_once_however_often_the_end_is_tried() -> None:
    """The end of the run fails three times; one late report stays one."""

    class SlowToEnd(InMemoryStore):
        tries = 0

        def finish_run(self, *args: Any, **options: Any) -> None:
            self.tries += 1
            if self.tries <= 3:
                raise StoreError("memory://", "another process keeps the database locked")
            super().finish_run(*args, **options)

    store, clock = SlowToEnd(), HandClock()
    book = recorder(store, clock=clock)
    book.late(1, "train", {"emissions_kg": 0.001}, 0, clock.now)  # no round is open yet
    book.start()
    book.finish("completed")
    assert store.tries == 4
    assert store.run(book.run.run_id).totals.reports_late == 1


# --- edges between threads, and parts that are broken ------------------------------------------------


def test_a_late_report_between_two_rounds_is_in_one_of_them() -> None:
    """Another thread's report comes while one round hands over to the next: its energy counts."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    submit, others = book._open._submit, []

    def meanwhile(key: Any, make: Any, *, closed: bool) -> None:
        if closed and key == (1, 1):
            late = {"emissions_kg": 0.004}
            others.append(threading.Thread(target=book.late, args=(2, "train", late, 1, clock.now)))
            others[0].start()
            others[0].join(0.2)
        submit(key, make, closed=closed)

    book._open._submit = meanwhile
    book.begin_round(2)
    others[0].join()
    book.finish("completed")
    counted = [row.clients_emissions_kg or 0.0 for row in store.rounds(book.run.run_id)]
    assert fsum(counted) == pytest.approx(0.004)


class SecondsEach:
    """A stopwatch by which whatever is timed takes a second; other threads run while it is read."""

    def __init__(self) -> None:
        self._of = threading.local()

    def perf_counter(self) -> float:
        time.sleep(0.001)
        self._of.now = getattr(self._of, "now", 0.0) + 1.0
        return float(self._of.now)


def test_no_overhead_is_lost_between_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several add to it at once, and it is exported as a counter."""
    book = recorder()
    monkeypatch.setattr("fedserver_hooks.edge.time", SecondsEach())

    def twenty() -> None:
        for _ in range(20):
            book.gone(1)

    threads = [threading.Thread(target=twenty) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.overhead_s == 80.0


@pytest.mark.parametrize("epsilon", [float("inf"), float("nan"), -1.0])
def test_a_part_that_no_record_can_be_made_with_costs_only_itself(
    epsilon: float, warnings: Any
) -> None:
    """The round is stored, with its status, its energy and its clients, and says what it lacks."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.sent("train", [1])
    clock.advance(10)
    book.replies("train", [(1, {"emissions_kg": 0.001}, {"num-examples": 30})])
    book.aggregated(True, {"loss": 0.5})
    book.privacy(epsilon, None)
    book.finish("completed")
    record = store.round(book.run.run_id, 1)
    assert (record.status, record.privacy_epsilon) == ("completed", None)
    assert record.reason == "recorded without its privacy figures (ValidationError)"
    assert record.host_energy_kwh == pytest.approx(10 * 100 / 3.6e6)
    assert record.clients_emissions_kg == 0.001
    assert dict(record.train_metrics) == {"loss": 0.5}
    assert book.errors["accounting"] == 1
    assert any("without its privacy figures" in r.getMessage() for r in warnings.records)


def test_an_event_that_cannot_be_taken_in_costs_only_itself() -> None:
    """What came before it and after it counts, once."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.sent("train", [1], size_bytes=100)
    book.sent("train", 5)  # type: ignore[arg-type]
    clock.advance(10)
    book.replies("train", [(1, {"emissions_kg": 0.001}, None)])
    book.aggregated(True, {})
    book.finish("completed")
    record = store.round(book.run.run_id, 1)
    assert record.clients_emissions_kg == 0.001
    assert record.bytes_to_clients == 100
    assert book.errors["accounting"] == 1


def test_names_that_fail_do_not_cost_the_round_nor_make_it_look_empty() -> None:
    """Its clients are unknown then, not nobody: their emissions are no zero."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    book.begin_round(1)
    book.seen(1, "lone surrogate \ud800", False)  # cannot be encoded
    book.sent("train", [1])
    clock.advance(10)
    book.replies("train", [(1, {"emissions_kg": 0.001}, None)])
    book.aggregated(True, {})
    book.finish("completed")
    record = store.round(book.run.run_id, 1)
    assert record.host_energy_kwh == pytest.approx(10 * 100 / 3.6e6)
    assert len(record.trained) == 1
    assert record.clients_emissions_kg is None


def test_rounds_that_the_writer_has_not_seen_are_left_over_too() -> None:
    """The store keeps the writer in one write: what came after it is not lost."""
    hold = threading.Event()

    class Stuck(InMemoryStore):
        def record_round(self, record: RoundRecord) -> bool:
            hold.wait(30)
            return super().record_round(record)

    store, clock = Stuck(), HandClock()
    book = recorder(store, clock=clock)
    book.start()
    play(book, clock, rounds=3)
    book.finish("completed", timeout_s=0.3)
    left = book.leftovers()
    hold.set()
    assert [(record.round, record.closed) for record in left] == [(n, True) for n in range(4)]
    assert left[3].host_energy_kwh == pytest.approx(15.6 * 100 / 3.6e6)


def test_rounds_that_nobody_keeps_are_said_to_be_lost(warnings: Any) -> None:
    """The two-line form has nowhere to keep them: one line says which."""
    from flwr.serverapp.strategy import FedAvg

    from fedserver_hooks.strategy import EmissionsStrategy
    from tests.fedserver_hooks.fakes import LocalGrid, model, trains

    store = FailingStore()
    store.broken.set()
    book = recorder(store)
    inner = book.finish

    def soon(status: Any, reason: str | None = None, timeout_s: float = 0.2) -> None:
        inner(status, reason, timeout_s)  # an ordinary end waits 10 s for the store

    book.finish = soon  # type: ignore[method-assign]
    EmissionsStrategy(FedAvg(), book).start(LocalGrid({1: trains(), 2: trains()}), model(), 2)
    lost = [r.getMessage() for r in warnings.records if "are lost" in r.getMessage()]
    assert len(lost) == 1
    assert f"3 round(s) of run {book.run.run_id} are lost" in lost[0]
    assert "0, 1, 2" in lost[0]
