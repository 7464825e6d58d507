"""The host rule where the meter saw a part of the round, or a part of the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from telemetry.accounting import Rules
from telemetry.domain import Lap, RoundRecord
from tests.telemetry.facts import FACTORS, SERVER_HOST, T0, node, report, round_of, window

ALLOCATION = replace(FACTORS, server_scope="allocation")
PROCESS = replace(FACTORS, server_scope="process")


def lap(energy_kwh: float | None, metered_s: float, **facts: Any) -> Lap:
    """A lap of a round of 60 s."""
    return Lap(phase="wait", wall_s=60.0, metered_s=metered_s, energy_kwh=energy_kwh, **facts)


def on_host(energy_kwh: float, *laps: Lap, **facts: Any) -> RoundRecord:
    """A round with one client on the server's host that worked for all of it."""
    claimed = report("1", 0.5, energy_kwh=energy_kwh, host_id=SERVER_HOST, **window(0, 60))
    return round_of(claimed, laps=laps, **facts)


# --- a machine that was metered for a part of the round -------------------------------------------


@pytest.mark.parametrize(
    ("claimed", "clients", "server"),
    [
        (0.004, 0.004, 0.008),  # half of the client's energy is in what the meter saw
        (0.020, 0.020, 0.000),  # all of it would be
        (5.000, 0.020, 0.000),  # at most the machine's 0.01 kWh of half a minute, twice
        (0.000, 0.000, 0.010),
    ],
)
def test_half_a_round_metered(claimed: float, clients: float, server: float) -> None:
    """H = 0.01 kWh in 30 of 60 s: the clients get their energy, the server what is left of its half."""
    record = on_host(claimed, lap(0.01, 30.0), rules=Rules(max_client_power_w=1e9))
    assert record.clients_energy_kwh == pytest.approx(clients, rel=1e-12, abs=1e-15)
    assert record.server_energy_kwh == pytest.approx(server, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("metered_s", [0.6, 15.0, 30.0, 59.0])
def test_a_partly_metered_machine_never_shows_more_than_its_rate(metered_s: float) -> None:
    """Server and clients together are at least H and at most H / m, and none is below 0."""
    part = metered_s / 60.0
    for claimed in (0.0, 0.003, 0.01, 0.02, 0.5, 40.0):
        record = on_host(claimed, lap(0.01, metered_s), rules=Rules(max_client_power_w=1e9))
        assert record.server_energy_kwh is not None
        assert record.clients_energy_kwh is not None
        assert record.server_energy_kwh >= 0
        together = record.server_energy_kwh + record.clients_energy_kwh
        assert 0.01 * (1 - 1e-12) <= together <= 0.01 / part * (1 + 1e-12)


@pytest.mark.parametrize("metered_s", [59.4, 60.0, 61.0])
def test_a_whole_round_is_the_meters_figure_exactly(metered_s: float) -> None:
    """From 99 % on nothing is scaled: server and clients are what the meter showed."""
    for claimed in (0.0, 0.004, 0.01, 0.5):
        record = on_host(claimed, lap(0.01, metered_s))
        together = (record.server_energy_kwh or 0.0) + (record.clients_energy_kwh or 0.0)
        assert together == pytest.approx(0.01, rel=1e-12)


def test_laps_with_holes_are_one_metered_part() -> None:
    """A lap that was not metered adds neither energy nor seconds."""
    holes = (lap(0.006, 20.0), lap(None, 0.0, reason="meter away"), lap(0.004, 10.0))
    record = on_host(0.004, *holes)
    assert record.metered_share == 0.5
    assert record.host_energy_kwh == pytest.approx(0.01, rel=1e-12)
    assert record.server_energy_kwh == pytest.approx(0.008, rel=1e-12)


# --- the server's share of a machine --------------------------------------------------------------


@pytest.mark.parametrize(("claimed", "clients"), [(0.005, 0.005), (0.02, 0.008), (0.0, 0.0)])
def test_in_allocation_scope_clients_get_at_most_what_the_share_leaves(
    claimed: float, clients: float
) -> None:
    """The machine drew 0.01 kWh, the server's part is 0.002: clients are added, up to 0.008."""
    record = on_host(claimed, lap(0.002, 60.0, machine_kwh=0.01), factors=ALLOCATION)
    assert record.server_energy_kwh == 0.002
    assert record.clients_energy_kwh == pytest.approx(clients, rel=1e-12)
    assert record.factors.server_share == pytest.approx(0.2)
    assert not any(r.on_server_host for r in record.reports)


def test_in_allocation_scope_emissions_are_scaled_with_the_energy() -> None:
    """Two clients claim twice what is left: half of what each said counts, at its own intensity."""
    reports = [
        report(name, 0.004, energy_kwh=0.01, carbon_intensity_g_per_kwh=400.0,
               host_id=SERVER_HOST, **window(start, start + 30))
        for name, start in (("1", 0), ("2", 30))
    ]  # fmt: skip
    laps = (lap(0.002, 60.0, machine_kwh=0.012),)
    record = round_of(*reports, laps=laps, factors=ALLOCATION)
    assert record.clients_energy_kwh == pytest.approx(0.010, rel=1e-12)
    assert record.clients_emissions_kg == pytest.approx(0.004, rel=1e-12)


def test_a_bare_client_on_the_host_is_bounded_too() -> None:
    """Its energy is worked out for the bound; its emissions shrink, its energy stays unknown."""
    laps = (lap(0.002, 60.0, machine_kwh=0.006),)
    bare = report("1", 0.0016, loopback=True)  # 0.008 kWh at 200 g/kWh
    record = round_of(bare, laps=laps, factors=PROCESS)
    assert record.clients_emissions_kg == pytest.approx(0.0008, rel=1e-12)
    assert record.clients_energy_kwh is None
    assert record.reports_without_host == 0  # those are counted in full
    inside = round_of(bare, laps=laps, factors=ALLOCATION)  # its third, but at most all of ours
    assert (inside.clients_energy_kwh, inside.server_energy_kwh) == (0.002, 0.0)
    elsewhere = round_of(report("1", 0.0016), laps=laps, factors=ALLOCATION)
    assert (elsewhere.clients_emissions_kg, elsewhere.reports_without_host) == (0.0016, 1)


def test_a_partly_metered_allocation() -> None:
    """In half a minute the machine drew 0.01 kWh: in the minute clients may have had 2 x 0.008."""
    laps = (lap(0.002, 30.0, machine_kwh=0.01),)
    record = on_host(5.0, *laps, factors=ALLOCATION, rules=Rules(max_client_power_w=1e9))
    assert record.clients_energy_kwh == pytest.approx(0.016, rel=1e-12)
    assert record.server_energy_kwh == 0.002


def test_a_share_above_the_machine_leaves_nothing() -> None:
    """A meter that contradicts itself: the share is 1, the clients get nothing, nothing is negative."""
    record = on_host(0.005, lap(0.02, 60.0, machine_kwh=0.01), factors=ALLOCATION)
    assert record.factors.server_share == 1.0
    assert record.clients_energy_kwh == 0.0


def test_the_share_is_the_rounds_own() -> None:
    """Over laps where both are known; without any the factors are as given."""
    laps = (
        lap(0.001, 20.0, machine_kwh=0.004),
        lap(0.002, 20.0, machine_kwh=0.004),
        lap(None, 0.0, machine_kwh=0.004),
        lap(0.5, 20.0),
    )
    assert round_of(laps=laps, factors=ALLOCATION).factors.server_share == pytest.approx(3 / 8)
    assert round_of(laps=laps[3:], factors=ALLOCATION).factors.server_share is None


def test_in_allocation_scope_without_the_machines_figure_nothing_bounds() -> None:
    """Then the host is one like any other: what its clients share, they share among themselves."""
    record = on_host(0.02, lap(0.002, 60.0), factors=ALLOCATION)
    assert record.clients_energy_kwh == 0.02


# --- rounds without rows --------------------------------------------------------------------------


def test_a_round_without_client_rows_has_the_same_figures() -> None:
    """All sums and the distribution; only the digest of rows that nobody keeps is missing."""
    reports = [report(str(i), 0.001 * (i + 1)) for i in range(4)]
    nodes = tuple(node(str(i), examples=10, replied_at=T0 + 50) for i in range(5))
    kept = round_of(*reports, nodes=nodes)
    private = round_of(*reports, nodes=nodes, client_rows=False)
    assert not private.client_rows
    assert kept.evidence_sha256 is not None
    assert private.evidence_sha256 is None
    expected = replace(kept.summary(), client_rows=False, evidence_sha256=None)
    assert private.summary() == expected


def test_clients_in_the_servers_container_are_parts_of_its_share() -> None:
    """A quarter of the machine is ours; a client in it that saw the whole machine gets its quarter."""
    laps = (lap(0.004, 60.0, machine_kwh=0.016),)
    inside = report("1", 0.002, energy_kwh=0.010, loopback=True, host_id=SERVER_HOST)
    beside = report("2", 0.002, energy_kwh=0.020, loopback=False, host_id=SERVER_HOST)
    record = round_of(inside, beside, nodes=(node("1"), node("2")), laps=laps, factors=ALLOCATION)
    counted = {r.node_id: r.counted_energy_kwh for r in record.accepted}
    assert counted == {"1": pytest.approx(0.0025), "2": pytest.approx(0.012)}
    assert record.server_energy_kwh == pytest.approx(0.0015)
    everybody = (record.server_energy_kwh or 0) + (record.clients_energy_kwh or 0)
    assert everybody == pytest.approx(0.016)  # what one meter of the machine shows
