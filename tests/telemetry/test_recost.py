"""A run with other factors: what moves, what stays, and that the same factors change nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from math import fsum, isclose, isfinite
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.accounting import ParticipantFacts, ReceivedReport, RoundFacts, Rules, account
from telemetry.analysis.recost import MOST, Changes, Grid, Recost, recost_round, recost_run
from telemetry.domain import (
    GRAMS_PER_KG,
    Factors,
    Lap,
    RoundRecord,
    RoundSummary,
    RunTotals,
    emissions_kg,
)
from telemetry.errors import InvalidFactor
from telemetry.reports import read_report
from telemetry.testing import FACTORS, RUN_ID, make_lap, make_report, make_round
from tests import strategies

T0 = 1_767_323_045.0
SERVER_HOST = "5e5e5e5e5e5e"
FRANCE = Grid(g_per_kwh=56.0, source="test", year=2024, country="FRA")


def same(one: float | None, other: float | None) -> bool:
    """Both unknown, or equal to 1e-12, relative."""
    if one is None or other is None:
        return one is other
    return isclose(one, other, rel_tol=1e-12)


def same_as(factors: Factors, *, everywhere: bool = False) -> Changes:
    """The factors of a round, asked for by name."""
    return Changes(
        grid=Grid(
            g_per_kwh=factors.server_carbon_intensity_g_per_kwh,
            source=factors.intensity_source,
            year=factors.intensity_year,
            country=factors.country,
        ),
        everywhere=everywhere,
        pue=factors.pue,
        network_kwh_per_gb=factors.network_kwh_per_gb,
    )


def stored(records: list[RoundRecord]) -> list[tuple[RoundSummary, RoundRecord]]:
    """The rows as a store keeps them, with their records."""
    totals, rows = RunTotals(), []
    for record in records:
        totals = totals.plus(record.summary())
        rows.append((record.summary(totals.total_emissions_kg), record))
    return rows


def recosted(record: RoundRecord, changes: Changes) -> Recost:
    """A run of this one round."""
    return recost_run(stored([record]), changes)


# --- random fleets, accounted by the real rules --------------------------------------------------


@st.composite
def fleets(draw: st.DrawFn, scope: str | None = None) -> RoundRecord:
    """A round of clients here, elsewhere and nowhere, with and without energy and intensity."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    factors = Factors(
        server_carbon_intensity_g_per_kwh=rng.choice([0.5, 174.0, 475.0]),
        intensity_source="test",
        intensity_year=2024,
        country="ESP",
        pue=rng.choice([1.0, 1.37]),
        server_scope=scope or rng.choice(["machine", "allocation"]),  # type: ignore[arg-type]
        network_kwh_per_gb=rng.choice([None, 0.0, 0.06]),
        impute_missing=rng.random() < 0.5,
    )
    names = [f"n{n}" for n in range(draw(st.integers(0, 6)))]
    lap = Lap(
        phase="wait", wall_s=60.0, metered_s=rng.choice([60.0, 60.0, 30.0]),
        energy_kwh=rng.uniform(0, 0.01),
        machine_kwh=None if factors.server_scope == "machine" else rng.uniform(0.01, 0.02),
    )  # fmt: skip
    unmetered = replace(lap, metered_s=0.0, energy_kwh=None, machine_kwh=None, reason="test")
    return account(
        RoundFacts(
            run_id=RUN_ID, round=draw(st.integers(0, 3)), attempt=1, revision=1, closed=True,
            tracked=True, status="completed", reason=None, started_at=T0, ended_at=T0 + 60,
            connected=None, factors=factors, server_host_id=SERVER_HOST, rules=Rules(),
            participants=[
                ParticipantFacts(
                    node_id=name, client=f"c-{name}", train=True, examples=rng.randint(1, 500),
                    bytes_to=rng.randint(0, 10**8), bytes_from=rng.choice([None, 10**6]),
                )
                for name in names
            ],
            reports=[_report(name, rng) for name in names if rng.random() < 0.8],
            laps=[rng.choice([lap, lap, lap, unmetered])],
        )
    )  # fmt: skip


def _report(name: str, rng: random.Random) -> ReceivedReport:
    energy, intensity = rng.uniform(1e-6, 1e-2), rng.choice([24.0, 56.0, 174.0, 800.0])
    wire: dict[str, object] = {"emissions_kg": energy * intensity * rng.uniform(0.6, 2.5) / 1000}
    if rng.random() < 0.1:
        wire["emissions_kg"] = -1.0
    if rng.random() < 0.7:
        wire["energy_kwh"] = energy
        if rng.random() < 0.7:
            wire["carbon_intensity_g_per_kwh"] = intensity
    host = rng.choice([SERVER_HOST, "a" * 12, "b" * 12, None])
    if host is not None:
        wire["host_id"] = host
    start = rng.uniform(0, 30)
    wire |= {"started_at": T0 + start, "ended_at": T0 + start + rng.uniform(1, 30)}
    return ReceivedReport(
        node_id=name, client=f"c-{name}", phase="train", reported_round=1, late=False,
        report=read_report(wire), sent_at=T0, replied_at=T0 + 60, loopback=rng.random() < 0.3,
    )  # fmt: skip


grids = st.builds(
    Grid, g_per_kwh=st.floats(1.0, 2000.0), source=st.just("other"), country=st.just("FRA")
)


# --- the same factors change nothing -------------------------------------------------------------


@given(st.lists(fleets(), max_size=4))
def test_the_same_factors_are_the_identity(records: list[RoundRecord]) -> None:
    """Bit for bit, in every field of every round and in the totals; named or not."""
    rows = stored(records)
    unchanged = recost_run(rows, Changes())
    assert [item.recosted for item in unchanged.rounds] == [row for row, _ in rows]
    assert unchanged.recosted == unchanged.stored
    for row, record in rows:
        named = recost_round(record, same_as(record.factors)).summary(row.cumulative_emissions_kg)
        assert named == row


@given(st.lists(fleets(), max_size=4), grids, st.floats(1, 3), st.floats(0, 1))
def test_there_and_back_is_the_identity(
    records: list[RoundRecord], grid: Grid, pue: float, network: float
) -> None:
    """To other factors and back to each round's own: the figures that were there."""
    for record in records:
        if record.factors.network_kwh_per_gb is None:
            network_there, network_back = None, None
        else:
            network_there, network_back = network, record.factors.network_kwh_per_gb
        there = Changes(grid=grid, pue=pue, network_kwh_per_gb=network_there)
        back = replace(same_as(record.factors), network_kwh_per_gb=network_back)
        again = recost_round(recost_round(record, there), back)
        assert again.summary() == record.summary()


@given(fleets(), grids, grids)
def test_everywhere_by_way_of_another_grid_is_the_same(
    record: RoundRecord, first: Grid, second: Grid
) -> None:
    """What a client has on top of its grid's intensity goes with it, once."""
    to_second = Changes(grid=second, everywhere=True)
    direct = recost_round(record, to_second)
    by_way = recost_round(recost_round(record, Changes(grid=first, everywhere=True)), to_second)
    assert same(by_way.clients_emissions_kg, direct.clients_emissions_kg)
    assert same(by_way.total_emissions_kg, direct.total_emissions_kg)


@given(strategies.rounds(closed=True, tracked=True), st.booleans(), st.floats(1, MOST))
def test_any_record_can_be_asked_about(record: RoundRecord, everywhere: bool, pue: float) -> None:
    """Whatever a store holds: no exception, and every figure a number; unchanged, the same."""
    changes = Changes(grid=FRANCE, everywhere=everywhere, pue=pue, network_kwh_per_gb=MOST)
    found = recosted(record, changes)
    for name in ("server_emissions_kg", "clients_emissions_kg", "total_emissions_kg"):
        before, after = getattr(found.stored, name), getattr(found.recosted, name)
        assert (before is None) == (after is None)
        assert after is None or isfinite(after)
    unchanged = recosted(record, Changes())
    assert unchanged.rounds[0].recosted == unchanged.rounds[0].stored


# --- what moves, and what does not ---------------------------------------------------------------


@given(fleets("machine"), grids, st.floats(1, 3))
def test_the_servers_machine_is_its_meter_at_the_new_factors(
    record: RoundRecord, grid: Grid, pue: float
) -> None:
    """Server and clients on its machine: kWh on the meter × PUE × g/kWh, bare reports included."""
    after = recost_round(record, Changes(grid=grid, pue=pue))
    if record.host_energy_kwh is None or record.metered_share != 1.0:
        return
    here = [r.counted_emissions_kg or 0.0 for r in after.accepted if r.on_server_host]
    machine = fsum([after.server_emissions_kg or 0.0, *here])
    expected = record.host_energy_kwh * pue * grid.g_per_kwh / GRAMS_PER_KG
    assert machine == pytest.approx(expected, rel=1e-9, abs=1e-18)


@given(fleets(), grids)
def test_clients_elsewhere_stay_unless_the_whole_federation_is_asked_about(
    record: RoundRecord, grid: Grid
) -> None:
    """By default their grams and the listed ones are the same; with `everywhere` only bare stay."""
    elsewhere = [r for r in record.accepted if not r.on_server_host]
    bare = [r for r in elsewhere if r.counted_energy_kwh is None]
    here = recosted(record, Changes(grid=grid))
    kept = here.kept
    expected = fsum(r.counted_emissions_kg or 0.0 for r in elsewhere)
    assert kept.own_grid_kg + kept.without_energy_kg == pytest.approx(expected, rel=1e-12)
    assert kept.own_grid_reports + kept.without_energy_reports == len(elsewhere)
    after = recost_round(record, Changes(grid=grid))
    unmoved = [r for r in after.accepted if not r.on_server_host]
    assert unmoved == elsewhere
    everywhere = recosted(record, Changes(grid=grid, everywhere=True)).kept
    assert everywhere.own_grid_reports == 0
    assert everywhere.without_energy_reports == len(bare)
    assert everywhere.without_energy_kg == fsum(r.counted_emissions_kg or 0.0 for r in bare)


def _elsewhere(energy_kwh: float | None, kg: float, intensity: float | None) -> RoundRecord:
    return make_round(
        1,
        clients={"a": kg},
        server_kwh=0.002,
        reports=(
            make_report(
                "a", kg, energy_kwh=energy_kwh, counted_energy_kwh=energy_kwh,
                carbon_intensity_g_per_kwh=intensity,
            ),
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("energy_kwh", "kg", "intensity", "clients_kg"),
    [
        (0.001, 0.000174, 174.0, 0.001 * 0.056),  # energy × the new intensity
        (0.001, 0.000261, 174.0, 0.001 * 0.056 * 1.5),  # its own PUE of 1.5 goes with it
        (0.001, 0.000261, None, 0.001 * 0.056),  # nobody knows what it had on top
        (None, 0.000261, None, 0.000261),  # without energy it stays
        (0.001, 0.000777, 56.0, 0.000777),  # it is on that grid already
    ],
)
def test_a_client_on_the_new_grid(
    energy_kwh: float | None, kg: float, intensity: float | None, clients_kg: float
) -> None:
    """By hand: 56 g/kWh for the whole federation."""
    found = recosted(_elsewhere(energy_kwh, kg, intensity), Changes(grid=FRANCE, everywhere=True))
    assert found.recosted.clients_emissions_kg == pytest.approx(clients_kg, rel=1e-12)
    assert found.recosted.server_emissions_kg == pytest.approx(0.002 * 0.056, rel=1e-12)
    assert found.recosted.total_emissions_kg == pytest.approx(clients_kg + 0.002 * 0.056, rel=1e-12)


@pytest.mark.parametrize(("intensity", "on_top"), [(5e-324, 1.0), (1e-300, 3.0), (1e300, 0.5)])
def test_a_clients_pue_is_bounded_where_its_digits_are_lost(
    intensity: float, on_top: float
) -> None:
    """A stated intensity next to nothing cannot blow a client up."""
    found = recosted(_elsewhere(0.001, 0.001, intensity), Changes(grid=FRANCE, everywhere=True))
    assert found.recosted.clients_emissions_kg == pytest.approx(0.001 * 0.056 * on_top, rel=1e-12)


def test_pue_alone_moves_the_servers_machine_only() -> None:
    """The factor of a data centre says nothing of clients elsewhere; nothing is listed as kept."""
    record = _elsewhere(0.001, 0.000174, 174.0)
    found = recosted(record, Changes(pue=1.5))
    assert found.recosted.server_emissions_kg == pytest.approx(0.002 * 0.174 * 1.5, rel=1e-12)
    assert found.recosted.clients_emissions_kg == 0.000174
    assert (found.kept.own_grid_kg, found.kept.without_energy_kg) == (0.0, 0.0)


def test_estimates_follow_the_factors_and_stay_apart() -> None:
    """Transfers: bytes ÷ 10^9 × kWh/GB × the new intensity; the measured total does not move."""
    record = make_round(1, clients={"a": 0.001})
    sizes: dict[str, Any] = {"bytes_to": 3_000_000_000, "bytes_from": 1_000_000_000}
    record = make_round(
        1, clients={"a": 0.001}, participants=(replace(record.participants[0], **sizes),)
    )
    found = recosted(record, Changes(network_kwh_per_gb=0.01))
    assert found.stored.communication_emissions_kg_estimated is None
    assert found.recosted.communication_emissions_kg_estimated == pytest.approx(4 * 0.01 * 0.174)
    assert found.recosted.total_emissions_kg == found.stored.total_emissions_kg
    france = recosted(record, Changes(grid=FRANCE, network_kwh_per_gb=0.01))
    assert france.recosted.communication_emissions_kg_estimated == pytest.approx(4 * 0.01 * 0.056)


def test_an_imputation_is_that_of_the_new_figures() -> None:
    """Three clients at 174 g/kWh and a silent one: on 56 g/kWh the estimate falls as they do."""
    clients: dict[str, float | str] = {"a": 0.001, "b": 0.002, "c": 0.003, "d": "missing"}
    reports = tuple(
        make_report(name, kg, counted_energy_kwh=kg / 0.174, carbon_intensity_g_per_kwh=174.0)
        for name, kg in clients.items()
        if isinstance(kg, float)
    )
    factors = replace(FACTORS, impute_missing=True)
    record = make_round(1, clients=clients, reports=reports, factors=factors)
    found = recosted(record, Changes(grid=FRANCE, everywhere=True))
    assert found.stored.imputed_emissions_kg == pytest.approx(0.002)
    assert found.recosted.imputed_emissions_kg == pytest.approx(0.002 * 56 / 174)


@given(fleets(), grids, st.floats(1, 3))
def test_without_rows_the_server_and_transfers_move_and_the_clients_are_listed(
    record: RoundRecord, grid: Grid, pue: float
) -> None:
    """Of a run that keeps no rows of clients their grams stay, all of them, and are said to."""
    row = record.summary()
    changes = Changes(grid=grid, pue=pue, network_kwh_per_gb=0.1)
    (item,) = recost_run([(row, None)], changes).rounds
    with_rows = recost_round(record, changes).summary()
    assert item.recosted.server_emissions_kg == with_rows.server_emissions_kg
    assert item.recosted.communication_emissions_kg_estimated == (
        with_rows.communication_emissions_kg_estimated
    )
    assert item.recosted.clients_emissions_kg == row.clients_emissions_kg
    assert item.kept.without_rows_kg == (row.clients_emissions_kg or 0.0)
    (unchanged,) = recost_run([(row, None)], Changes()).rounds
    cumulative = RunTotals().plus(row).total_emissions_kg
    assert unchanged.recosted == replace(row, cumulative_emissions_kg=cumulative)
    assert unchanged.kept.without_rows_kg == 0.0


def test_unknown_stays_unknown() -> None:
    """A server without a meter and a silent client have no figure on any grid."""
    record = make_round(1, server_kwh=None, clients={"a": "missing"})
    found = recosted(record, Changes(grid=FRANCE, everywhere=True, pue=2.0))
    assert found.recosted.total_emissions_kg is None
    assert found.recosted.server_emissions_kg is None
    assert found.recosted.clients_emissions_kg is None


def test_cumulative_figures_are_those_of_the_new_factors() -> None:
    """Each round's cumulative figure ends in the re-computed total."""
    records = [make_round(n, laps=(make_lap(0.001 * n),)) for n in (1, 2, 3)]
    found = recost_run(stored(records), Changes(grid=FRANCE))
    assert [item.recosted.cumulative_emissions_kg for item in found.rounds] == pytest.approx(
        [emissions_kg(0.001 * n, replace(FACTORS, server_carbon_intensity_g_per_kwh=56.0))
         for n in (1, 3, 6)]
    )  # fmt: skip
    assert found.rounds[-1].recosted.cumulative_emissions_kg == found.recosted.total_emissions_kg


@pytest.mark.parametrize("value", [-1.0, 0.99, float("nan"), float("inf"), 2e6])
def test_a_number_that_is_no_factor_is_refused_by_name(value: float) -> None:
    """The error names the factor, the value and the range."""
    with pytest.raises(InvalidFactor, match=r"pue: .* choose from 1 to 1e\+06") as error:
        Changes(pue=value)
    assert error.value.name == "pue"
    if not 0 <= value <= 1:
        with pytest.raises(InvalidFactor, match="network"):
            Changes(network_kwh_per_gb=value)
        with pytest.raises(InvalidFactor, match="intensity"):
            Grid(g_per_kwh=value, source="test")


def test_the_figures_of_a_resumed_run_are_added_up_in_the_order_of_its_rounds() -> None:
    """Without a change they are the stored ones: of the attempts in their order, not by number."""
    played = [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2), (3, 1)]
    records = [
        make_round(number, attempt=attempt, sequence=place, clients={"a": 0.1 / place})
        for place, (number, attempt) in enumerate(played, 1)
    ]
    by_number = sorted(stored(records), key=lambda item: (item[0].round, item[0].attempt))
    for item in recost_run(by_number, Changes()).rounds:
        assert item.recosted.cumulative_emissions_kg == item.stored.cumulative_emissions_kg
