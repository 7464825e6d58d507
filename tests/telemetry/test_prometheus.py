"""``/metrics``: what it shows, and that no counter ever falls."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import REGISTRY

from telemetry.domain import CLIENT_BUCKETS_G, ExposedRun, Factors, Owner, RoundRecord
from telemetry.errors import StoreError
from telemetry.exporters.families import FAMILIES
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import (
    FACTORS,
    OWNER,
    RUN_ID,
    START,
    ManualClock,
    make_report,
    make_round,
    make_run,
)
from tests.telemetry.views import (
    BACKENDS,
    Content,
    Driver,
    a_run,
    column_sum,
    joules,
    opened,
    registry_of,
    samples,
    steps,
    table,
    value,
)
from tests.tools import require_tool

CONTRACT: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "fl_run_info": (
        "info",
        (
            "run_name",
            "strategy",
            "privacy",
            "country",
            "intensity_source",
            "server_scope",
            "server_sensor",
            "pue",
        ),
    ),
    "fl_run_active": ("gauge", ()),
    "fl_run_round": ("gauge", ()),
    "fl_run_rounds_planned": ("gauge", ()),
    "fl_run_start_timestamp_seconds": ("gauge", ()),
    "fl_run_end_timestamp_seconds": ("gauge", ()),
    "fl_emissions_co2eq_grams_total": ("counter", ("component",)),
    "fl_energy_joules_total": ("counter", ("component",)),
    "fl_server_energy_joules_total": ("counter", ("phase",)),
    "fl_run_emissions_co2eq_grams": ("gauge", ()),
    "fl_run_emissions_estimate_co2eq_grams": ("gauge", ("component", "quality", "bound")),
    "fl_network_bytes_total": ("counter", ("direction",)),
    "fl_rounds_total": ("counter", ("status",)),
    "fl_client_reports_total": ("counter", ("outcome",)),
    "fl_clients": ("gauge", ("state",)),
    "fl_emissions_coverage_ratio": ("gauge", ()),
    "fl_reports_without_host": ("gauge", ()),
    "fl_training_metric": ("gauge", ("name", "split")),
    "fl_round_emissions_co2eq_grams": ("gauge", ("round", "component")),
    "fl_round_cumulative_emissions_co2eq_grams": ("gauge", ("round",)),
    "fl_round_energy_joules": ("gauge", ("round", "component")),
    "fl_round_training_metric": ("gauge", ("round", "name", "split")),
    "fl_round_duration_seconds": ("gauge", ("round",)),
    "fl_round_coverage_ratio": ("gauge", ("round",)),
    "fl_client_emissions_co2eq_grams": ("histogram", ()),
    "fl_carbon_intensity_grams_per_kilowatt_hour": ("gauge", ("component", "source")),
    "fl_emissions_budget_co2eq_grams": ("gauge", ()),
    "fl_emissions_budget_used_ratio": ("gauge", ()),
    "fl_emissions_marginal_co2eq_grams_per_point": ("gauge", ()),
    "fl_privacy_epsilon": ("gauge", ()),
}


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


@dataclass
class Facts:
    """What a server knows of its own telemetry, made up."""

    errors: dict[str, int] = field(default_factory=dict)
    undelivered_rounds: int = 0
    oldest_undelivered_s: float | None = None
    overhead_s: float = 0.0


class StoreThatFails(InMemoryStore):
    """A store whose scrape query raises; counts how often it was asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """Raises."""
        self.asked += 1
        raise self.error


def rich_run(store: Store, **facts: Any) -> None:
    """A run with something in nearly every family."""
    a_run(
        store,
        make_round(0),
        make_round(
            1,
            clients={"a": 0.001, "b": "missing", "c": "negative", "d": "failed"},
            train_metrics={"accuracy": 0.5, "loss": 1.5, "secret": 9.0},
        ),
        make_round(2, clients={"a": 0.002}, evaluate_metrics={"accuracy": 0.6}),
        make_round(3, closed=False, clients={"a": 0.004}, privacy_epsilon=1.25),
        **facts,
    )


# --- the contract ------------------------------------------------------------------------------


def test_names_types_and_labels_are_those_of_the_contract() -> None:
    """Dashboards rely on these."""
    assert {family.name: (family.type, family.labels) for family in FAMILIES} == CONTRACT


def test_every_family_that_speaks_of_emissions_is_for_tracked_runs() -> None:
    """No name with emissions or energy in it can have a sample of an untracked run."""
    for family in FAMILIES:
        if "emissions" in family.name or "energy" in family.name:
            assert family.tracked_only, family.name


def test_registering_asks_the_store_nothing() -> None:
    """`describe` is static, and a second collector in one registry is refused."""
    store = StoreThatFails(StoreError("memory://", "not to be asked"))
    registry = metrics_registry(EmissionsCollector(store, facts=Facts()))
    assert store.asked == 0
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(EmissionsCollector(store))


def test_every_described_name_is_what_is_collected(store: Store) -> None:
    """A static description that says something else would hide clashes."""
    rich_run(store)
    collector = EmissionsCollector(store, OWNER, facts=Facts())
    described = [(family.name, family.type) for family in collector.describe()]
    assert described == [(family.name, family.type) for family in collector.collect()]


def test_the_librarys_global_registry_is_left_alone(store: Store) -> None:
    """Two servers in one process do not meet in a global registry."""
    registry_of(store)
    registry_of(store)
    assert not [metric.name for metric in REGISTRY.collect() if metric.name.startswith("fl_")]


def test_promtool_finds_nothing_to_say(store: Store) -> None:
    """A page with every family in it passes ``promtool check metrics``."""
    rich_run(store, budget_kg=0.012)
    store.record_round(estimated_round(4))
    page = generate_latest(registry_of(store, facts=Facts(errors={"store": 1})))
    checked = subprocess.run(
        [require_tool("promtool"), "check", "metrics"],
        input=page,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr.decode()) == (0, "")
    for name in CONTRACT:
        assert f"# TYPE {name} ".encode() in page
    assert b"_created" not in page


def test_the_page_is_valid_openmetrics(store: Store) -> None:
    """Prometheus asks for OpenMetrics first; the strict parser takes the page."""
    rich_run(store)
    text = openmetrics(registry_of(store, facts=Facts())).decode()
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"fl_run", "fl_emissions_co2eq_grams", "fl_rounds"} <= names


# --- figures -----------------------------------------------------------------------------------


def test_base_units(store: Store) -> None:
    """kWh and kg in the store are joules and grams on the page."""
    a_run(store, make_round(1, server_kwh=0.001, clients={"a": 0.25}))
    found = samples(registry_of(store))
    assert value(found, "fl_server_energy_joules_total", phase="wait") == 3600.0
    assert value(found, "fl_energy_joules_total", component="server") == 3600.0
    grams = value(found, "fl_emissions_co2eq_grams_total", component="server")
    assert grams == pytest.approx(0.174, rel=1e-12)
    assert value(found, "fl_emissions_co2eq_grams_total", component="clients") == 250.0


def test_the_open_round_shows_in_gauges_only(store: Store) -> None:
    """Closing a round moves its figures into the counters; the run's gauge had them already."""
    a_run(store, make_round(1, closed=False, clients={"a": 0.25}, server_kwh=None))
    before = samples(registry_of(store))
    assert value(before, "fl_emissions_co2eq_grams_total", component="clients") is None
    assert value(before, "fl_run_emissions_co2eq_grams") == 250.0
    assert value(before, "fl_run_round") == 1.0
    assert value(before, "fl_rounds_total", status="completed") == 0.0
    store.record_round(make_round(1, revision=1, clients={"a": 0.25}, server_kwh=None))
    after = samples(registry_of(store))
    assert value(after, "fl_emissions_co2eq_grams_total", component="clients") == 250.0
    assert value(after, "fl_run_emissions_co2eq_grams") == 250.0
    assert value(after, "fl_rounds_total", status="completed") == 1.0


def test_a_silent_fleet_has_no_clients_figure(store: Store) -> None:
    """Where no client ever reported, their emissions and energy are absent, not 0.

    The set-up round, in which nobody takes part, does not change that.
    """
    a_run(store, make_round(0), make_round(1, clients={"a": "missing", "b": "negative"}))
    found = samples(registry_of(store))
    assert value(found, "fl_emissions_co2eq_grams_total", component="clients") is None
    assert value(found, "fl_energy_joules_total", component="clients") is None
    assert value(found, "fl_emissions_co2eq_grams_total", component="server") is not None
    assert value(found, "fl_round_emissions_co2eq_grams", round="1", component="clients") is None


def test_a_reported_zero_is_a_zero(store: Store) -> None:
    """A client that says 0 is known: the sample is there and reads 0."""
    report = make_report("a", 0.0, energy_kwh=0.0, counted_energy_kwh=0.0)
    a_run(store, make_round(1, reports=(report,)))
    found = samples(registry_of(store))
    assert value(found, "fl_emissions_co2eq_grams_total", component="clients") == 0.0
    assert value(found, "fl_energy_joules_total", component="clients") == 0.0


def test_bytes_are_absent_where_nobody_counted_them(store: Store) -> None:
    """Without a transport of ours there is no number of bytes."""
    rich_run(store)
    found = samples(registry_of(store))
    assert not [name for name, _ in found if name == "fl_network_bytes_total"]


def estimated_round(number: int, **facts: Any) -> RoundRecord:
    """A round of four clients, one silent, in which bytes were counted and estimates are made."""
    came_to: dict[str, float | str] = {"a": 0.001, "b": 0.002, "c": 0.004, "d": "missing"}
    record = make_round(
        number,
        clients=came_to,
        factors=replace(FACTORS, network_kwh_per_gb=0.06, impute_missing=True),
        **facts,
    )
    counted = tuple(replace(p, bytes_to=10**9, bytes_from=5 * 10**8) for p in record.participants)
    return record.model_copy(update={"participants": counted})


def test_estimates_stand_apart_from_what_was_measured(store: Store) -> None:
    """Communication and the silent client, each with its quality; the measured figures stay as they are."""
    a_run(store, make_round(1, clients={"a": 0.001, "b": 0.002, "c": 0.004, "d": "missing"}))
    before = samples(registry_of(store))
    name = "fl_run_emissions_estimate_co2eq_grams"
    assert not [found for found, _ in before if found == name], "nothing was switched on"

    other = make_run("20260102-030405-ffffff")
    store.start_run(other, OWNER, START)
    store.record_round(estimated_round(1, run_id=other.run_id))
    found = samples(registry_of(store), run_id=other.run_id)
    bytes_g = 4 * 1.5 * 0.06 * FACTORS.server_carbon_intensity_g_per_kwh
    labels = {"component": "communication", "quality": "estimated", "bound": "central"}
    assert value(found, name, **labels) == pytest.approx(bytes_g, rel=1e-12)
    imputed = {
        bound: value(found, name, component="clients", quality="imputed", bound=bound)
        for bound in ("low", "central", "high")
    }
    assert imputed == pytest.approx({"low": 1.2, "central": 2.0, "high": 3.6})
    measured = "fl_run_emissions_co2eq_grams"
    assert value(found, measured) == value(before, measured)


def test_who_is_silent_in_an_open_round_may_still_answer(store: Store) -> None:
    """Nobody is imputed while the round runs; its bytes are counted already."""
    a_run(store, estimated_round(1, closed=False))
    found = samples(registry_of(store))
    qualities = {
        dict(labels)["quality"]
        for (name, labels) in found
        if name == "fl_run_emissions_estimate_co2eq_grams"
    }
    assert qualities == {"estimated"}


def test_a_budget_is_shown_with_how_much_of_it_is_used(store: Store) -> None:
    """In grams, with the open round; both are absent without a budget."""
    a_run(
        store,
        make_round(1, server_kwh=None, clients={"a": 0.002}),
        make_round(2, server_kwh=None, clients={"a": 0.004}, closed=False),
        budget_kg=0.012,
    )
    store.start_run(make_run("20260102-030405-ffffff"), OWNER, START)
    store.record_round(make_round(1, run_id="20260102-030405-ffffff", clients={"a": 0.002}))
    found = samples(registry_of(store))
    assert value(found, "fl_emissions_budget_co2eq_grams") == 12.0
    assert value(found, "fl_emissions_budget_used_ratio") == pytest.approx(0.5)
    other = samples(registry_of(store), run_id="20260102-030405-ffffff")
    assert not [name for name, _ in other if "budget" in name]


def test_a_budget_of_which_nothing_is_known_has_no_share(store: Store) -> None:
    """Unknown is not 0 %."""
    a_run(store, make_round(1, server_kwh=None, clients={"a": "missing"}), budget_kg=0.012)
    found = samples(registry_of(store))
    assert value(found, "fl_emissions_budget_co2eq_grams") == 12.0
    assert value(found, "fl_emissions_budget_used_ratio") is None


@pytest.mark.parametrize(
    ("accuracies", "metric", "expected"),
    [
        ((0.5, 0.6), "accuracy", 0.2),  # 2 g for 10 points
        ((0.5, 0.4, 0.6), "accuracy", 0.4),  # 4 g since the best before
        ((0.5, 0.5), "accuracy", None),
        ((0.6, 0.5), "accuracy", None),
        ((0.6, 0.5), "loss", 0.2),  # the lower the better
        ((0.5,), "accuracy", None),
        ((0.5, 0.6), "f1", None),
    ],
)
def test_a_point_of_progress_has_a_price(
    store: Store, accuracies: tuple[float, ...], metric: str, expected: float | None
) -> None:
    """Grams since the best value before ÷ points gained; absent where nothing was gained."""
    key = "loss" if metric == "loss" else "accuracy"
    rounds = [
        make_round(n, server_kwh=None, clients={"a": 0.002}, evaluate_metrics={key: accuracy})
        for n, accuracy in enumerate(accuracies, start=1)
    ]
    a_run(store, make_round(0), *rounds, value_metric=metric)
    found = value(samples(registry_of(store)), "fl_emissions_marginal_co2eq_grams_per_point")
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_later_page_is_that_of_a_server_that_was_never_asked_before(store: Store) -> None:
    """What is remembered from page to page is what would be made anew, as rounds come and change."""
    a_run(store)
    asked_before = registry_of(store)
    pages = []
    for record in (
        make_round(0, sequence=1),
        make_round(1, clients={"a": 0.1}, evaluate_metrics={"accuracy": 0.5}),
        make_round(2, clients={"a": 0.2}, evaluate_metrics={"accuracy": 0.7}),
        make_round(3, clients={"a": 0.3}, train_metrics={"loss": 1.0, "f1": 0.1}, closed=False),
        make_round(3, clients={"a": 0.3}, train_metrics={"loss": 2.0, "f1": 0.2}, revision=1),
        make_round(3, attempt=2, clients={"a": 0.4}, evaluate_metrics={"accuracy": 0.9}),
    ):
        store.record_round(record)
        pages.append(samples(asked_before))
        assert pages[-1] == samples(registry_of(store))
    for number in (5, 4):
        store.record_round(make_round(number, clients={"a": 0.1 * number}, sequence=number + 2))
        assert samples(asked_before) == samples(registry_of(store))
    store.finish_run(RUN_ID, "completed", START)  # puts running totals in order
    pages.append(samples(asked_before))
    assert pages[-1] == samples(registry_of(store))
    cumulative = "fl_round_cumulative_emissions_co2eq_grams"
    fourth, fifth = (value(pages[-1], cumulative, round=number) for number in ("4", "5"))
    assert fourth is not None
    assert fifth is not None
    assert fourth < fifth
    assert all(one != other for one, other in pairwise(pages))


def test_a_run_that_ended_and_went_on_between_two_pages_shows_its_sums_in_order(
    store: Store,
) -> None:
    """Its end put them in order, its seal is gone again, and its new set-up counts as no round."""
    a_run(store, *(make_round(n, clients={"a": 0.1 * n}, sequence=n + 1) for n in (0, 2, 3, 1)))
    registry = registry_of(store)
    samples(registry)
    store.finish_run(RUN_ID, "interrupted", START + timedelta(hours=1))
    store.resume_run(RUN_ID, OWNER, START + timedelta(hours=1))
    store.record_round(make_round(0, attempt=2))
    found = samples(registry)
    name = "fl_round_cumulative_emissions_co2eq_grams"
    sums = [value(found, name, round=number) or 0.0 for number in ("1", "2", "3")]
    assert 0 < sums[0] < sums[1] < sums[2]


def test_the_clients_intensity_is_what_their_figures_come_to(store: Store) -> None:
    """Counted grams ÷ counted kWh, of the last round whose reports all carry an energy."""

    def both(number: int, second: dict[str, Any]) -> RoundRecord:
        reports = (
            make_report("a", 0.1, energy_kwh=1.0, counted_energy_kwh=1.0),
            make_report("b", 0.5, **second),
        )
        participants = make_round(number, clients={"a": 0.1, "b": 0.5}).participants
        return make_round(number, reports=reports, participants=participants)

    a_run(store, both(1, {"energy_kwh": 1.0, "counted_energy_kwh": 1.0}), both(2, {}))
    found = samples(registry_of(store))
    name = "fl_carbon_intensity_grams_per_kilowatt_hour"
    by_component = {
        dict(labels)["component"]: (dict(labels)["source"], n)
        for (sample, labels), n in found.items()
        if sample == name
    }
    assert by_component["clients"][1] == pytest.approx(300.0)
    assert by_component["clients"][0].startswith("effective: ")
    assert by_component["server"][1] == 174.0


def test_only_the_last_attempt_of_a_round_has_series(store: Store) -> None:
    """The counters count every attempt, the round's series show the last one."""
    a_run(
        store,
        make_round(1, status="failed", clients={"a": 0.5}),
        make_round(1, attempt=2, clients={"a": 0.25}),
    )
    found = samples(registry_of(store))
    name = "fl_round_emissions_co2eq_grams"
    assert value(found, name, round="1", component="clients") == 250.0
    assert value(found, "fl_emissions_co2eq_grams_total", component="clients") == 750.0
    cumulative = value(found, "fl_round_cumulative_emissions_co2eq_grams", round="1")
    assert cumulative == pytest.approx(750.0 + 2 * 0.174, rel=1e-12)


def test_energy_of_a_round_is_absent_where_it_is_unknown(store: Store) -> None:
    """In joules; a round that was not metered, and clients of whom none names an energy, have none."""
    measured = make_report("a", 0.1, energy_kwh=0.25, counted_energy_kwh=0.25)
    clients: dict[str, float | str] = {"a": 0.1, "b": "missing"}
    a_run(
        store,
        make_round(1, server_kwh=0.5, clients=clients, reports=(measured,)),
        make_round(2, server_kwh=None, clients={"a": 0.1}),
        make_round(3, server_kwh=0.125),
        make_round(4, closed=False, clients={"a": 0.1}),
    )
    found = samples(registry_of(store))
    name = "fl_round_energy_joules"
    assert {labels: joule for (metric, labels), joule in found.items() if metric == name} == {
        frozenset({("round", "1"), ("component", "server")}): 1_800_000.0,
        frozenset({("round", "1"), ("component", "clients")}): 900_000.0,
        frozenset({("round", "3"), ("component", "server")}): 450_000.0,
    }


def test_the_histogram_counts_up(store: Store) -> None:
    """Buckets are cumulative, in grams, and end with everything."""
    a_run(store, make_round(1, clients={"a": 1e-7, "b": 0.001, "c": 1000.0}))
    found = samples(registry_of(store), "histogram")
    name = "fl_client_emissions_co2eq_grams"
    assert value(found, f"{name}_bucket", le="0.0001") == 1.0
    assert value(found, f"{name}_bucket", le="1.0") == 2.0
    assert value(found, f"{name}_bucket", le="10000.0") == 2.0
    assert value(found, f"{name}_bucket", le="+Inf") == 3.0
    assert value(found, f"{name}_count") == 3.0
    assert value(found, f"{name}_sum") == pytest.approx(1e6 + 1 + 1e-4, rel=1e-12)
    assert len(found) == len(CLIENT_BUCKETS_G) + 3


def test_clients_by_state(store: Store) -> None:
    """Outcomes are those of the last closed round and add up to selected."""
    rich_run(store)
    store.record_round(make_round(4, closed=False, clients={}, connected=7))
    store.record_round(
        make_round(3, revision=1, clients={"a": 0.1, "b": "missing", "c": "failed"}, connected=5)
    )
    found = samples(registry_of(store))
    states = {dict(labels)["state"]: n for (name, labels), n in found.items() if "_clients" in name}
    assert states == {
        "connected": 7.0,
        "selected": 3.0,
        "reported": 1.0,
        "missing": 1.0,
        "rejected": 0.0,
        "failed": 1.0,
    }
    assert value(found, "fl_emissions_coverage_ratio") == pytest.approx(1 / 3)


def test_a_set_up_without_a_meter_shows_no_emissions(store: Store) -> None:
    """While it lasts nothing is known; a 0 would be shown until the first client reports."""
    a_run(store, make_round(0, closed=False, server_kwh=None, laps=()), budget_kg=1.0)
    found = {name for name, _ in samples(registry_of(store))}
    assert not found & {"fl_run_emissions_co2eq_grams", "fl_emissions_budget_used_ratio"}


def test_an_undecided_round_counts_nobody_as_missing(store: Store) -> None:
    """While the first round runs, its outcomes are not decided and not shown."""
    a_run(store, make_round(1, closed=False, clients={"a": "missing"}))
    found = samples(registry_of(store))
    assert value(found, "fl_clients", state="selected") == 1.0
    assert value(found, "fl_clients", state="missing") is None


def test_untracked_runs_show_their_training_only(store: Store) -> None:
    """No emissions, no energy, no reports; clients by what is known; training metrics are kept."""
    facts: dict[str, Any] = {"tracked": False, "laps": (), "train_metrics": {"accuracy": 0.5}}
    participants = make_round(1, clients={"a": "failed"}).participants
    a_run(store, make_round(1, participants=participants, **facts), tracked=False)
    found = samples(registry_of(store))
    names = {name for name, _ in found}
    assert not [name for name in names if "emissions" in name or "energy" in name]
    assert "fl_client_reports_total" not in names
    states = {dict(labels)["state"] for name, labels in found if name == "fl_clients"}
    assert states == {"connected", "selected", "failed"}
    assert value(found, "fl_training_metric", name="accuracy", split="train") == 0.5


def test_training_metrics_are_the_configured_ones_and_the_loss(store: Store) -> None:
    """Whatever else a client sends makes no series; each is from the newest round that has it."""
    rich_run(store)
    found = samples(registry_of(store))
    shown = {
        (dict(labels)["name"], dict(labels)["split"]): number
        for (name, labels), number in found.items()
        if name == "fl_training_metric"
    }
    assert shown == {
        ("accuracy", "train"): 0.5,
        ("loss", "train"): 1.5,
        ("accuracy", "evaluate"): 0.6,
    }
    in_round = value(found, "fl_round_training_metric", round="1", name="loss", split="train")
    assert in_round == 1.5


def test_a_run_that_names_no_metrics_shows_the_first_sixteen(store: Store) -> None:
    """In a user's own app the number of series stays bounded without any configuration."""
    many = {f"m{number:02d}": float(number) for number in range(20)}
    a_run(store, make_round(1, train_metrics=many), metric_names=())
    found = samples(registry_of(store))
    shown = {dict(labels)["name"] for name, labels in found if name == "fl_training_metric"}
    assert shown == set(sorted(many)[:16])


def test_series_do_not_grow_with_clients(store: Store) -> None:
    """A hundred clients make as many series as one, and no client is named."""
    a_run(store, make_round(1, clients={"only": 0.1}))
    others = {f"node-{number}": 0.1 for number in range(100)}
    a_run(store, make_round(1, run_id="many", clients=others), run_id="many")
    registry = registry_of(store)
    assert len(samples(registry, run_id="many")) == len(samples(registry))
    assert b"c-" not in b"".join(
        line for line in generate_latest(registry).splitlines() if not line.startswith(b"#")
    )


def test_at_most_so_many_rounds_have_series(store: Store) -> None:
    """The oldest rounds leave the page first; the counters keep them."""
    a_run(store, *(make_round(number, clients={"a": 0.1}) for number in range(6)))
    found = samples(registry_of(store, max_rounds=2))
    name = "fl_round_duration_seconds"
    assert {dict(labels)["round"] for named, labels in found if named == name} == {"4", "5"}
    assert value(found, "fl_rounds_total", status="completed") == 5.0


def test_a_meter_that_was_late_tells_its_sensor(store: Store) -> None:
    """A run that started before its meter was ready shows the sensor of its rounds."""
    early = Factors(server_carbon_intensity_g_per_kwh=174.0, intensity_source="made up")
    a_run(store, make_round(1, factors=FACTORS), factors=early)
    found = samples(registry_of(store), "info")
    ((_, labels),) = found
    assert dict(labels)["server_sensor"] == "constant"


def test_a_server_that_fell_silent_is_not_active(store: Store) -> None:
    """A run that nobody renews any more is inactive for others; for its own server it is not."""
    a_run(store, make_round(1))
    clock = ManualClock(START + timedelta(seconds=61))
    assert value(samples(registry_of(store, clock=clock.now)), "fl_run_active") == 1.0
    service = metrics_registry(EmissionsCollector(store, None, clock=clock.now))
    assert value(samples(service), "fl_run_active") == 0.0


def test_an_ended_run_says_when(store: Store) -> None:
    """The end is absent while a run runs, and a time afterwards."""
    a_run(store, make_round(1))
    assert value(samples(registry_of(store)), "fl_run_end_timestamp_seconds") is None
    store.finish_run(RUN_ID, "completed", START + timedelta(seconds=120))
    found = samples(registry_of(store))
    assert value(found, "fl_run_end_timestamp_seconds") == START.timestamp() + 120
    assert value(found, "fl_run_active") == 0.0
    assert value(found, "fl_run_start_timestamp_seconds") == START.timestamp()


# --- laws --------------------------------------------------------------------------------------


@given(played=steps)
def test_no_counter_ever_falls(shared: Store, played: list[tuple[str, Content]]) -> None:
    """Over revisions, repeats, new attempts, late reports and restarts, scraped after each step.

    A counter that falls is read by Prometheus as a restart: 0, 40, 30, 45 becomes 85.
    """
    driver = Driver(shared)
    driver.start()
    registry = registry_of(shared)
    before = samples(registry, "counter", "histogram", run_id=driver.run_id)
    for place, (step, content) in enumerate(played):
        driver.play(step, content)
        if place % 3 == 2:  # a server that was started again has a new registry
            registry = registry_of(shared)
        after = samples(registry, "counter", "histogram", run_id=driver.run_id)
        for name, number in before.items():
            assert after.get(name, -1.0) >= number, (name, step)
        before = after
    shared.finish_run(driver.run_id, "completed", START)


@given(played=steps)
def test_store_page_and_export_agree(shared: Store, played: list[tuple[str, Content]]) -> None:
    """Sums of CSV rows, the stored totals and the counters are one figure, to 1e-9."""
    driver = Driver(shared)
    driver.start()
    for step, content in played:
        driver.play(step, content)
    found = samples(registry_of(shared), run_id=driver.run_id)
    rows = table(shared, run_id=driver.run_id)
    totals = shared.run(driver.run_id).totals
    shared.finish_run(driver.run_id, "completed", START)
    for part, kg, kwh in (
        ("server", totals.server_emissions_kg, totals.server_energy_kwh),
        ("clients", totals.clients_emissions_kg, totals.clients_energy_kwh),
    ):
        grams = value(found, "fl_emissions_co2eq_grams_total", component=part)
        assert grams == (None if kg is None else kg * 1000)
        assert (kg or 0.0) == pytest.approx(column_sum(rows, f"{part}_emissions_kg"), rel=1e-9)
        assert value(found, "fl_energy_joules_total", component=part) == joules(kwh)
        assert (kwh or 0.0) == pytest.approx(column_sum(rows, f"{part}_energy_kwh"), rel=1e-9)
    whole = totals.total_emissions_kg or 0.0
    assert whole == pytest.approx(column_sum(rows, "total_emissions_kg"), rel=1e-9)
    last = [row for row in rows if row["cumulative_emissions_kg"]][-1:]
    assert [float(row["cumulative_emissions_kg"]) for row in last] in ([], [whole])
    observed = value(found, "fl_client_emissions_co2eq_grams_sum") or 0.0
    assert observed == pytest.approx((totals.clients_emissions_kg or 0.0) * 1000, rel=1e-9)


# --- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [StoreError("sqlite:///x.db", "it is locked"), RuntimeError("a slip of ours")]
)
def test_a_store_that_fails_costs_one_scrape(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The page answers with the process's metrics, counts the error, and says so once."""
    registry = metrics_registry(EmissionsCollector(StoreThatFails(error), facts=Facts()))
    with caplog.at_level(logging.WARNING):
        pages = [generate_latest(registry).decode() for _ in range(3)]
    for number, page in enumerate(pages, start=1):
        assert f'fl_telemetry_errors_total{{stage="scrape"}} {number}.0' in page
        assert "process_start_time_seconds" in page
        assert "fl_run_active" not in page
    assert len(caplog.records) == 1


def test_the_process_tells_of_its_own_telemetry(store: Store) -> None:
    """Errors by stage, rounds not delivered, overhead and version are there without any run."""
    facts = Facts(errors={"store": 2}, undelivered_rounds=3, overhead_s=0.5)
    registry: CollectorRegistry = registry_of(store, facts=facts)
    assert registry.get_sample_value("fl_telemetry_errors_total", {"stage": "store"}) == 2
    assert registry.get_sample_value("fl_telemetry_errors_total", {"stage": "scrape"}) == 0
    assert registry.get_sample_value("fl_telemetry_undelivered_rounds") == 3
    assert registry.get_sample_value("fl_telemetry_overhead_seconds_total") == 0.5
    (build,) = [metric for metric in registry.collect() if metric.name == "fl_build"]
    assert build.samples[0].labels["version"]


def test_a_run_without_rounds_is_shown(store: Store) -> None:
    """A server that waits for its first client has a run already."""
    store.start_run(make_run(), OWNER, START)
    found = samples(registry_of(store))
    assert value(found, "fl_run_active") == 1.0
    assert value(found, "fl_run_round") == 0.0
    assert value(found, "fl_run_emissions_co2eq_grams") is None
