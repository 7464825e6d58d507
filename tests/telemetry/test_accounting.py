"""The accounting rules, on rounds that can be checked by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import fsum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.accounting import ReceivedReport, Rules, overlap_factor
from telemetry.domain import RoundRecord
from tests.telemetry.facts import FACTORS, SERVER_HOST, T0, node, report, round_of, window

# --- sums ----------------------------------------------------------------------------------------


def test_clients_on_two_hosts_add_up_whatever_their_examples() -> None:
    """1 g and 3 g are 4 g: a sum, not the example-weighted mean of 2.5 g that Flower would give."""
    record = round_of(
        report("1", 0.001, host_id="a" * 12),
        report("2", 0.003, host_id="b" * 12),
        nodes=(node("1", examples=10), node("2", examples=30)),
    )
    assert record.clients_emissions_kg == pytest.approx(0.004, rel=1e-12)
    assert record.server_emissions_kg == pytest.approx(0.01 * 1.5 * 0.2, rel=1e-12)
    assert record.total_emissions_kg == pytest.approx(0.004 + 0.003, rel=1e-12)


def test_nothing_known_is_none_and_nobody_there_is_zero() -> None:
    """No accepted report of participants is unknown; no participants at all is zero."""
    silent = round_of(nodes=(node("1"),))
    assert silent.clients_emissions_kg is None
    assert silent.clients_energy_kwh is None
    assert silent.total_emissions_kg == silent.server_emissions_kg
    nobody = round_of()
    assert nobody.clients_emissions_kg == 0.0
    assert nobody.coverage is None
    unmetered = round_of(nodes=(node("1"),), server_kwh=None)
    assert unmetered.server_emissions_kg is None
    assert unmetered.total_emissions_kg is None


# --- outcomes ------------------------------------------------------------------------------------


def test_every_participant_has_exactly_one_outcome() -> None:
    """failed > rejected > reported > missing, and the four add up to the participants."""
    record = round_of(
        report("reported", 0.001),
        report("rejected", "0.5"),
        report("failed", 0.002),
        report("both", -1),
        nodes=(
            node("reported"), node("rejected"), node("missing"),
            node("failed", failed="connection lost"), node("both", failed="NaN in layer 0"),
        ),
    )  # fmt: skip
    outcomes = {p.node_id: p.outcome for p in record.participants}
    assert outcomes == {
        "reported": "reported", "rejected": "rejected", "missing": "missing",
        "failed": "failed", "both": "failed",
    }  # fmt: skip
    assert sum(record.outcomes.values()) == len(record.trained) == 5
    assert record.coverage == 1 / 5
    assert not record.complete


def test_of_two_rejected_reports_the_first_stands() -> None:
    """With its own reason; the second is a repeat."""
    record = round_of(report("1", -1), report("1", "x"))
    assert [r.rejection for r in record.reports] == ["negative"]
    assert record.reports_repeated == 1


def test_a_failed_clients_report_counts_in_emissions_but_not_in_coverage() -> None:
    """Its energy was used, whatever became of its model."""
    record = round_of(report("1", 0.002), nodes=(node("1", failed="NaN"),))
    assert record.clients_emissions_kg == 0.002
    assert record.coverage == 0


def test_an_evaluate_report_adds_emissions_but_not_coverage() -> None:
    """A client that reports its evaluation only is missing, and counted as such."""
    record = round_of(report("1", 0.002, phase="evaluate"))
    assert record.outcome_count("missing") == 1
    assert record.evaluate_reported == 1
    assert record.clients_emissions_kg == 0.002


def test_a_client_that_only_evaluates_is_no_participant() -> None:
    """Participants are those who were sent a train message."""
    record = round_of(
        report("2", 0.001, phase="evaluate"), nodes=(node("1"), node("2", train=False))
    )
    assert len(record.trained) == 1
    assert {p.node_id: p.outcome for p in record.participants} == {"1": "missing", "2": None}


def test_a_late_report_counts_where_it_arrives_and_changes_no_outcome() -> None:
    """Its energy and emissions count in the round open on arrival, its outcome nowhere."""
    record = round_of(
        report("1", 0.002, late=True, reported_round=0), report("1", 0.001), nodes=(node("1"),)
    )
    assert record.clients_emissions_kg == pytest.approx(0.003, rel=1e-12)
    assert record.outcome_count("reported") == 1
    assert (record.report_count("accepted"), record.report_count("late")) == (1, 1)
    only_late = round_of(report("1", 0.002, late=True, reported_round=0), nodes=(node("1"),))
    assert only_late.outcome_count("missing") == 1


def test_the_first_accepted_report_counts_and_later_ones_are_repeats() -> None:
    """One report a client, phase and round; a rejected one gives way to an accepted one."""
    record = round_of(report("1", 0.001), report("1", 0.009))
    assert record.clients_emissions_kg == 0.001
    assert record.report_count("repeated") == 1
    mended = round_of(report("1", "x"), report("1", 0.002))
    assert mended.clients_emissions_kg == 0.002
    assert mended.outcome_count("reported") == 1


def test_a_rejected_report_keeps_reason_and_value_and_adds_nothing() -> None:
    """Rejected is not zero: the sum is unknown if nobody else reported."""
    record = round_of(report("1", 1e308))
    assert record.clients_emissions_kg is None
    (row,) = record.reports
    assert (row.rejection, row.rejected_value, row.counted_emissions_kg) == (
        "implausible", "1e+308", None,
    )  # fmt: skip


# --- one host, once --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "factor"),
    [
        ([(0, 10)], 1.0),
        ([(0, 10), (10, 20)], 1.0),
        ([(0, 10)] * 4, 0.25),
        ([(0, 10), (5, 15)], 0.75),
        ([(0, 10), (2, 4)], 10 / 12),
        ([(5, 5)], 1.0),
        ([(5, 5), (5, 5)], 0.5),
        ([(0, 4), (10, 14), (2, 12)], 14 / 18),
    ],
)
def test_overlap_factor(windows: list[tuple[float, float]], factor: float) -> None:
    """Union ÷ sum of the windows."""
    assert overlap_factor(windows) == pytest.approx(factor, rel=1e-12)


def test_four_machine_wide_meters_on_one_host_count_once() -> None:
    """Four clients that each report their whole machine for the same minute count as one machine."""
    reports = [
        report(str(i), 0.002, energy_kwh=0.01, carbon_intensity_g_per_kwh=200.0,
               host_id="a" * 12, **window(0, 60))
        for i in range(4)
    ]  # fmt: skip
    record = round_of(*reports)
    assert record.clients_energy_kwh == pytest.approx(0.01, rel=1e-12)
    assert record.clients_emissions_kg == pytest.approx(0.002, rel=1e-12)
    assert record.clients_reported_emissions_kg == pytest.approx(0.008, rel=1e-12)


def test_clients_on_the_servers_host_are_split_off_its_figure() -> None:
    """Their energy is part of what the server's meter showed: the total is the machine's."""
    record = round_of(
        report("1", 0.5, energy_kwh=0.004, host_id=SERVER_HOST, **window(0, 30)),
        report("2", 0.5, energy_kwh=0.002, host_id=SERVER_HOST, **window(30, 60)),
        server_kwh=0.01,
    )
    assert record.clients_energy_kwh == pytest.approx(0.006, rel=1e-12)
    assert record.server_energy_kwh == pytest.approx(0.004, rel=1e-12)
    assert record.total_emissions_kg == pytest.approx(0.01 * 1.5 * 0.2, rel=1e-12)
    assert record.clients_emissions_kg == pytest.approx(0.006 * 1.5 * 0.2, rel=1e-12)


def test_clients_on_the_servers_host_never_exceed_its_meter() -> None:
    """However much they claim, server and clients sum to the machine's figure, and none is below 0."""
    record = round_of(
        report("1", 0.9, energy_kwh=5.0, host_id=SERVER_HOST),
        report("2", 0.3, energy_kwh=2.0, host_id=SERVER_HOST),
        server_kwh=0.01,
        rules=Rules(max_client_power_w=1e9),
    )
    assert record.server_energy_kwh == 0.0
    assert record.clients_energy_kwh == pytest.approx(0.01, rel=1e-12)


def test_a_bare_loopback_report_is_on_the_servers_host() -> None:
    """It is converted with the server's intensity, split off, and not counted as without host."""
    record = round_of(report("1", 0.0008, loopback=True), server_kwh=0.01)
    assert record.clients_energy_kwh == pytest.approx(0.004, rel=1e-12)
    assert record.server_energy_kwh == pytest.approx(0.006, rel=1e-12)
    assert record.reports_without_host == 0


def test_a_report_without_energy_is_converted_with_its_own_intensity() -> None:
    """0.0008 kg at its 100 g/kWh are 0.008 kWh, whatever the server's grid makes of a kWh."""
    record = round_of(
        report("1", 0.0008, carbon_intensity_g_per_kwh=100.0, host_id=SERVER_HOST), server_kwh=0.01
    )
    assert record.clients_energy_kwh == pytest.approx(0.008, rel=1e-12)
    assert record.clients_emissions_kg == pytest.approx(0.008 * 1.5 * 0.2, rel=1e-12)


def test_a_split_off_report_has_a_host_even_where_it_counts_as_it_said() -> None:
    """Without PUE a bare number from the server's machine comes back as the same grams."""
    record = round_of(
        report("1", 0.0008, loopback=True), server_kwh=0.01, factors=replace(FACTORS, pue=1.0)
    )
    assert record.clients_emissions_kg == record.clients_reported_emissions_kg == 0.0008
    assert record.reports_without_host == 0


def test_a_bare_report_from_elsewhere_counts_in_full_and_is_said_to() -> None:
    """Nobody knows its machine: its emissions are added, and the round says how many are so."""
    record = round_of(report("1", 0.0008), report("2", 0.0008))
    assert record.clients_emissions_kg == pytest.approx(0.0016, rel=1e-12)
    assert record.reports_without_host == 2
    assert record.clients_energy_kwh is None
    assert record.clients_energy_reports == 0


def test_loopback_clients_may_be_declared_separate() -> None:
    """Behind a tunnel a loopback address says nothing about the machine."""
    rules = Rules(loopback_on_server_host=False)
    record = round_of(report("1", 0.0008, loopback=True), server_kwh=0.01, rules=rules)
    assert record.server_energy_kwh == 0.01
    assert record.reports_without_host == 1


def test_nothing_is_split_off_an_unknown_figure() -> None:
    """Without a server figure the clients on its host count as on any other host."""
    record = round_of(
        report("1", 0.001, host_id=SERVER_HOST, **window(0, 60)),
        report("2", 0.001, host_id=SERVER_HOST, **window(0, 60)),
        server_kwh=None,
    )
    assert record.server_energy_kwh is None
    assert record.clients_emissions_kg == pytest.approx(0.001, rel=1e-12)


def test_nothing_is_split_off_a_figure_that_is_not_the_machines() -> None:
    """Where the meter shows only the server's own part, its neighbours are not in it."""
    record = round_of(
        report("1", 0.001, energy_kwh=0.005, host_id=SERVER_HOST),
        factors=replace(FACTORS, server_scope="process"),
    )
    assert record.server_energy_kwh == 0.01
    assert record.clients_emissions_kg == 0.001


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 60, 60), (-1000, 1000, 70), (30, 20, 60), (200, 300, 60), (-4, 30, 34), (50, 90, 15)
    ],
)  # fmt: skip
def test_windows_are_clipped_to_what_the_server_saw(
    start: float, end: float, expected: float
) -> None:
    """±5 s around send and reply; reversed or empty ones give way to the server's own window.

    The other client's window is the server's minute: the union then shows how long this one was.
    """
    from telemetry.accounting import window as clipped

    begin, finish = clipped(report("1", 0.001, **window(start, end)))
    assert finish - begin == pytest.approx(expected)


def test_a_claimed_host_with_a_long_window_gains_nothing() -> None:
    """A client that claims another's host and a year-long window cannot shrink the other's share."""
    honest = report("1", 0.001, host_id="a" * 12, **window(0, 60))
    liar = report("2", 0.001, host_id="a" * 12, **window(-3e7, 3e7))
    record = round_of(honest, liar)
    counted = {r.node_id: r.counted_emissions_kg for r in record.reports}
    assert counted["1"] == pytest.approx(0.001 * 70 / 130, rel=1e-12)


def test_hours_claimed_on_the_servers_host_stay_within_its_meter() -> None:
    """The windows are clipped, the sum is the meter's, the honest neighbour keeps its part of it."""
    honest = report("1", 0.5, energy_kwh=0.002, host_id=SERVER_HOST, **window(0, 60))
    liar = report("2", 0.5, energy_kwh=0.002, host_id=SERVER_HOST, **window(-36_000, 36_000))
    record = round_of(honest, liar, server_kwh=0.01)
    counted = {r.node_id: r.counted_energy_kwh for r in record.reports}
    assert counted["1"] == pytest.approx(0.002 * 70 / 130, rel=1e-12)
    assert record.server_energy_kwh == pytest.approx(0.01 - 0.004 * 70 / 130, rel=1e-12)


def test_a_second_report_that_claims_anothers_host_touches_nobody() -> None:
    """It is a repeat, so it is no neighbour either, however long it says that it worked."""
    honest = report("1", 0.001, host_id="a" * 12, **window(0, 60))
    first = report("2", 0.003, host_id="b" * 12, **window(0, 60))
    again = report("2", 0.003, host_id="a" * 12, **window(-36_000, 36_000))
    record = round_of(honest, first, again)
    counted = {r.node_id: r.counted_emissions_kg for r in record.reports}
    assert counted == {"1": 0.001, "2": 0.003}
    assert record.report_count("repeated") == 1


def test_a_report_for_another_round_shares_no_time_with_this_one() -> None:
    """It counts where it arrives, in full: its window was another, whatever hours it claims."""
    now = report("1", 0.001, host_id="a" * 12, **window(0, 60))
    late = report(
        "2", 0.002, host_id="a" * 12, late=True, reported_round=0,
        sent_at=T0 - 120, replied_at=T0 - 10, **window(-36_000, 36_000),
    )  # fmt: skip
    record = round_of(now, late, nodes=(node("1"), node("2")))
    counted = {r.node_id: r.counted_emissions_kg for r in record.reports}
    assert counted == {"1": 0.001, "2": 0.002}
    assert record.outcomes == {"reported": 1, "missing": 1}


# --- round 0, untracked, laws ---------------------------------------------------------------------


def test_untracked_rounds_know_outcomes_only_of_failures() -> None:
    """Figures, coverage and outcomes are unknown, not zero; who failed is known."""
    record = round_of(
        report("1", 0.001), nodes=(node("1"), node("2", failed="gone")), tracked=False
    )
    assert record.reports == ()
    assert [p.outcome for p in record.participants] == [None, "failed"]
    for name in (
        "server_emissions_kg", "clients_emissions_kg", "total_emissions_kg", "server_energy_kwh",
        "clients_energy_kwh", "coverage", "complete", "evaluate_reported",
    ):  # fmt: skip
        assert getattr(record, name) is None, name


amounts = st.one_of(
    st.floats(0, 0.002), st.just(-1), st.just("x"), st.just(float("nan")), st.just(1e308)
)
fleets = st.lists(
    st.tuples(
        amounts,
        st.one_of(st.none(), st.floats(0, 0.01)),
        st.sampled_from([None, "a" * 12, "b" * 12, SERVER_HOST]),
        st.booleans(),
        st.tuples(st.floats(-10, 70), st.floats(-10, 70)),
        st.sampled_from(["train", "evaluate"]),
    ),
    max_size=12,
)


def fleet_round(
    fleet: list[Any], order: list[int] | None = None, more: Sequence[ReceivedReport] = ()
) -> RoundRecord:
    """A round of a random fleet, its reports arriving in ``order``, and ``more`` after them."""
    reports = []
    for i, (amount, energy, host, loopback, (start, end), phase) in enumerate(fleet):
        values: dict[str, Any] = {"loopback": loopback, "phase": phase, **window(start, end)}
        if energy is not None:
            values["energy_kwh"] = energy
        if host is not None:
            values["host_id"] = host
        reports.append(report(f"n{i}", amount, **values))
    nodes = tuple(node(f"n{i}") for i in range(len(fleet)))
    picked = reports if order is None else [reports[i] for i in order]
    return round_of(*picked, *more, nodes=nodes, server_kwh=0.01)


@given(fleets)
def test_parts_sum_to_totals_and_outcomes_to_participants(fleet: list[Any]) -> None:
    """Server + clients = total, and the machine's figure is never exceeded on the server's host."""
    record = fleet_round(fleet)
    parts = [record.server_emissions_kg, record.clients_emissions_kg]
    assert record.total_emissions_kg == pytest.approx(fsum(p for p in parts if p is not None))
    on_host = fsum(r.counted_energy_kwh or 0 for r in record.accepted if r.on_server_host)
    assert record.server_energy_kwh is not None
    assert record.server_energy_kwh + on_host == pytest.approx(0.01, rel=1e-9)
    assert sum(record.outcomes.values()) == len(record.participants)
    claimed = fsum(r.emissions_kg or 0 for r in record.accepted if not r.on_server_host)
    counted = fsum(r.counted_emissions_kg or 0 for r in record.accepted if not r.on_server_host)
    assert counted <= claimed * (1 + 1e-12)


@given(fleets, st.randoms(use_true_random=False))
def test_the_order_of_replies_does_not_matter(fleet: list[Any], rng: random.Random) -> None:
    """Any order of arrival gives the same record, to the last bit."""
    order = list(range(len(fleet)))
    rng.shuffle(order)
    assert fleet_round(fleet, order) == fleet_round(fleet)


@given(fleets)
def test_a_rejected_report_changes_no_figure(fleet: list[Any]) -> None:
    """One more client with nonsense alters coverage, and nothing in kWh or kg."""
    before = fleet_round(fleet).summary()
    after = fleet_round([*fleet, (-1, None, "a" * 12, False, (0, 60), "train")]).summary()
    for name in before.__dataclass_fields__:
        if name.endswith(("_kwh", "_kg")) and fleet:
            assert getattr(after, name) == getattr(before, name), name


@given(fleets, st.sets(st.integers(0, 11)))
def test_a_client_that_reports_twice_changes_no_figure(fleet: list[Any], again: set[int]) -> None:
    """Whatever the second says: where a first was accepted, that one stands, for its neighbours too."""
    before = fleet_round(fleet)
    accepted = {r.node_id for r in before.accepted}
    second = [
        report(f"n{i}", 0.0005, energy_kwh=0.002, host_id="a" * 12, phase=fleet[i][-1],
               **window(-36_000, 36_000))
        for i in sorted(again)
        if f"n{i}" in accepted
    ]  # fmt: skip
    after = fleet_round(fleet, more=second)
    assert after.report_count("repeated") == len(second)
    assert after.reports == before.reports
    assert after.summary().total_emissions_kg == before.summary().total_emissions_kg


# --- reports that are no whole machine's ---------------------------------------------------------


def test_a_report_of_nothing_takes_nothing_from_its_neighbours() -> None:
    """Nine clients that claim an honest one's host with zeros leave its gram as it is."""
    honest = report("1", 0.001, host_id="a" * 12, **window(0, 60))
    zeros = [report(str(n), 0.0, host_id="a" * 12, **window(0, 60)) for n in range(2, 11)]
    record = round_of(honest, *zeros, nodes=tuple(node(str(n)) for n in range(1, 11)))
    assert record.clients_emissions_kg == pytest.approx(0.001, rel=1e-12)


def test_parts_of_a_machine_add_up_and_whole_machines_do_not() -> None:
    """Four shares of a gram are four grams; with one whole machine among them nobody knows."""
    nodes = tuple(node(str(n)) for n in range(1, 5))
    parts = [
        report(str(n), 0.001, host_id="a" * 12, scope="process", **window(0, 60))
        for n in range(1, 5)
    ]
    assert round_of(*parts, nodes=nodes).clients_emissions_kg == pytest.approx(0.004, rel=1e-12)
    mixed = [report("1", 0.001, host_id="a" * 12, scope="machine", **window(0, 60)), *parts[1:]]
    assert round_of(*mixed, nodes=nodes).clients_emissions_kg == pytest.approx(0.001, rel=1e-12)
