"""Marks: who is far from the others, and who sends a running total."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from telemetry.domain import ReportRecord
from telemetry.marks import NO_VALUES, BareHistory, outliers
from telemetry.testing import make_report
from tests.telemetry.facts import node, report, round_of, window


def cumulative(values: list[float]) -> list[bool]:
    """After each value, whether the client looks cumulative."""
    rise, seen = NO_VALUES, []
    for value in values:
        rise = rise.then(value)
        seen.append(rise.looks_cumulative)
    return seen


def named(values: list[float]) -> dict[int, float]:
    """Values by their place."""
    return dict(enumerate(values))


# --- outliers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "far"),
    [
        ([], set()),
        ([1, 1, 1, 100], set()),  # four are too few to say
        ([1, 2, 3, 4, 100], {4}),  # median 3, MAD 1: 0.6745 x 97
        ([1, 2, 3, 4, 8.1], set()),  # 0.6745 x 5.1 = 3.44
        ([1, 2, 3, 4, 8.2], {4}),  # 0.6745 x 5.2 = 3.51
        ([50, 51, 52, 53, 0], {4}),  # below as well as above: median 51, MAD 1
        ([1, 1, 1, 1, 1], set()),
        ([0, 0, 0, 0, 0], set()),
        ([1, 1, 1, 1, 2], {4}),  # MAD 0, mean deviation 0.2: 0.7979 x 1 / 0.2 = 3.99
        ([1, 1, 1, 1, 1, 1, 2, 2], set()),  # mean deviation 0.25: 0.7979 x 4 = 3.19
    ],
)
def test_outliers(values: list[float], far: set[int]) -> None:
    """Beyond 3.5 modified z-scores of the median; the mean deviation where the MAD is 0."""
    assert outliers(named(values)) == far


def test_an_outlier_is_marked_in_its_phase_and_counts_in_full() -> None:
    """Training is compared with training; the mark changes no figure."""
    usual = [report(str(i), 0.001 + i * 1e-5) for i in range(6)]
    tests = [report(str(i), 0.0001 + i * 1e-6, phase="evaluate") for i in range(6)]
    record = round_of(*usual, *tests, report("9", 0.01))
    assert [(r.node_id, r.flags) for r in record.reports if r.flags] == [("9", ("outlier",))]
    assert record.reports_flagged == 1
    assert record.flagged_emissions_kg == 0.01
    counted = sum(r.emissions_kg or 0.0 for r in record.accepted)
    assert record.clients_emissions_kg == pytest.approx(counted, rel=1e-12)


def test_rejected_and_late_reports_are_no_measure_for_the_others() -> None:
    """Nor are they marked: of six reports with one late and one rejected four are left."""
    values = [0.001, 0.001, 0.001, 0.001]
    reports = [report(str(i), value) for i, value in enumerate(values)]
    record = round_of(
        *reports, report("8", 0.5, late=True, reported_round=0), report("9", -1),
    )  # fmt: skip
    assert not any(r.flags for r in record.reports)


# --- running totals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 9,
        [0.0] * 9,
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 1.0, 2.0],
        [1e-12, 1e-12, 1e-12, 1e-12, 1.0],
        [5.0, 4.0, 3.0, 2.0, 1.0],
        [1.0, 2.0, 3.0, 4.0],
        [1.0, 2.0, 3.0, 4.0, 3.9],
        [10.0, 10.1, 10.15, 10.4, 10.41],  # rises, in steps less even than the values
    ],
)
def test_what_is_no_running_total(values: list[float]) -> None:
    """Steady, silent, falling, single, too short and unevenly rising clients."""
    assert not any(cumulative(values))


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 3.0, 4.0, 5.0],
        [7.0, 8.0, 9.1, 9.9, 11.0],  # began before the run
        [1.0, 2.0, 4.0, 5.0, 6.0],  # one round was missed
        [9.0, 1.0, 2.0, 3.0, 4.0, 5.0],  # a tracker that was started again
    ],
)
def test_what_is_a_running_total(values: list[float]) -> None:
    """From the fifth value on that did not fall."""
    assert cumulative(values)[-1]
    assert not any(cumulative(values)[:-1])


def test_an_uneven_running_total_stays_marked_for_the_whole_run() -> None:
    """However high it stands: five values of it alone would look steady from some round on."""
    rng = random.Random(7)  # a made-up client, no secret
    amounts = [rng.uniform(0.6, 1.4) for _ in range(200)]
    assert all(cumulative(list(accumulate(amounts)))[4:])


def test_clients_that_report_each_round_are_hardly_ever_marked() -> None:
    """1,000 honest clients over 50 rounds whose amounts scatter by a tenth."""
    rng = random.Random(7)  # made-up clients, no secret
    marks = sum(
        sum(cumulative([rng.gauss(1.0, 0.1) for _ in range(50)])) for _ in range(1000)
    )  # fmt: skip
    assert marks < 50_000 * 0.001


def bare(value: float, **facts: object) -> ReportRecord:
    """A report as the platform's page shows it."""
    return make_report("1", value, **facts)


@pytest.mark.parametrize(
    "facts",
    [
        {"energy_kwh": 1.0}, {"schema_version": 1}, {"phase": "evaluate"}, {"late": True},
        {"accepted": False}, {"started_at": "2026-01-02T03:04:05Z"},
    ],
)  # fmt: skip
def test_only_bare_amounts_are_remembered(facts: dict[str, object]) -> None:
    """What states its energy or its window is a measurement of one call."""
    history = BareHistory()
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        history.add([bare(value, **facts)])
    assert history.of("1") == NO_VALUES
    history.add([bare(1.0)])
    assert history.of("1").values.count == 1


def test_a_running_total_is_marked_in_the_round_and_not_corrected() -> None:
    """The fifth round marks it; another client, the same amount with a window, is not looked at."""
    history = BareHistory()
    flagged = []
    for number in range(1, 7):
        record = round_of(
            report("1", 0.001 * number),
            report("2", 0.001 * number, **window(0, 60), host_id="a" * 12),
            report("3", 0.002),
            history=history.of,
        )
        history.add(record.reports)
        flagged.append([r.node_id for r in record.reports if r.looks_cumulative])
        assert record.clients_emissions_kg == pytest.approx(0.002 * number + 0.002, rel=1e-12)
    assert flagged == [[], [], [], [], ["1"], ["1"]]


def test_a_mark_does_not_touch_outcome_or_order() -> None:
    """Both marks at once, beside each other in `flags`."""
    history = BareHistory()
    for number in range(1, 5):
        history.add([make_report("9", 0.01 * number)])
    others = [report(str(i), 0.001 + i * 1e-5) for i in range(6)]
    record = round_of(*others, report("9", 0.05), history=history.of, nodes=(node("9"),))
    assert record.reports[-1].flags == ("looks_cumulative", "outlier")
    assert record.participants[0].outcome == "reported"
