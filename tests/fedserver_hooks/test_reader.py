"""A meter that hangs hangs alone: neither training nor the end of a run waits for it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from hypothesis import given
from hypothesis import strategies as st

from fedserver_hooks.meter import MeterError, Reading, ReplayMeter
from fedserver_hooks.phases import PhaseLedger
from fedserver_hooks.reader import STOP_S, ThreadReader
from fedserver_hooks.readings import MeterHangs
from fedserver_hooks.recorder import BARRIER_S, RoundRecorder
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.domain import Owner, ServerPhase
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run
from tests.fedserver_hooks.fakes import LocalGrid, model, trains

ROOT = Path(__file__).parents[2]
END_S = 2.0
JITTER_S = 0.25
WATTS = 3.6e6
"""One kWh a second."""


class StuckMeter(ReplayMeter):
    """Constant watts, shown at once but for the readings that are kept back until `free`."""

    def __init__(self, resolution_s: float = 0.0) -> None:
        super().__init__(WATTS, resolution_s=resolution_s)
        self._free = threading.Event()
        self._free.set()
        self.stuck = threading.Event()
        self.shown: list[float] = []
        self.readers: set[threading.Thread] = set()
        self.stopped = threading.Event()

    def hang(self) -> None:
        """From the next reading on."""
        self._free.clear()

    def free(self) -> None:
        """What is kept back comes back."""
        self._free.set()

    def come_back(self) -> None:
        """The same, and waits until it has."""
        before = len(self.shown)
        self._free.set()
        while len(self.shown) == before:
            time.sleep(0.001)
        time.sleep(0.01)  # for the ledger to take it in

    def read(self) -> Reading:
        reading = super().read()
        self.readers.add(threading.current_thread())
        if not self._free.is_set():
            self.stuck.set()
            self._free.wait(8)
        self.shown.append(reading.energy_kwh)
        return reading

    def stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def meter() -> Iterator[StuckMeter]:
    """A meter whose readings all come back when the test is over."""
    made = StuckMeter()
    yield made
    made.free()


def recorder(meter: ReplayMeter, store: InMemoryStore | None = None) -> RoundRecorder:
    """As a server has it: real clock, the meter in its thread."""
    owner = Owner(host="test", pid=1, token="t")
    return RoundRecorder(make_run(), store or InMemoryStore(), meter, owner=owner)


def calls(book: RoundRecorder, rounds: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """What training tells of so many rounds, each with the phase that it begins."""
    for number in range(1, rounds + 1):
        yield "configure", lambda number=number: book.begin_round(number)  # type: ignore[misc]
        yield "wait", lambda: book.enter("wait")
        yield "aggregate", lambda: book.replies("train", [(1, {"emissions_kg": 0.001}, None)])
        yield "idle", lambda: book.aggregated(True, {})
        yield "evaluate", lambda: book.evaluating()
        yield "idle", lambda: book.evaluated({})


@pytest.mark.parametrize("phase", ["setup", "configure", "wait", "aggregate", "evaluate", "idle"])
def test_a_hanging_reading_keeps_nobody(meter: StuckMeter, phase: str) -> None:
    """Whichever phase it hangs in: no call blocks beyond the barrier, the end is there in 2 s."""
    store = InMemoryStore()
    book = recorder(meter, store)
    if phase == "setup":
        meter.hang()
    book.start()
    slowest_s = 0.0
    for entered, call in calls(book, rounds=3):
        if entered == phase:
            meter.hang()
        begun = time.monotonic()
        call()
        slowest_s = max(slowest_s, time.monotonic() - begun)
        time.sleep(0.005)
    assert meter.stuck.wait(1.0)
    begun = time.monotonic()
    book.finish("completed")
    assert time.monotonic() - begun < END_S
    assert slowest_s < BARRIER_S + JITTER_S
    rows = list(store.rounds(book.run.run_id))
    assert [row.round for row in rows] == [0, 1, 2, 3]
    assert rows[3].server_energy_kwh is None
    assert "hangs" in {lap.reason for lap in store.round(book.run.run_id, 3).laps}.pop()  # type: ignore[operator]
    assert book.errors == {"meter": 1}


def test_the_meter_is_read_and_stopped_in_a_thread_of_its_own(meter: StuckMeter) -> None:
    """Neither training nor the writer ever calls it."""
    book = recorder(meter)
    book.start()
    for _, call in calls(book, rounds=2):
        call()
    book.finish("completed")
    assert meter.stopped.is_set()
    assert {thread.name for thread in meter.readers} == {"meter-reader"}
    (reader,) = meter.readers
    reader.join(1.0)
    assert not reader.is_alive(), "nothing of ours runs on"


def test_a_meter_that_hangs_leaves_the_model_as_it_is(meter: StuckMeter) -> None:
    """The aggregate is that of the bare strategy, bit for bit."""
    nodes = {1: trains(1.0, 10), 2: trains(3.0, 30)}
    bare = FedAvg().start(LocalGrid(nodes), model(), num_rounds=2)
    book = recorder(meter)
    meter.hang()
    begun = time.monotonic()
    recorded = EmissionsStrategy(FedAvg(), book).start(LocalGrid(nodes), model(), num_rounds=2)
    assert time.monotonic() - begun < END_S + 2 * BARRIER_S
    assert meter.stuck.is_set()
    for name, array in bare.arrays.items():
        assert np.array_equal(array.numpy(), recorded.arrays[name].numpy())


def test_after_a_hang_metering_goes_on(meter: StuckMeter) -> None:
    """What was given up stays unknown, what follows is known; never more than the meter showed."""
    failures: list[MeterError] = []
    meter.start()
    book = PhaseLedger(meter, time.monotonic, on_failure=failures.append, hang_s=0.6)
    rounds = [(number, 1) for number in range(1, 6)]
    waits = []
    for key in rounds:
        if key == rounds[1]:
            meter.hang()
        if key == rounds[3]:
            meter.come_back()
        book.enter(key, "wait")
        if key == rounds[1]:
            assert meter.stuck.wait(1.0)
        if key > rounds[0]:
            begun = time.monotonic()
            book.settle((key[0] - 1, 1))
            waits.append(time.monotonic() - begun)
        time.sleep(0.02)
    book.leave()
    book.settle(rounds[-1])
    first, second, third, fourth, fifth = (book.laps(key)[0] for key in rounds)
    assert 0.1 < waits[0] < 0.6 + JITTER_S
    assert waits[1] < JITTER_S, "the same reading is not waited for again"
    for lap in (first, second):  # the reading of their end did not come
        assert lap.metered_s < lap.wall_s
        assert lap.reason == "the meter hangs: a reading has not come back"
    for lap in (third, fourth, fifth):
        assert lap.metered_s == pytest.approx(lap.wall_s)
        assert lap.energy_kwh is not None
        assert lap.energy_kwh > 0
    known = [lap.energy_kwh or 0.0 for lap in (first, second, third, fourth, fifth)]
    assert fsum(known) <= meter.shown[-1] - meter.shown[0] + 1e-12
    assert [type(failure) for failure in failures] == [MeterHangs]
    book.close()


def test_two_hangs_are_told_twice(meter: StuckMeter) -> None:
    """Each reading that hangs is one failure, however many rounds it costs."""
    failures: list[MeterError] = []
    meter.start()
    book = PhaseLedger(meter, time.monotonic, on_failure=failures.append, hang_s=0.3)
    for number in range(1, 7):
        if number in (2, 5):
            meter.hang()
        if number == 4:
            meter.come_back()
        book.enter((number, 1), "wait")
        time.sleep(0.01)
        book.settle((number - 1, 1))
    assert [type(failure) for failure in failures] == [MeterHangs, MeterHangs]
    book.close()


def test_a_stop_that_hangs_does_not_keep_the_end() -> None:
    """The run is stored and over; the meter is left to itself."""
    hold = threading.Event()

    class NeverStops(StuckMeter):
        def stop(self) -> None:
            hold.wait(8)

    store = InMemoryStore()
    book = recorder(NeverStops(), store)
    book.start()
    for _, call in calls(book, rounds=1):
        call()
    begun = time.monotonic()
    book.finish("completed")
    assert time.monotonic() - begun < STOP_S + 0.5
    assert store.run(book.run.run_id).status == "completed"
    hold.set()


SCRIPT = """
import threading, time
from tests.fedserver_hooks.test_reader import StuckMeter, calls, recorder

meter = StuckMeter()
meter.stop = threading.Event().wait  # for ever
book = recorder(meter)
book.start()
meter.hang()
for _, call in calls(book, rounds=1):
    call()
book.finish("completed")
print("finished", flush=True)
"""


def test_a_process_ends_while_its_meter_hangs() -> None:
    """In a reading: the interpreter does not wait for the thread."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "finished\n"
            assert process.wait(5.0) == 0
        finally:
            process.kill()


def test_readings_that_are_asked_for_meanwhile_are_one() -> None:
    """While one is under way, whoever asks gets the one after it."""
    hold, begun, taken = threading.Event(), threading.Event(), []

    def read() -> None:
        begun.set()
        taken.append(1)
        hold.wait(5)

    reader = ThreadReader(read)
    reader.wake()
    assert begun.wait(5)
    for _ in range(10):
        reader.wake()
    hold.set()
    assert reader.wait(5.0)
    assert len(taken) <= 3


def test_no_reading_follows_sooner_than_the_meter_resolves() -> None:
    """One that was asked for while another was under way would show nothing new."""
    meter = StuckMeter(resolution_s=10.0)
    meter.start()
    book = PhaseLedger(meter, time.monotonic, on_failure=lambda _: None)
    meter.hang()
    book.enter((1, 1), "configure")
    assert meter.stuck.wait(1.0)
    book.enter((1, 1), "wait")
    meter.come_back()
    book.close()
    assert meter.stopped.is_set()
    assert len(meter.shown) == 1


def test_a_reading_that_comes_back_after_the_end_lets_the_meter_stop(meter: StuckMeter) -> None:
    """It is stopped then, and not before: a meter must not be stopped while it is read."""
    book = recorder(meter)
    book.start()
    meter.hang()
    book.begin_round(1)
    book.finish("completed")
    assert not meter.stopped.is_set()
    meter.free()
    assert meter.stopped.wait(2.0)


class Counter:
    """A meter that shows whatever comes next, and counts what it showed."""

    resolution_s = 0.0005
    sensor: Any = "rapl"
    scope: Any = "machine"
    tracker: str | None = "counter"

    def __init__(self, steps: list[float | None]) -> None:
        self._steps = iter(steps)
        self._total = 0.0
        self.shown: list[float] = []

    def start(self) -> None:
        """It runs."""

    def wait_ready(self, timeout_s: float) -> bool:
        """It does."""
        return True

    def read(self) -> Reading:
        """The total after the next step; None in the script is a failure."""
        step = next(self._steps, 1.0)
        if step is None:
            raise MeterError("busy")
        self._total += step
        self.shown.append(self._total)
        time.sleep(0.001 * (len(self.shown) % 3))  # phases change while it is read
        return Reading(self._total)

    def stop(self) -> None:
        """Nothing runs."""


@given(
    phases=st.lists(
        st.tuples(
            st.sampled_from(["configure", "wait", "aggregate", "evaluate", "idle"]),
            st.sampled_from([0.0, 0.0, 0.0002, 0.001, 0.002]),
            st.booleans(),
        ),
        min_size=1,
        max_size=25,
    ),
    steps=st.lists(st.floats(0, 10), max_size=30),
)
def test_shares_sum_to_the_meters_total(
    phases: list[tuple[ServerPhase, float, bool]], steps: list[float]
) -> None:
    """With the thread in place: all that the meter showed from its first reading to its last."""
    meter = Counter([*steps])
    failures: list[MeterError] = []
    book = PhaseLedger(meter, time.perf_counter, on_failure=failures.append)
    number, keys = 1, [(1, 1)]
    begun = book.enter((1, 1), "setup")
    settling = []
    for phase, seconds, next_round in phases:
        number += next_round
        book.enter((number, 1), phase)
        if next_round:
            settling.append(threading.Thread(target=book.settle, args=((number - 1, 1),)))
            settling[-1].start()
            keys.append((number, 1))
        time.sleep(seconds)
    book.enter((number + 1, 1), "idle")
    for thread in settling:
        thread.join()
    book.settle((number, 1))
    book.close()  # after the last reading, of which "idle" has its part
    keys.append((number + 1, 1))
    at_least_s = time.perf_counter() - begun
    laps = [lap for key in keys for lap in book.laps(key)]
    at_most_s = time.perf_counter() - begun
    whole = meter.shown[-1] - meter.shown[0]
    assert fsum(lap.energy_kwh or 0.0 for lap in laps) == pytest.approx(whole, rel=1e-9, abs=1e-9)
    assert at_least_s - 1e-6 <= fsum(lap.wall_s for lap in laps) <= at_most_s + 1e-6
    assert not failures
