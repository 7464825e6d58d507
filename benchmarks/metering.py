"""What metering a round costs and covers: one meter for a run, against a tracker for each round.

The ways run here in turns, on one machine, with forced RAM power, so that the energy that is due is
known: watts × seconds. Prints the figures and exits 1 if a target is missed. About 30 s.

Three costs of a round are told. The training's own time: a tracker a round is built and stopped on
it, ours only notes instants there. The same with what the reader's and the writer's thread of ours
compute: told, and without a target, for no round waits for it. And the processor time of the whole
process, where a tracker's own threads count as well, but not what training waits for them.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from codecarbon import OfflineEmissionsTracker

from fedserver_hooks.meter import CodeCarbonMeter
from fedserver_hooks.phases import PhaseLedger
from fedserver_hooks.reader import ThreadReader
from telemetry.domain import ServerPhase

RAM_W = 100.0
TURNS = 5
ROUNDS_A_TURN = 8
TRAIN_S = 0.15
"""While clients train; then while they evaluate. Above the 50 ms that codecarbon resolves."""
EVALUATE_S = 0.08
AGGREGATE_S = 0.02
PHASES: tuple[tuple[ServerPhase, float], ...] = (
    ("configure", 0.0),
    ("wait", TRAIN_S),
    ("aggregate", AGGREGATE_S),
    ("idle", 0.0),
    ("evaluate", EVALUATE_S),
    ("idle", 0.0),
)
JOULES_PER_KWH = 3.6e6

LARGEST_COST_RATIO = 1 / 8
LARGEST_COST_S = 2e-3
SMALLEST_COVERAGE = 0.99


@dataclass
class Side:
    """What one way of metering cost and saw so far."""

    name: str
    seconds_a_round: list[float] = field(default_factory=list)
    """Of the training's own time."""
    elsewhere_s: float = 0.0
    """Processor time of the reader's and the writer's thread."""
    cpu_s: float = 0.0
    """Processor time of the process, all threads."""
    joules: float = 0.0
    wall_s: float = 0.0

    @property
    def median_s(self) -> float:
        """Median cost of a round."""
        return statistics.median(self.seconds_a_round)

    @property
    def whole_s(self) -> float:
        """Median cost of a round, with that of the reader and the writer."""
        return self.median_s + self.elsewhere_s / len(self.seconds_a_round)

    @property
    def cpu_s_a_round(self) -> float:
        """Processor time of a round, all threads."""
        return self.cpu_s / len(self.seconds_a_round)

    @property
    def coverage(self) -> float:
        """Energy seen ÷ energy due."""
        return self.joules / (RAM_W * self.wall_s)


class OtherThreads:
    """Adds up the processor time of what runs in threads beside the training's."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self._lock = threading.Lock()

    def reader(self, read: Callable[[], None], hang_s: float) -> ThreadReader:
        """The server's own reader, counted."""
        return ThreadReader(self.counted(read), hang_s)

    def counted(self, call: Callable[[], None]) -> Callable[[], None]:
        """The same call, counted."""

        def run() -> None:
            begun = time.thread_time()
            call()
            with self._lock:
                self.cpu_s += time.thread_time() - begun

        return run


def one_meter(side: Side) -> None:
    """Ours: the ledger that the server uses, told of each phase as the server tells it."""
    meter = CodeCarbonMeter(country="ESP", force_ram_power=RAM_W)
    meter.start()
    if not meter.wait_ready(30.0):
        meter.read()  # raises why
    clock = time.perf_counter
    cpu_begun_s = time.process_time()
    others = OtherThreads()
    book = PhaseLedger(meter, clock, on_failure=print, reader=others.reader)
    begun = book.enter((0, 1), "setup")
    with ThreadPoolExecutor(1) as writer:
        for number in range(1, ROUNDS_A_TURN + 1):
            cost = timed(partial(book.enter, (number, 1), PHASES[0][0]))
            writer.submit(others.counted(partial(book.settle, (number - 1, 1))))
            for phase, seconds in PHASES[1:]:
                cost += timed(partial(book.enter, (number, 1), phase))
                time.sleep(seconds)
            side.seconds_a_round.append(cost)
    ended = book.leave()
    keys = [(number, 1) for number in range(ROUNDS_A_TURN + 1)]
    for key in keys:
        book.settle(key)
    side.cpu_s += time.process_time() - cpu_begun_s
    side.elsewhere_s += others.cpu_s
    laps = [lap for key in keys for lap in book.laps(key)]
    side.joules += sum(lap.ram_kwh or 0.0 for lap in laps) * JOULES_PER_KWH
    side.wall_s += ended - begun
    book.close()  # it would keep the other ways from logging


def tracker_a_round(side: Side, **options: Any) -> None:
    """A new tracker, built and started before each round and stopped after it."""

    def whole_round() -> None:
        time.sleep(TRAIN_S)
        time.sleep(AGGREGATE_S)
        time.sleep(EVALUATE_S)

    trackers(side, before=None, inside=whole_round, options=options)


def tracker_around_aggregation(side: Side, **options: Any) -> None:
    """A new tracker around aggregation only: the server's wait for its clients is not seen."""
    trackers(
        side,
        before=lambda: time.sleep(TRAIN_S + EVALUATE_S),
        inside=lambda: time.sleep(AGGREGATE_S),
        options=options,
    )


def trackers(
    side: Side,
    before: Callable[[], None] | None,
    inside: Callable[[], None],
    options: dict[str, Any],
) -> None:
    """A turn of rounds of which ``inside`` is metered by a new tracker each."""
    turn_begun, cpu_begun_s = time.perf_counter(), time.process_time()
    for _ in range(ROUNDS_A_TURN):
        if before is not None:
            before()
        begun = time.perf_counter()
        tracker = OfflineEmissionsTracker(country_iso_code="ESP", force_ram_power=RAM_W, **options)
        tracker.start()
        cost = time.perf_counter() - begun
        inside()
        side.seconds_a_round.append(cost + timed(tracker.stop))
        side.joules += tracker.final_emissions_data.ram_energy * JOULES_PER_KWH
    side.wall_s += time.perf_counter() - turn_begun
    side.cpu_s += time.process_time() - cpu_begun_s


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def measure() -> tuple[Side, Side, Side, Side]:
    """All ways in turns, so that whatever else the machine does meets each of them."""
    ours = Side("one meter, read at phase boundaries")
    plain = Side("tracker a round, as documented")
    quiet = Side("tracker a round, no file, no log")
    narrow = Side("tracker around aggregation")
    silent = {"output_methods": [], "log_level": "critical"}
    for _ in range(TURNS):
        one_meter(ours)
        tracker_a_round(plain)
        tracker_a_round(quiet, **silent)
    tracker_around_aggregation(narrow, **silent)  # for its coverage only: one turn will do
    return ours, plain, quiet, narrow


def main() -> int:
    """Measure, print, and say whether the targets are met."""
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        os.chdir(folder)  # the documented way writes emissions.csv where it stands
        sys.stderr = nowhere  # and logs some 20 lines a round
        ours, plain, quiet, narrow = measure()
        logging.getLogger("codecarbon").handlers.clear()
        sys.stderr = sys.__stderr__
        os.chdir("/")
    print(f"{'':36}{'own time':>10}{'threads':>9}{'process':>9}{'covered':>9}   ms a round")
    for side in (ours, plain, quiet, narrow):
        print(
            f"{side.name:36}{side.median_s * 1e3:10.3f}{side.whole_s * 1e3:9.2f}"
            f"{side.cpu_s_a_round * 1e3:9.2f}{side.coverage:9.1%}"
        )
    print(
        f"     with its threads, ours ÷ the silent tracker: {ours.whole_s / quiet.median_s:.3f}, "
        f"÷ the documented one: {ours.whole_s / plain.median_s:.3f}; "
        f"processor time of the process: {ours.cpu_s_a_round / quiet.cpu_s_a_round:.3f}, "
        f"÷ the documented one's: {ours.cpu_s_a_round / plain.cpu_s_a_round:.3f}"
    )
    own = ours.median_s / quiet.median_s
    checks = (
        (
            f"own time, ours ÷ the silent tracker: {own:.4f}, at most {LARGEST_COST_RATIO}",
            own <= LARGEST_COST_RATIO,
        ),
        (
            f"{ours.median_s * 1e3:.3f} ms of the training's own time a round, "
            f"at most {LARGEST_COST_S * 1e3:g}",
            ours.median_s <= LARGEST_COST_S,
        ),
        (
            f"{ours.coverage:.2%} of the energy covered, at least {SMALLEST_COVERAGE:.0%}",
            SMALLEST_COVERAGE <= ours.coverage <= 2 - SMALLEST_COVERAGE,
        ),
    )
    for text, met in checks:
        print(f"{'ok  ' if met else 'MISS'} {text}")
    return 0 if all(met for _, met in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
