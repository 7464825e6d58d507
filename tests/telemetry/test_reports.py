"""A client's values: accepted, rejected with a reason, or an optional one dropped."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.reports import ClientReport, RejectedReport, plausible, read_report

FULL: dict[str, Any] = {
    "schema": 1,
    "emissions_kg": 0.000174,
    "energy_kwh": 0.001,
    "cpu_kwh": 0.0006,
    "gpu_kwh": 0.0003,
    "ram_kwh": 0.0001,
    "duration_s": 12.5,
    "started_at": "2026-01-02T03:04:05.000001Z",
    "ended_at": "2026-01-02T03:04:17.500001Z",
    "country": "ESP",
    "carbon_intensity_g_per_kwh": 174.0,
    "sensor": "rapl",
    "scope": "machine",
    "host_id": "0123456789ab",
    "client_name": "hospital-a",
    "tracker": "codecarbon 3.3.2",
}


def accepted(values: dict[str, Any]) -> ClientReport:
    """The report that these values are; fails if they are rejected."""
    report = read_report(values)
    assert isinstance(report, ClientReport), report
    return report


def test_a_full_report_is_taken_as_it_is() -> None:
    """Every field of the wire arrives, times aware and in UTC, and nothing is dropped."""
    report = accepted(FULL)
    assert report.model_dump(
        by_alias=True, exclude={"started_at", "ended_at", "dropped_fields"}
    ) == {name: value for name, value in FULL.items() if name not in ("started_at", "ended_at")}
    assert report.started_at == datetime(2026, 1, 2, 3, 4, 5, 1, UTC)
    assert report.dropped_fields == ()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not_finite"),
        (math.inf, "not_finite"),
        (-math.inf, "not_finite"),
        (10**400, "not_finite"),
        (-1, "negative"),
        (-1e-300, "negative"),
        ("0.5", "not_a_number"),
        (True, "not_a_number"),
        (False, "not_a_number"),
        (None, "not_a_number"),
        (b"\x00" * 100, "not_a_number"),
        ([0.1, 0.2], "not_a_number"),
    ],
)
def test_an_amount_that_is_none_is_rejected_with_its_reason(value: Any, reason: str) -> None:
    """Each kind of bad amount has its own reason, and the value is kept, short, for a person."""
    report = read_report({"emissions_kg": value})
    assert isinstance(report, RejectedReport)
    assert report.reason == reason
    assert 0 < len(report.value) <= 64


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 1, 5e-324, 1.5])
def test_zero_and_small_amounts_are_amounts(value: float) -> None:
    """Zero is a report of zero: neither missing nor rejected."""
    assert accepted({"emissions_kg": value}).emissions_kg == value


def test_a_record_without_an_amount_is_rejected() -> None:
    """A report that names no amount is a bad report, not an absent one."""
    assert read_report({"energy_kwh": 1.0}) == RejectedReport("not_a_number", "nothing")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("energy_kwh", -1.0),
        ("energy_kwh", math.nan),
        ("energy_kwh", True),
        ("duration_s", "12"),
        ("carbon_intensity_g_per_kwh", 2000.1),
        ("carbon_intensity_g_per_kwh", -0.1),
        ("country", "ES"),
        ("country", "esp"),
        ("started_at", "yesterday"),
        ("started_at", "2026-01-02T03:04:05"),
        ("ended_at", 1e300),
        ("started_at", "0001-01-01T00:00:00+14:00"),
        ("ended_at", "9999-12-31T23:59:59-14:00"),
        ("sensor", "crystal ball"),
        ("host_id", "0123456789abcdef"),
        ("host_id", "0123456789AB"),
        ("client_name", "x" * 65),
        ("client_name", "two\nlines"),
        ("tracker", ""),
        ("schema", 0),
        ("scope", 7),
    ],
)
def test_an_invalid_optional_field_is_dropped_and_noted(field: str, value: Any) -> None:
    """It becomes unknown; the amount and every other field stay."""
    report = accepted({**FULL, field: value})
    assert report.dropped_fields == (field,)
    name = "schema_version" if field == "schema" else field
    assert getattr(report, name) is None
    assert report.emissions_kg == FULL["emissions_kg"]
    others = ClientReport.model_fields.keys() - {name, "dropped_fields"}
    assert {n: getattr(report, n) for n in others} == {
        n: getattr(accepted(FULL), n) for n in others
    }


def test_unknown_fields_of_a_later_schema_are_ignored() -> None:
    """A newer client's additions do no harm."""
    assert accepted({**FULL, "schema": 2, "water_l": 3.0}).schema_version == 2


def test_epoch_seconds_are_a_time_too() -> None:
    """Times may be ISO 8601 text or seconds since 1970."""
    report = accepted({"emissions_kg": 1.0, "started_at": 1767323045.5})
    assert report.started_at == datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC)


@given(st.dictionaries(st.sampled_from(sorted(FULL)), st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=80),
    st.binary(max_size=8), st.lists(st.floats(), max_size=2),
)))  # fmt: skip
def test_whatever_a_client_sends_is_judged_and_never_raises(values: dict[str, Any]) -> None:
    """Any value of any type in any field gives a report or a rejection."""
    report = read_report(values)
    if isinstance(report, ClientReport):
        assert math.isfinite(report.emissions_kg)
        assert report.emissions_kg >= 0
        assert isinstance(plausible(report, 60.0, 100_000.0), ClientReport | RejectedReport)


# --- plausibility ------------------------------------------------------------------------------


def judged(window_s: float = 60.0, **values: Any) -> ClientReport | RejectedReport:
    """These values under a cap of 100 kW."""
    return plausible(accepted(values), window_s, 100_000.0)


def reason(report: ClientReport | RejectedReport) -> str | None:
    """Why it was rejected; None if it was not."""
    return report.reason if isinstance(report, RejectedReport) else None


def test_the_cap_is_power_times_window_times_intensity() -> None:
    """100 kW for a minute are 1.667 kWh: at 1,400 g/kWh a bare report may say up to 2.333 kg."""
    assert reason(judged(emissions_kg=2.33)) is None
    assert reason(judged(emissions_kg=2.34)) == "implausible"
    assert reason(judged(emissions_kg=1e308)) == "implausible"


def test_a_stated_intensity_lowers_the_cap() -> None:
    """At 100 g/kWh the same minute allows 0.1667 kg."""
    assert reason(judged(emissions_kg=0.166, carbon_intensity_g_per_kwh=100.0)) is None
    assert reason(judged(emissions_kg=0.167, carbon_intensity_g_per_kwh=100.0)) == "implausible"


def test_a_very_short_window_counts_as_a_second() -> None:
    """A client that answers in a millisecond is not held to a millisecond's energy."""
    assert reason(judged(window_s=0.001, emissions_kg=0.0388)) is None
    assert reason(judged(window_s=0.001, emissions_kg=0.0389)) == "implausible"


def test_energy_beyond_the_cap_is_an_invalid_optional_field() -> None:
    """It is dropped; the report counts by its emissions."""
    report = judged(emissions_kg=0.1, energy_kwh=2.0)
    assert isinstance(report, ClientReport)
    assert report.energy_kwh is None
    assert report.dropped_fields == ("energy_kwh",)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.49, "inconsistent"), (0.51, None), (1.0, None), (2.99, None), (3.01, "inconsistent")],
)
def test_emissions_must_fit_energy_times_intensity(ratio: float, expected: str | None) -> None:
    """Half to three times the product is believed: a PUE, another table; more is a contradiction."""
    values = {"energy_kwh": 0.01, "carbon_intensity_g_per_kwh": 200.0}
    assert reason(judged(emissions_kg=0.002 * ratio, **values)) == expected


@pytest.mark.parametrize(
    ("emissions", "energy", "expected"),
    [(0.0, 0.0, None), (0.0, 0.01, "inconsistent"), (0.001, 0.0, "inconsistent")],
)
def test_one_sided_zero_is_inconsistent(
    emissions: float, energy: float, expected: str | None
) -> None:
    """Energy without emissions, or the reverse, contradicts itself; nothing of both does not."""
    report = judged(emissions_kg=emissions, energy_kwh=energy, carbon_intensity_g_per_kwh=200.0)
    assert reason(report) == expected
