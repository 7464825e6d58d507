"""The meter's figure is shared among phases and rounds without losing or inventing any."""

from __future__ import annotations

from math import fsum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedserver_hooks.meter import MeterError, Reading, ReplayMeter
from fedserver_hooks.phases import PhaseLedger
from fedserver_hooks.reader import InlineReader
from telemetry.domain import Lap
from tests.fedserver_hooks.fakes import HandClock

WATTS = 3.6e6  # one kWh a second: energies below read as seconds
ROUND_1, ROUND_2 = (1, 1), (2, 1)


def ledger(
    resolution_s: float = 0.05, script: list[Reading | MeterError] | None = None
) -> tuple[PhaseLedger, HandClock, list[MeterError]]:
    """A ledger over a meter of one kWh a second, or a script, whose waits turn the clock."""
    clock = HandClock(1000.0)
    meter = ReplayMeter(WATTS, clock=clock, resolution_s=resolution_s, script=script)
    meter.start()
    failures: list[MeterError] = []
    return (
        PhaseLedger(
            meter, clock, on_failure=failures.append, reader=InlineReader, wait=clock.advance
        ),
        clock,
        failures,
    )


def energies(laps: tuple[Lap, ...]) -> dict[str, float | None]:
    """Energy by phase."""
    return {lap.phase: lap.energy_kwh for lap in laps}


def test_long_phases_get_what_the_meter_showed() -> None:
    """Each phase longer than the meter's resolution has its own energy, not pro-rated."""
    book, clock, _ = ledger()
    book.enter(ROUND_1, "configure")
    clock.advance(0.1)
    book.enter(ROUND_1, "wait")
    clock.advance(2.0)
    book.enter(ROUND_1, "aggregate")
    clock.advance(0.5)
    book.leave()
    book.settle(ROUND_1)
    laps = book.laps(ROUND_1)
    assert energies(laps) == pytest.approx({"configure": 0.1, "wait": 2.0, "aggregate": 0.5})
    assert not any(lap.prorated for lap in laps)
    assert [lap.metered_s for lap in laps] == pytest.approx([0.1, 2.0, 0.5])


def test_phases_below_the_resolution_are_prorated_and_marked() -> None:
    """They share one reading by wall time; the long one among them is not marked."""
    book, clock, _ = ledger()
    book.enter(ROUND_1, "configure")
    clock.advance(0.01)
    book.enter(ROUND_1, "wait")
    clock.advance(1.0)
    book.enter(ROUND_1, "aggregate")
    clock.advance(0.02)
    book.enter(ROUND_1, "idle")
    clock.advance(0.01)
    book.leave()
    book.settle(ROUND_1)
    laps = {lap.phase: lap for lap in book.laps(ROUND_1)}
    assert laps["configure"].energy_kwh == pytest.approx(0.01)
    assert laps["aggregate"].energy_kwh == pytest.approx(0.02)
    assert [p for p, lap in laps.items() if lap.prorated] == ["configure", "aggregate", "idle"]


def test_a_round_that_ends_between_two_samples_is_settled_with_its_own_share() -> None:
    """Settling waits for the meter, splits the reading at the boundary, and takes nothing else's."""
    book, clock, _ = ledger()
    book.enter(ROUND_1, "wait")
    clock.advance(1.0)
    book.enter(ROUND_1, "idle")
    clock.advance(0.01)
    book.enter(ROUND_2, "configure")
    clock.advance(0.005)
    before = clock.now
    book.settle(ROUND_1)
    assert 0 < clock.now - before <= 0.05
    assert energies(book.laps(ROUND_1)) == pytest.approx({"wait": 1.0, "idle": 0.01})
    clock.advance(0.5)
    book.leave()
    book.settle(ROUND_2)
    assert fsum(lap.energy_kwh or 0 for lap in book.laps(ROUND_2)) == pytest.approx(
        clock.now - 1001.01
    )


def test_a_failed_reading_is_made_good_by_the_next_one() -> None:
    """The stretch waits for the next reading: no gap, no zero."""
    script: list[Reading | MeterError] = [
        Reading(0.0), MeterError("busy"), Reading(3.0), Reading(3.0)
    ]  # fmt: skip
    book, clock, failures = ledger(script=script)
    book.enter(ROUND_1, "configure")
    clock.advance(1.0)
    book.enter(ROUND_1, "wait")
    clock.advance(2.0)
    book.enter(ROUND_1, "aggregate")
    assert [f.reason for f in failures] == ["busy"]
    assert energies(book.laps(ROUND_1))["configure"] == pytest.approx(1.0)
    assert energies(book.laps(ROUND_1))["wait"] == pytest.approx(2.0)


def test_what_cannot_be_read_is_unknown_with_a_reason_and_never_zero() -> None:
    """A round that ends while the meter fails has no energy; the one after gets none of it."""
    broken = MeterError("no permission")
    script: list[Reading | MeterError] = [Reading(0.0), broken, broken, Reading(12.0)]
    book, clock, _ = ledger(script=script)
    book.enter(ROUND_1, "wait")
    clock.advance(10.0)
    book.enter(ROUND_2, "wait")
    book.settle(ROUND_1)
    (lap,) = book.laps(ROUND_1)
    assert (lap.energy_kwh, lap.metered_s, lap.wall_s) == (None, 0.0, 10.0)
    assert lap.reason == "no permission"
    clock.advance(2.0)
    book.leave()
    book.settle(ROUND_2)
    assert energies(book.laps(ROUND_2)) == pytest.approx({"wait": 2.0})


def test_before_the_first_reading_nothing_is_known() -> None:
    """Time before the meter could be read is not metered, and says so."""
    script: list[Reading | MeterError] = [MeterError("it is starting"), Reading(5.0), Reading(6.0)]
    book, clock, _ = ledger(script=script)
    book.enter((0, 1), "setup")
    clock.advance(3.0)
    book.enter((0, 1), "setup")
    clock.advance(1.0)
    book.leave()
    book.settle((0, 1))
    (lap,) = book.laps((0, 1))
    assert lap.energy_kwh == pytest.approx(1.0)
    assert (lap.wall_s, lap.metered_s) == pytest.approx((4.0, 1.0))
    assert lap.reason is not None


def test_a_meter_that_answers_nonsense_is_a_failure() -> None:
    """What is no reading is unknown, with a reason; the stretch waits for one."""
    script: list[Any] = [Reading(0.0), Reading(None), Reading(3.0)]  # type: ignore[arg-type]
    book, clock, failures = ledger(script=script)
    book.enter(ROUND_1, "wait")
    clock.advance(1.0)
    book.enter(ROUND_1, "aggregate")
    clock.advance(2.0)
    book.leave()
    book.settle(ROUND_1)
    assert len(failures) == 1
    assert "TypeError" in failures[0].reason
    assert energies(book.laps(ROUND_1)) == pytest.approx({"wait": 1.0, "aggregate": 2.0})


def test_a_lap_of_a_share_says_what_it_is_a_share_of() -> None:
    """The machine's energy is shared out among phases as ours is; the whole machine's meter has none."""
    script: list[Reading | MeterError] = [
        Reading(0.0, machine_kwh=0.0), Reading(2.0, machine_kwh=8.0), Reading(3.0, machine_kwh=20.0)
    ]  # fmt: skip
    book, clock, _ = ledger(script=script)
    for phase, seconds in (("configure", 0.01), ("wait", 3.0), ("wait", 4.0)):
        book.enter(ROUND_1, phase)  # type: ignore[arg-type]
        clock.advance(seconds)
    book.leave()
    book.settle(ROUND_1)
    laps = book.laps(ROUND_1)
    assert fsum(lap.machine_kwh or 0 for lap in laps) == pytest.approx(20.0)
    for lap in laps:
        assert lap.machine_kwh is not None
        assert lap.energy_kwh is not None
    assert (laps[0].machine_kwh or 0) == pytest.approx((laps[0].energy_kwh or 0) * 4)
    book, clock, _ = ledger()
    book.enter(ROUND_1, "wait")
    clock.advance(1.0)
    book.leave()
    book.settle(ROUND_1)
    assert [lap.machine_kwh for lap in book.laps(ROUND_1)] == [None]


steps = st.lists(
    st.tuples(
        st.sampled_from(["configure", "wait", "aggregate", "evaluate", "idle"]),
        st.floats(0, 0.2),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@given(steps)
def test_parts_sum_to_the_whole(script: list[tuple[str, float, bool]]) -> None:
    """Over any phases and rounds of any length, the laps' energy and time are the meter's, exactly."""
    book, clock, _ = ledger()
    start, number = clock.now, 1
    rounds = [(1, 1)]
    for phase, seconds, next_round in script:
        if next_round:
            number += 1
            rounds.append((number, 1))
        book.enter((number, 1), phase)  # type: ignore[arg-type]
        if next_round:
            book.settle((number - 1, 1))
        clock.advance(seconds)
    end = book.leave()
    for key in rounds:
        book.settle(key)
    laps = [lap for key in rounds for lap in book.laps(key)]
    assert fsum(lap.wall_s for lap in laps) == pytest.approx(end - start, abs=1e-9)
    assert fsum(lap.metered_s for lap in laps) == pytest.approx(end - start, abs=1e-9)
    assert fsum(lap.energy_kwh or 0 for lap in laps) == pytest.approx(end - start, abs=1e-9)
