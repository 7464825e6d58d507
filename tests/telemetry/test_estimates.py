"""Estimates beside the measured total: by hand, and where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from telemetry.domain import RoundRecord
from telemetry.domain.estimates import communication_kg
from telemetry.testing import FACTORS as SOME
from tests.telemetry.facts import FACTORS, node, report, round_of

IMPUTING = replace(FACTORS, impute_missing=True)


def test_communication_by_hand() -> None:
    """2.5 GB x 0.04 kWh/GB x 200 g/kWh = 20 g; decimal gigabytes, without PUE."""
    factors = replace(FACTORS, network_kwh_per_gb=0.04)
    assert communication_kg(2_500_000_000, factors) == pytest.approx(0.020, rel=1e-12)
    assert communication_kg(0, factors) == 0.0
    assert communication_kg(None, factors) is None
    assert communication_kg(1, SOME) is None


def test_communication_of_a_round_is_both_directions() -> None:
    """Of whoever was sent a message, silent or not; without a factor there is no figure."""
    nodes = (
        node("1", bytes_to=10**9, bytes_from=5 * 10**8),
        node("2", bytes_to=10**9, failed="gone"),
    )
    factors = replace(FACTORS, network_kwh_per_gb=0.04)
    record = round_of(report("1", 0.001, host_id="a" * 12), nodes=nodes, factors=factors)
    assert record.communication_emissions_kg_estimated == pytest.approx(0.020, rel=1e-12)
    assert record.total_emissions_kg == pytest.approx(0.001 + 0.003, rel=1e-12)
    assert record.estimated_total_emissions_kg == pytest.approx(0.024, rel=1e-12)
    without = round_of(report("1", 0.001, host_id="a" * 12), nodes=nodes)
    assert without.communication_emissions_kg_estimated is None
    assert without.estimated_total_emissions_kg is None


def test_where_emissions_are_not_tracked_nothing_is_estimated() -> None:
    """Not even what bytes and a factor would come to: all figures of emissions are unknown there."""
    nodes = (node("1", bytes_to=10**9, bytes_from=10**9),)
    factors = replace(IMPUTING, network_kwh_per_gb=0.04)
    record = round_of(nodes=nodes, factors=factors, tracked=False)
    assert record.bytes_to_clients == 10**9
    assert record.communication_emissions_kg_estimated is None
    assert record.imputation is None
    assert record.estimated_total_emissions_kg is None


def fleet(reporting: int, *silent_examples: int | None, on: bool = True) -> RoundRecord:
    """Clients 0… that report 0.1, 0.2, … g per example for ten each, and silent ones."""
    reports = [report(f"r{i}", (i + 1) * 1e-3, host_id=f"{i:012x}") for i in range(reporting)]
    nodes = [node(f"r{i}", examples=10) for i in range(reporting)]
    nodes += [node(f"s{i}", examples=examples) for i, examples in enumerate(silent_examples)]
    return round_of(*reports, nodes=tuple(nodes), factors=IMPUTING if on else FACTORS)


def test_imputation_by_hand() -> None:
    """0.1 to 1.1 g an example, eleven values: 0.2, 0.6 and 1.0 g; x 30 examples of two silent."""
    imputed = fleet(11, 10, 20).imputation
    assert imputed is not None
    assert imputed.clients == 2
    assert imputed.low_kg == pytest.approx(0.006, rel=1e-12)
    assert imputed.central_kg == pytest.approx(0.018, rel=1e-12)
    assert imputed.high_kg == pytest.approx(0.030, rel=1e-12)


def test_percentiles_between_two_values_are_interpolated() -> None:
    """Of 0.1, 0.2, 0.3 g the 10th percentile is 0.12, the 90th 0.28."""
    imputed = fleet(3, 10).imputation
    assert imputed is not None
    assert [imputed.low_kg, imputed.central_kg, imputed.high_kg] == [
        pytest.approx(value, rel=1e-12) for value in (0.0012, 0.002, 0.0028)
    ]


def test_fewer_than_three_reports_are_no_ground() -> None:
    """Empty, not zero; nor is a report without examples one of the three."""
    assert fleet(2, 10).imputation is None
    reports = [report(str(i), 0.001) for i in range(3)]
    nodes = (node("0", examples=10), node("1", examples=10), node("2"), node("3", examples=10))
    assert round_of(*reports, nodes=nodes, factors=IMPUTING).imputation is None
    none = (node("0", examples=10), node("1", examples=10), node("2", examples=0), nodes[3])
    assert round_of(*reports, nodes=none, factors=IMPUTING).imputation is None


def test_silent_clients_without_examples_are_left_out_and_counted_so() -> None:
    """None where none is known; of two with one known, it stands for that one."""
    assert fleet(3, None).imputation is None
    imputed = fleet(3, None, 10).imputation
    assert imputed is not None
    assert imputed.clients == 1
    assert imputed.central_kg == pytest.approx(0.002, rel=1e-12)


def test_nobody_silent_is_zero() -> None:
    """Zero clients, zero grams: a figure, not a gap."""
    record = fleet(3)
    assert record.imputation is not None
    assert (record.imputation.clients, record.imputation.high_kg) == (0, 0.0)
    assert record.estimated_total_emissions_kg == record.total_emissions_kg


def test_off_is_none() -> None:
    """Nothing is imputed that nobody asked for."""
    assert fleet(5, 10, on=False).imputation is None


def test_who_is_silent() -> None:
    """A rejected client is, one that only evaluates is not, a failed one that reported is not."""
    reports = [report(str(i), 0.001) for i in range(3)]
    nodes = tuple(node(str(i), examples=10) for i in range(3))
    more = (
        node("rejected", examples=10), node("evaluates", train=False, examples=10),
        node("failed", examples=10, failed="NaN"),
    )  # fmt: skip
    imputed = round_of(
        *reports,
        report("rejected", -1),
        report("failed", 0.001),
        report("evaluates", 0.5, phase="evaluate"),
        nodes=nodes + more,
        factors=IMPUTING,
    ).imputation
    assert imputed is not None
    assert imputed.clients == 1
    assert imputed.central_kg == pytest.approx(0.001, rel=1e-12)


def test_a_late_report_neither_speaks_for_this_round_nor_breaks_its_silence() -> None:
    """Its client worked for another round."""
    reports = [report(str(i), 0.001) for i in range(3)]
    nodes = tuple(node(str(i), examples=10) for i in range(4))
    late = report("3", 0.5, late=True, reported_round=0)
    imputed = round_of(*reports, late, nodes=nodes, factors=IMPUTING).imputation
    assert imputed is not None
    assert imputed.clients == 1
    assert imputed.central_kg == pytest.approx(0.001, rel=1e-12)


def test_the_estimated_total_needs_a_measured_one() -> None:
    """Nothing measured is unknown, whatever could be estimated beside it."""
    factors = replace(FACTORS, network_kwh_per_gb=0.04)
    nodes = (node("1", bytes_to=10**9),)
    record = round_of(nodes=nodes, server_kwh=None, factors=factors)
    assert record.communication_emissions_kg_estimated is not None
    assert record.estimated_total_emissions_kg is None


def test_a_copy_with_other_factors_has_its_own_estimates() -> None:
    """Nothing that was worked out for the original stays in the copy."""
    record = fleet(3, 10, on=False)
    assert record.imputation is None
    again = record.model_copy(update={"factors": IMPUTING})
    assert again.imputation is not None
    assert again.model_copy(update={"reports": ()}).accepted == ()
