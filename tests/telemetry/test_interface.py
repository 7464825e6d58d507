"""What programs read of runs, from an FL server and from a service: the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import httpx
import pytest

from telemetry.domain import GRAMS_PER_KG
from telemetry.exporters import FORMATS
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.service.server import EmbeddedHttp
from telemetry.service.service import create_service
from telemetry.statement import statement
from telemetry.store import open_store
from telemetry.store.base import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, make_lap, make_round
from tests.telemetry.pages import served
from tests.telemetry.test_http import TOKEN, assert_problem
from tests.telemetry.views import a_run, exported, registry_of, samples, value

RUNS = "/api/v1/runs"
RUN = f"{RUNS}/{RUN_ID}"
CLIENTS: dict[str, float | str] = {"a": 0.25, "b": "missing", "c": "negative"}
READ = (RUNS, RUN, f"{RUN}/rounds", f"{RUN}/clients", f"{RUN}/method", f"{RUN}/export")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A run with a set-up, three closed rounds and an open one."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("sqlite_url")
    store = open_store(url)
    a_run(
        store,
        make_round(0, laps=(make_lap(0.002, phase="setup"),)),
        *(
            make_round(n, clients=CLIENTS, evaluate_metrics={"accuracy": 0.2 * n})
            for n in (1, 2, 3)
        ),
        make_round(4, clients={"a": 0.5}, closed=False),
        budget_kg=2.0,
    )
    yield store
    store.close()


@pytest.fixture
def http(store: Store) -> Iterator[httpx.Client]:
    """A client of an FL server over it."""
    with served(store) as (client, _):
        client.headers["Accept"] = "application/json"
        yield client


def test_an_fl_server_answers_as_a_service_does(store: Store, http: httpx.Client):
    """Every route that reads, item by item; only who is alive is known better by the server itself."""
    from fastapi.testclient import TestClient

    with TestClient(create_service(store), "http://127.0.0.1") as service:
        for path in READ:
            answer, other = http.get(path), service.get(path)
            assert answer.status_code == other.status_code == 200
            assert answer.headers["content-type"] == other.headers["content-type"]
            if path.endswith(("/runs", RUN_ID)):
                found, wanted = ([a.json()] for a in (answer, other))
                for run, same in zip(
                    found[0].get("runs", found), wanted[0].get("runs", wanted), strict=True
                ):
                    assert (run["so_far"].pop("active"), same["so_far"].pop("active")) == (
                        True,
                        False,
                    )
                    assert (run["so_far"].pop("silent"), same["so_far"].pop("silent")) == (
                        False,
                        True,
                    )
                assert found == wanted
            else:
                assert answer.content == other.content
    for name in FORMATS:
        answer = http.get(f"{RUN}/export", params={"format": name})
        assert answer.text == exported(store, name)
    assert http.put(RUN).status_code == http.post(f"{RUN}/rounds").status_code == 405


def test_everything_is_behind_the_read_token(store: Store):
    """By the header or by the cookie of a session; and an address with a token in it opens nothing."""
    with served(store, read_token=TOKEN) as (client, registry):
        client.headers["Accept"] = "application/json"
        for path in READ:
            assert_problem(client.get(path), 401)
            assert_problem(client.get(path, params={"token": TOKEN}), 400)
        assert registry.get_sample_value("fl_auth_failures_total") == 2 * len(READ)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert all(client.get(path, headers=bearer).status_code == 200 for path in READ)
        client.post("/login", data={"token": TOKEN})
        assert all(client.get(path).status_code == 200 for path in READ)


def test_what_has_not_changed_is_not_sent_again(store: Store, http: httpx.Client):
    """The tag of an answer brings a 304 without a body until something in it is other."""
    for path in (RUNS, RUN, f"{RUN}/rounds", f"{RUN}/clients", f"{RUN}/method"):
        answer = http.get(path)
        tag = answer.headers["etag"]
        for known in (tag, f'"other", {tag}'):
            again = http.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert http.get(path, headers={"If-None-Match": '"other"'}).content == answer.content
    tags = {path: http.get(path).headers["etag"] for path in READ[:-1]}
    assert store.record_round(make_round(4, clients={"a": 0.5}, revision=1))
    for path, tag in tags.items():
        changed = http.get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200, path
        assert changed.headers["etag"] != tag


def test_rounds_from_a_number_on(http: httpx.Client):
    """Those that are not known yet, page by page; anything but a round's number is refused."""
    whole = http.get(f"{RUN}/rounds").json()["rounds"]
    assert [row["round"] for row in whole] == [0, 1, 2, 3, 4]
    for start in range(7):
        found = http.get(f"{RUN}/rounds", params={"from": start}).json()
        assert found == {"rounds": whole[start:], "next": None}
    first = http.get(f"{RUN}/rounds", params={"from": 2, "limit": 2}).json()
    rest = http.get(f"{RUN}/rounds", params={"from": 2, "cursor": first["next"]}).json()
    assert first["rounds"] + rest["rounds"] == whole[2:]
    for wrong in ("-1", "1.5", "x", str(2**31)):
        assert_problem(http.get(f"{RUN}/rounds", params={"from": wrong}), 422)


def test_how_a_run_stands_counts_the_open_round(store: Store, http: httpx.Client):
    """What /metrics shows of the run at the same moment, in the interface's units."""
    found = http.get(RUN).json()["so_far"]
    metrics = samples(registry_of(store))
    grams = value(metrics, "fl_run_emissions_co2eq_grams")
    assert grams is not None
    assert found["emissions_kg"] * GRAMS_PER_KG == pytest.approx(grams, rel=1e-12)
    assert found["budget_used_ratio"] == value(metrics, "fl_emissions_budget_used_ratio")
    assert found["coverage"] == value(metrics, "fl_emissions_coverage_ratio")
    assert (found["round"], found["rounds_done"], found["active"]) == (4, 3, True)
    rows = list(store.rounds(RUN_ID, closed_only=False))
    parts = {"server_emissions_kg": 0.0, "clients_emissions_kg": 0.0, "server_energy_kwh": 0.0}
    for name in parts:
        total = sum(getattr(row, name) or 0.0 for row in rows)
        assert found[name] == pytest.approx(total, rel=1e-12)
    assert found["phase_energy_kwh"]["setup"] == 0.002
    assert found["phase_energy_kwh"]["wait"] == pytest.approx(0.004, rel=1e-12)
    assert found["phase_energy_kwh"]["idle"] is None
    assert found["metrics"] == [
        {"name": "accuracy", "split": "evaluate", "value": pytest.approx(0.6)}
    ]
    assert (found["reported"], found["participants"]) == (1, 3)
    # The sums of the closed rounds stand beside it, unchanged.
    closed = http.get(RUN).json()["totals_of_closed_rounds"]
    assert closed["total_emissions_kg"] == store.run(RUN_ID).totals.total_emissions_kg


def test_the_account_is_that_of_the_command_line_and_the_export(store: Store, http: httpx.Client):
    """The statement, the members of the json export, and the best value with its price."""
    import json

    found = http.get(f"{RUN}/method").json()
    assert found["statement"] == statement(store.run(RUN_ID), store.rounds(RUN_ID))
    assert found["method"] == json.loads(exported(store, "json"))["method"]
    last = list(store.rounds(RUN_ID))[-1]
    assert last.total_emissions_kg is not None
    assert found["best"] == {
        "metric": "accuracy",
        "split": "evaluate",
        "value": pytest.approx(0.6),
        "round": 3,
        "spent_kg": last.cumulative_emissions_kg,
        "average_g_per_point": pytest.approx(
            1000.0 * 2 * last.total_emissions_kg / 40.0, rel=1e-9
        ),
    }  # fmt: skip


def test_nothing_is_made_up_of_a_run_without_rounds_or_tracking():
    """Unknown figures are null; what a run has none of is an empty list."""
    store = InMemoryStore()
    a_run(store)
    a_run(
        store,
        make_round(1, run_id="untracked", server_kwh=None, laps=(), tracked=False),
        run_id="untracked",
        tracked=False,
    )
    with served(store) as (client, _):
        for run_id, done in ((RUN_ID, 0), ("untracked", 1)):
            found = client.get(f"{RUNS}/{run_id}").json()["so_far"]
            figures = {name: part for name, part in found.items() if name.endswith(("_kg", "_kwh"))}
            phases = figures.pop("phase_energy_kwh")
            assert set(figures.values()) | set(phases.values()) == {None}
            assert (found["coverage"], found["budget_used_ratio"]) == (None, None)
            assert (found["rounds_done"], found["metrics"]) == (done, [])
            account = client.get(f"{RUNS}/{run_id}/method").json()
            assert account["best"] is None
        assert_problem(client.get(f"{RUNS}/other/method"), 404)


def test_neither_connections_nor_machines_are_told(store: Store, http: httpx.Client):
    """Clients appear under their pseudonyms, in one answer only."""
    record = store.round(RUN_ID, 1)
    text = "".join(http.get(path).text for path in READ[:-1])
    assert "host-of-" not in text
    assert "node_id" not in text
    assert asdict(OWNER)["token"] not in text
    pseudonyms = {p.client for p in record.participants}
    elsewhere = "".join(http.get(path).text for path in READ[:-1] if "clients" not in path)
    assert not [name for name in pseudonyms if name in elsewhere]


def test_without_a_store_there_is_neither_interface_nor_page():
    """An application for /metrics alone stays that."""
    from telemetry.service.app import create_app

    app = create_app(metrics_registry(EmissionsCollector(InMemoryStore(), OWNER)))
    with EmbeddedHttp(app) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        for path in (*READ, "/", "/login", "/api/v1/openapi.json"):
            assert_problem(client.get(path), 404)
