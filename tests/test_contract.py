"""Numbers and names that others rely on, written out: a test that imports one cannot see it change."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from fedserver.replies import MAX_OPTIONAL_METRICS
from fedserver_hooks.recorder import BARRIER_S, WAIT_S
from telemetry.accounting import WINDOW_SLACK_S, Rules
from telemetry.domain import CLIENT_BUCKETS_G, GRAMS_PER_KG, JOULES_PER_KWH
from telemetry.exporters.samples import MAX_OWN_METRIC_NAMES
from telemetry.reports import WIRE_FIELDS, WIRE_SCHEMA
from telemetry.store.base import LEASE_EXPIRES_S, LEASE_RENEW_S


@pytest.mark.parametrize(
    ("name", "value", "stated"),
    [
        ("joules in a kWh", JOULES_PER_KWH, 3_600_000),
        ("grams in a kg", GRAMS_PER_KG, 1_000),
        ("slack of a client's window, s", WINDOW_SLACK_S, 5),
        ("most that a client draws, W", Rules().max_client_power_w, 100_000),
        ("a lease is renewed every, s", LEASE_RENEW_S, 10),
        ("a lease has expired after, s", LEASE_EXPIRES_S, 60),
        ("a call of the training's takes at most, s", BARRIER_S, 0.25),
        ("names of metrics kept in a run", MAX_OPTIONAL_METRICS, 32),
        ("names of metrics shown of a user's own app", MAX_OWN_METRIC_NAMES, 16),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_is_the_stated_one(name: str, value: Any, stated: Any) -> None:
    """In units that its name or this list says."""
    assert value == stated, name


def test_a_round_waits_for_the_one_before_for_less_than_a_call_may_take() -> None:
    """Waking up takes a while; a look of the garbage collector at a whole program takes 0.07 s."""
    assert WAIT_S <= BARRIER_S - 0.08


def test_the_classes_of_the_clients_distribution_are_half_decades() -> None:
    """From a ten-thousandth of a gram to ten kilograms."""
    assert len(CLIENT_BUCKETS_G) == 17
    assert CLIENT_BUCKETS_G[0] == 1e-4
    assert CLIENT_BUCKETS_G[-1] == 1e4
    for lower, upper in pairwise(CLIENT_BUCKETS_G):
        assert upper / lower == pytest.approx(math.sqrt(10))


def test_the_fields_of_a_report_are_those_on_the_wire() -> None:
    """Clients of every version send these."""
    assert WIRE_SCHEMA == 1
    assert WIRE_FIELDS == (
        "schema", "emissions_kg", "energy_kwh", "cpu_kwh", "gpu_kwh", "ram_kwh", "duration_s",
        "started_at", "ended_at", "country", "carbon_intensity_g_per_kwh", "sensor", "scope",
        "host_id", "client_name", "tracker",
    )  # fmt: skip
