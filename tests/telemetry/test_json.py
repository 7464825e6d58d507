"""The JSON export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from telemetry.domain import ParticipantRecord
from telemetry.method import boundary, method_of
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import FACTORS, RUN_ID, START, make_report, make_round, pseudonym_of
from tests.telemetry.views import BACKENDS, Content, Driver, a_run, exported, opened, steps


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Store]:
    """An empty store of each kind."""
    with opened(request.param, sqlite_url) as kept:
        yield kept


@pytest.fixture(scope="module", params=BACKENDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    """One store of each kind for the many runs of a property."""
    folder = tmp_path_factory.mktemp("shared")
    with opened(request.param, f"sqlite:///{folder}/shared.db") as kept:
        yield kept


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"a member stands twice: {names}"
    return dict(pairs)


def _nothing_but_numbers(word: str) -> float:
    raise AssertionError(f"{word} is not JSON")


def parsed(store: Store, run_id: str = RUN_ID) -> dict[str, Any]:
    """An export read back, strictly."""
    found: dict[str, Any] = json.loads(
        exported(store, "json", run_id),
        object_pairs_hook=_distinct,
        parse_constant=_nothing_but_numbers,
    )
    return found


@given(played=steps)
def test_every_round_report_and_client_is_there(
    shared: Store, played: list[tuple[str, Content]]
) -> None:
    """Closed rounds, their clients and their reports stand together and read back exactly."""
    driver = Driver(shared)
    driver.start()
    for step, content in played:
        driver.play(step, content)
    found = parsed(shared, driver.run_id)
    stored = list(shared.rounds(driver.run_id))
    shared.finish_run(driver.run_id, "completed", START)
    assert len(found["rounds"]) == len(stored)
    for shown, row in zip(found["rounds"], stored, strict=True):
        record = shared.round(driver.run_id, row.round, row.attempt)
        assert (shown["round"], shown["attempt"]) == (row.round, row.attempt)
        assert shown["total_emissions_kg"] == row.total_emissions_kg
        assert shown["cumulative_emissions_kg"] == row.cumulative_emissions_kg
        assert shown["train_metrics"] == dict(row.train_metrics)
        assert len(shown["clients"]) == len(record.participants)
        counted = [report["counted_emissions_kg"] for report in shown["reports"]]
        by_node = sorted(record.reports, key=lambda r: (r.node_id, r.phase, r.reported_round))
        assert counted == [report.counted_emissions_kg for report in by_node]


def test_a_client_without_a_report_is_listed(store: Store) -> None:
    """Missing and failed clients stand beside those that reported, under pseudonyms."""
    a_run(store, make_round(1, clients={"a": 0.1, "b": "missing", "c": "failed"}))
    (shown,) = parsed(store)["rounds"]
    outcomes = {client["client"]: client["outcome"] for client in shown["clients"]}
    assert outcomes == {
        pseudonym_of("a"): "reported",
        pseudonym_of("b"): "missing",
        pseudonym_of("c"): "failed",
    }
    assert shown["participants"] == 3
    assert [report["client"] for report in shown["reports"]] == [pseudonym_of("a")]


def test_rounds_without_clients_do_not_shift_the_others(store: Store) -> None:
    """Clients and reports stand in their own round, whatever lies between."""
    a_run(
        store,
        make_round(0),
        make_round(1, clients={"a": 0.1}),
        make_round(2),
        make_round(3, clients={"b": 0.2}, attempt=1),
        make_round(3, clients={"c": "missing"}, attempt=2),
    )
    shown = [
        (len(row["clients"]), [report["emissions_kg"] for report in row["reports"]])
        for row in parsed(store)["rounds"]
    ]
    assert shown == [(0, []), (1, [0.1]), (0, []), (1, [0.2]), (1, [])]


def test_unknown_is_null_and_zero_is_zero(store: Store) -> None:
    """A failed meter reads null; a client that reported nothing used reads 0."""
    a_run(store, make_round(1, server_kwh=None, clients={"a": 0.0}))
    (shown,) = parsed(store)["rounds"]
    assert shown["server_energy_kwh"] is None
    assert shown["server_emissions_kg"] is None
    assert shown["clients_emissions_kg"] == 0.0


def test_the_method_says_what_the_figures_rest_on(store: Store) -> None:
    """Sensor, scope, intensity with source and year, PUE and the boundary are in the file."""
    a_run(store, make_round(1))
    method = parsed(store)["method"]
    assert method["server_sensors"] == [FACTORS.server_sensor]
    assert method["server_scope"] == "machine"
    assert method["server_carbon_intensity_g_per_kwh"] == 174.0
    assert (method["intensity_source"], method["intensity_year"]) == ("made up", 2024)
    assert method["country"] == "ESP"
    assert method["pue"] == 1.0
    assert method["boundary"] == boundary(method_of(store.run(RUN_ID), store.rounds(RUN_ID)))
    assert any("networks" in text for text in method["boundary"]["not_included"])


def test_the_seal_stands_at_the_head_once_the_run_has_ended(store: Store) -> None:
    """Null while the run goes on."""
    a_run(store, make_round(1))
    assert parsed(store)["sha256"] is None
    store.finish_run(RUN_ID, "completed", START)
    found = parsed(store)
    assert list(found)[:3] == ["format_version", "run_id", "sha256"]
    assert found["sha256"] == store.run(RUN_ID).sha256


def test_without_client_rows_the_lists_are_empty_and_it_says_so(store: Store) -> None:
    """The sums are there all the same."""
    a_run(store, make_round(1, clients={"a": 0.5}, client_rows=False), client_rows=False)
    found = parsed(store)
    (shown,) = found["rounds"]
    assert (shown["clients"], shown["reports"]) == ([], [])
    assert (shown["participants"], shown["clients_emissions_kg"]) == (1, 0.5)
    assert found["method"]["client_rows"] is False
    assert "telemetry.client_rows: false" in found["method"]["clients"]


def test_the_sensors_are_those_of_the_rounds(store: Store) -> None:
    """What the meter turned out to read goes before what was known when the run started."""
    at_start = {"server_carbon_intensity_g_per_kwh": 174.0, "intensity_source": "made up"}
    factors = type(FACTORS)(**at_start)  # type: ignore[arg-type]  # mixed types in one mapping
    a_run(store, make_round(1), make_round(2, server_kwh=None, factors=factors), factors=factors)
    assert parsed(store)["method"]["server_sensors"] == ["constant"]


def test_an_untracked_run_counts_no_reports(store: Store) -> None:
    """Where reports are thrown away unread, their number is unknown and not 0."""
    a_run(store, make_round(1, tracked=False, laps=()), tracked=False)
    found = parsed(store)
    (shown,) = found["rounds"]
    assert found["method"]["tracked"] is False
    for record in (shown, found["totals_of_closed_rounds"]):
        for name in ("reports_accepted", "reports_late", "client_histogram"):
            assert record[name] is None
    assert shown["clients_emissions_kg"] is None


def test_a_rejected_report_is_shown_with_its_reason(store: Store) -> None:
    """What a client sent and why it does not count stay readable."""
    report = make_report("a", "not_finite", rejected_value="nan")
    a_run(store, make_round(1, reports=(report,)))
    (shown,) = parsed(store)["rounds"][0]["reports"]
    assert (shown["rejection"], shown["rejected_value"]) == ("not_finite", "nan")
    assert shown["counted_emissions_kg"] is None


class StoreThatGoesOn(InMemoryStore):
    """Another attempt at round 1 closes while the run is exported."""

    def participants(self, run_id: str) -> Iterator[tuple[int, int, ParticipantRecord]]:
        """As the store, a round later."""
        self.record_round(make_round(1, attempt=2, clients={"newcomer": 0.5}))
        return super().participants(run_id)


def test_a_round_that_closes_meanwhile_is_left_for_the_next_export() -> None:
    """Whatever closes during an export, no client stands in a round that is not its own."""
    store = StoreThatGoesOn()
    a_run(store, make_round(1, clients={"a": 0.1}), make_round(2, clients={"b": 0.2}))
    shown = [[client["client"] for client in row["clients"]] for row in parsed(store)["rounds"]]
    assert shown == [[pseudonym_of("a")], [pseudonym_of("b")]]
