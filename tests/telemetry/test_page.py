"""The pages for people as they stand without a script, over real sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from telemetry.domain import Factors, StoredRun, utc_now
from telemetry.errors import StoreError
from telemetry.exporters import FORMATS
from telemetry.service.assets import ASSETS, CHARTS, FOLDER
from telemetry.service.guards import SECURITY_HEADERS
from telemetry.service.html import POLICY
from telemetry.service.pages.rounds import PER_PAGE
from telemetry.service.routes.page import RUNS_PER_PAGE
from telemetry.service.routes.static import FOR_A_YEAR
from telemetry.store.memory import InMemoryStore
from telemetry.testing import FACTORS, RUN_ID, START, make_round
from tests.telemetry.pages import HOSTILE, Shown, served, two_rounds
from tests.telemetry.test_http import TOKEN, assert_problem
from tests.telemetry.views import a_run

RUN = f"/runs/{RUN_ID}"


@pytest.fixture
def store() -> InMemoryStore:
    """A run with two rounds."""
    return two_rounds()


@pytest.fixture
def guarded(store: InMemoryStore) -> Iterator[tuple[httpx.Client, CollectorRegistry]]:
    """A server with a read token."""
    with served(store, read_token=TOKEN) as found:
        yield found


def shown(store: InMemoryStore, path: str = "/") -> Shown:
    """A page as it is without scripts."""
    with served(store) as (client, _):
        answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return Shown(answer.text)


# --- the list ------------------------------------------------------------------------------------


def test_its_figures_are_the_stores(store: InMemoryStore) -> None:
    """Grams, coverage and metrics behind the rounded text equal what was recorded, to the last bit."""
    page = shown(store)
    run = store.runs()[0]
    _, cells = page.rows["runs"]
    assert cells[0] == f"digits{run.run_id} · FedAvg"
    assert cells[1:3] == ["running", "2 of 5"]
    assert cells[4] == "50 %1 of 2 clients"
    assert cells[5] == "accuracy (evaluate) 0.8125loss (evaluate) 0.1"
    assert run.totals.total_emissions_kg is not None
    numbers = page.numbers["runs"][1]
    assert numbers[3:] == [
        [run.totals.total_emissions_kg * 1000.0],
        [50.0, 1.0, 2.0],
        [0.8125, 0.1],
    ]


@pytest.mark.parametrize(
    ("sensor", "note"),
    [
        ("model", "modelled"),
        ("constant", "modelled"),
        ("unknown", "modelled"),
        ("rapl", ""),
        ("mixed", ""),
    ],
)
def test_what_no_sensor_measured_says_so(sensor: Any, note: str) -> None:
    """A modelled figure carries its note, a measured one none; the run's page names the sensor."""
    factors = Factors(
        server_carbon_intensity_g_per_kwh=100.0, intensity_source="made up", server_sensor=sensor
    )
    store = InMemoryStore()
    a_run(store, make_round(1, factors=factors), factors=factors)
    assert shown(store).rows["runs"][1][3] == f"0.1 g{note}"
    said = "modelled; no power sensor" if note else f"server measured by {sensor}"
    assert said in shown(store, RUN).text


def test_estimates_and_the_budget_stand_below_the_measured_figure() -> None:
    """Each in its own line, and none in the figure; the share is of the budget that the run has."""
    factors = replace(FACTORS, server_sensor="rapl", network_kwh_per_gb=0.06, impute_missing=True)
    clients: dict[str, float | str] = {"a": 0.001, "b": 0.002, "c": 0.003, "d": "missing"}
    record = make_round(1, server_kwh=None, clients=clients, factors=factors)
    counted = tuple(replace(p, bytes_to=5_000_000, bytes_from=0) for p in record.participants)
    reports = (replace(record.reports[0], outlier=True), *record.reports[1:])
    record = record.model_copy(update={"participants": counted, "reports": reports})
    store = InMemoryStore()
    a_run(store, record, factors=factors, budget_kg=0.012)
    page = shown(store)
    assert page.rows["runs"][1][3] == (
        "6 g"
        "+ 0.2088 g estimated for communication (allocated, estimated)"
        "+ 2 g (1.2 to 2.8) imputed for silent clients"
        "50 % of 12 g budget"
    )
    assert page.numbers["runs"][1][3][0] == pytest.approx(6.0)
    page = shown(store, RUN)
    assert page.rows["reports"][-1] == ["Marked as oddcounted unchanged", "1"]
    assert page.rows["components"][-1] == ["Measured total", "6.000", ""]
    assert "0.2088 gallocated, by 0.06 kWh per GB" in page.text
    assert "2 gfrom 1.2 g to 2.8 g" in page.text


def test_without_tracking_no_figure_is_made_up() -> None:
    """An untracked run says so; what is unknown is a dash and not a zero."""
    store = InMemoryStore()
    a_run(store, make_round(1, server_kwh=None, laps=(), tracked=False), tracked=False)
    assert shown(store).rows["runs"][1][3:] == ["not tracked", "–", "–"]
    page = shown(store, RUN)
    assert "Emissions are not tracked in this run" in page.text
    assert not {"components", "outcomes"} & page.rows.keys()
    assert page.rows["rounds"][1] == ["1attempt 1", "completed", "60.00", "– of 0", *["–"] * 5]
    assert "CO2eq so far" not in page.text


def test_older_runs_are_on_further_pages() -> None:
    """The newest run comes first, and each run stands on one page."""
    store = InMemoryStore()
    for number in range(RUNS_PER_PAGE + 2):
        a_run(store, run_id=f"run-{number:02}", started_at=START.replace(minute=number))
    with served(store) as (client, _):
        first = client.get("/").text
        (older,) = re.findall(r'data-cursor href="([^"]+)"', first)
        second = client.get(older).text
        assert_problem(client.get("/?cursor=x"), 422)
    names = [row[0] for page in (first, second) for row in Shown(page).rows["runs"][1:]]
    wanted = [f"digitsrun-{number:02} · FedAvg" for number in reversed(range(RUNS_PER_PAGE + 2))]
    assert names == wanted
    assert "Newest runs" in second
    assert "data-cursor href=" in first
    assert 'data-cursor href=""' in second


def test_before_the_first_run_and_the_first_round_there_is_a_page() -> None:
    """Nothing recorded yet is said in words."""
    store = InMemoryStore()
    assert "No run yet" in shown(store).text
    a_run(store)
    assert shown(store).rows["runs"][1][2:] == ["0 of 5", "–", "–", "–"]
    assert "No round yet." in shown(store, RUN).text


# --- one run -------------------------------------------------------------------------------------


def test_a_runs_figures_are_the_stores(store: InMemoryStore) -> None:
    """Of each round, of both components, of every outcome: the exact figure behind the text."""
    page = shown(store, RUN)
    rows = list(store.rounds(RUN_ID))
    for found, row in zip(page.numbers["rounds"][1:], reversed(rows), strict=True):
        kilograms = (
            row.server_emissions_kg,
            row.clients_emissions_kg,
            row.total_emissions_kg,
            row.cumulative_emissions_kg,
        )
        assert found[5:9] == [[kg * 1000.0] for kg in kilograms if kg is not None]
        assert found[2:4] == [[row.duration_s], [row.reported, row.participants]]
        assert row.coverage is not None
        assert found[4] == [row.coverage * 100.0]
    heads = page.rows["rounds"][0]
    assert heads[:2] == ["Round", "Status"]
    assert heads[-2:] == ["accuracy (evaluate)", "loss (evaluate)"]
    assert [row[0] for row in page.rows["rounds"][1:]] == ["2attempt 1", "1attempt 1"]
    assert page.rows["rounds"][2][-2:] == ["–", "–"]
    totals = store.run(RUN_ID).totals
    assert totals.server_emissions_kg is not None
    assert totals.server_energy_kwh is not None
    assert page.numbers["components"][1][1:] == [
        [totals.server_emissions_kg * 1000.0],
        [totals.server_energy_kwh * 1000.0],
    ]
    assert [row[1] for row in page.rows["outcomes"][1:]] == ["4", "3", "1", "0", "0"]
    waiting = totals.phase_energy_kwh["wait"]
    assert waiting is not None
    assert page.numbers["phases"][3][1] == [waiting * 1000.0]
    assert page.rows["phases"][1][1] == "–"


def test_the_open_round_is_on_top_and_counts(store: InMemoryStore) -> None:
    """Its outcomes are not decided: they are dashes; what it has emitted is in the headline."""
    before = store.run(RUN_ID).totals.total_emissions_kg
    store.record_round(make_round(3, clients={"a": 0.5}, closed=False))
    page = shown(store, RUN)
    assert page.rows["rounds"][1][:5] == ["3attempt 1", "running", "60.00", "–", "–"]
    opened = [row for row in store.rounds(RUN_ID, closed_only=False) if not row.closed]
    assert before is not None
    assert opened[0].total_emissions_kg is not None
    total = before + opened[0].total_emissions_kg
    assert page.numbers["components"][-1][1] == [pytest.approx(total * 1000.0, rel=1e-12)]


def test_many_rounds_are_folded_into_pages() -> None:
    """The newest first, so many on a page; every round stands on one of them."""
    store = InMemoryStore()
    a_run(store, *(make_round(number) for number in range(1, 2 * PER_PAGE + 4)))
    numbers = []
    for number in (1, 2, 3):
        rows = shown(store, f"{RUN}?page={number}").rows["rounds"][1:]
        numbers += [int(row[0].removesuffix("attempt 1")) for row in rows]
        assert len(rows) <= PER_PAGE
    assert numbers == list(range(2 * PER_PAGE + 3, 0, -1))
    with served(store) as (client, _):
        assert_problem(client.get(f"{RUN}?page=0"), 422)
        assert "Page 2 of 3" in Shown(client.get(f"{RUN}?page=2").text).text


def test_a_run_that_has_ended_shows_its_seal_and_reason(store: InMemoryStore) -> None:
    """Sealed in the list, the whole seal on its page; none while it runs."""
    assert "sealed" not in shown(store).text
    assert "None yet: a run is sealed when it ends." in shown(store, RUN).text
    store.finish_run(RUN_ID, "failed", START, "nobody came")
    sha256_of_run = store.run(RUN_ID).sha256
    assert sha256_of_run is not None
    assert "· sealed" in shown(store).rows["runs"][1][0]
    page = shown(store, RUN).text
    assert sha256_of_run in page
    assert "nobody came" in page


def test_a_silent_server_and_a_pruned_run_are_told(store: InMemoryStore) -> None:
    """Whoever looks learns why nothing moves, and why there are no rounds."""
    with served(store, clock=lambda: START.replace(hour=23)) as (client, _):
        store.release(RUN_ID, _owner(store.run(RUN_ID)))
        assert "not heard of lately" in Shown(client.get("/").text).rows["runs"][1][1]
        assert "may have gone away" in Shown(client.get(RUN).text).text
    store.finish_run(RUN_ID, "completed", START)
    store.prune(utc_now(), START)
    page = shown(store, RUN)
    assert "Its rounds were deleted on 2026-01-02 03:04:05 UTC" in page.text
    assert page.rows["components"][-1][1] != "–"


def _owner(run: StoredRun) -> Any:
    assert run.owner is not None
    return run.owner


def test_the_method_and_every_format_are_there(store: InMemoryStore) -> None:
    """The statement as the interface gives it, the boundary, and a link for each export."""
    with served(store) as (client, _):
        account = client.get(f"/api/v1/runs/{RUN_ID}/method").json()
        answer = client.get(RUN)
        page = Shown(answer.text)
        assert account["statement"] in page.text
        for words in account["method"]["boundary"]["not_included"]:
            assert words in page.text
        links = [str(found.get("href")) for tag, found in page.tags if tag == "a"]
        exports = [link for link in links if "/export" in link]
        assert [link.partition("format=")[2] for link in exports] == list(FORMATS)
        for link in exports:
            assert client.get(link).status_code == 200


def test_a_run_that_is_not_there() -> None:
    """404 for one that never was, 410 for one that was deleted; a page for people, a problem for others."""
    store = InMemoryStore()
    a_run(store)
    store.finish_run(RUN_ID, "completed", START)
    store.delete_run(RUN_ID, START)
    with served(store) as (client, _):
        for path, status, words in (
            ("/runs/other", 404, "no run of this id"),
            (RUN, 410, "was deleted on 2026-01-02"),
        ):
            answer = client.get(path)
            assert answer.status_code == status
            assert words in Shown(answer.text).text
            assert_problem(client.get(path, headers={"Accept": "*/*"}), status)


def test_without_client_rows_the_page_has_its_figures() -> None:
    """They are sums, which are kept."""
    store = InMemoryStore()
    a_run(store, make_round(1, clients={"a": 0.5, "b": "missing"}, client_rows=False))
    assert shown(store).rows["runs"][1][4] == "50 %1 of 2 clients"
    assert shown(store, RUN).numbers["rounds"][1][6] == [500.0]


# --- what may not be in it -----------------------------------------------------------------------


def test_hostile_names_stay_text() -> None:
    """Names of runs, strategies, sources and metrics, from people and from clients, make no markup."""
    store = InMemoryStore()
    names: dict[str, Any] = {
        "run_name": HOSTILE,
        "strategy": HOSTILE,
        "privacy": HOSTILE,
        "metric_names": (HOSTILE,),
        "value_metric": HOSTILE,
        "tracker": HOSTILE,
        "factors": replace(FACTORS, country=HOSTILE, intensity_source=HOSTILE),
    }
    record = make_round(1, clients={"a": 0.25}, train_metrics={HOSTILE: 1.0}, reason=HOSTILE)
    a_run(store, record, **names)
    store.finish_run(RUN_ID, "failed", START, HOSTILE)
    for path in ("/", RUN):
        with served(store) as (client, _):
            text = client.get(path).text
        page = Shown(text)
        assert "img" not in {tag for tag, _ in page.tags}
        scripts = [found["src"] for tag, found in page.tags if tag == "script"]
        assert all(str(source).startswith("/static/") for source in scripts)
        assert not [name for _, found in page.tags for name in found if name.startswith("on")]
        assert HOSTILE in page.text
        assert HOSTILE not in text
    assert page.rows["rounds"][0][-1] == f"{HOSTILE} (train)"
    assert page.rows["rounds"][1][1] == f"completed{HOSTILE}"


def test_nothing_of_a_client_is_on_it(store: InMemoryStore) -> None:
    """Neither node ids nor pseudonyms are shown."""
    record = store.round(RUN_ID, 1)
    with served(store) as (client, _):
        pages = client.get("/").text + client.get(RUN).text
    assert not [p.client for p in record.participants if p.client in pages]


def test_a_store_that_fails_is_a_page_that_tries_again(
    store: InMemoryStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inside goes to the log, once; the browser comes back by itself."""

    def failing(*_: object, **__: object) -> Any:
        raise StoreError("memory://", "a secret of the inside")

    with served(store) as (client, _):
        monkeypatch.setattr(store, "page_of_runs", failing)
        monkeypatch.setattr(store, "run", failing)
        answers = [client.get(path) for path in ("/", RUN, "/")]
    for answer in answers:
        assert answer.status_code == 503
        assert "secret" not in answer.text
        assert 'http-equiv="refresh"' in answer.text
    assert caplog.text.count("a secret of the inside") == 1


# --- what a browser may do with it ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", RUN, "/login", "/runs/other"])
def test_headers_and_policy(guarded: tuple[httpx.Client, CollectorRegistry], path: str) -> None:
    """Files of ours and nothing inline: neither scripts, nor styles, nor handlers."""
    client, _ = guarded
    headers = {} if path == "/login" else {"Authorization": f"Bearer {TOKEN}"}
    answer = client.get(path, headers=headers)
    assert answer.status_code == (404 if path == "/runs/other" else 200)
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    sources = [rule.split()[1:] for rule in POLICY.split("; ") if "-src" in rule.split()[0]]
    assert {source for rule in sources for source in rule} == {"'none'", "'self'"}
    for name, wanted in SECURITY_HEADERS.items():
        if name != "Content-Security-Policy":
            assert answer.headers[name] == wanted
    page = Shown(answer.text)
    for tag, found in page.tags:
        assert not {"style", "onclick", "onload"} & set(found)
        assert tag != "style"
        if tag == "script":
            assert str(found["src"]).startswith(f"/static/{ASSETS.version}/")
        outside = str(found.get("href") or found.get("src") or found.get("action") or "/")
        assert outside[0] in "/#?"
    # Reloads itself only where no script can renew it.
    assert ('http-equiv="refresh"' in answer.text) is (path in ("/", RUN))
    assert answer.text.count('<noscript><meta http-equiv="refresh"') == (path in ("/", RUN))


def test_files_are_kept_for_a_year_under_an_address_that_changes_with_them(
    guarded: tuple[httpx.Client, CollectorRegistry],
) -> None:
    """Each is served whole to everybody, for its version only, and nothing else of the folder is."""
    client, _ = guarded
    for name in ("page.css", "run.js", "icon.svg", CHARTS):
        answer = client.get(ASSETS.url(name))
        assert answer.status_code == 200
        assert answer.content == (FOLDER / name).read_bytes()
        assert answer.headers["cache-control"] == FOR_A_YEAR
        assert answer.headers["x-content-type-options"] == "nosniff"
    kinds = {ASSETS.url("page.css"): "text/css", ASSETS.url("run.js"): "text/javascript"}
    for url, kind in kinds.items():
        assert client.get(url).headers["content-type"].startswith(kind)
    other = ASSETS.url("page.css").replace(ASSETS.version, "0" * 16)
    for url in (other, *(f"/static/{ASSETS.version}/{name}" for name in ("README.md", "vendor/SHA256SUMS", "../html.py", "%2e%2e/html.py"))):  # fmt: skip
        assert client.get(url).status_code == 404


def test_the_version_is_that_of_every_file(tmp_path: Any) -> None:
    """One changed character in one file is another address for all."""
    from telemetry.service.assets import Assets

    (tmp_path / "a.js").write_text("1")
    (tmp_path / "b.css").write_text("2")
    before = Assets(tmp_path).version
    assert Assets(tmp_path).version == before
    (tmp_path / "b.css").write_text("3")
    assert Assets(tmp_path).version != before


def test_the_charting_library_is_the_one_that_was_taken() -> None:
    """Byte for byte, by the checksum beside it, and with its licences."""
    folder = FOLDER / "vendor"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in map(str.split, lines)}
    assert listed.keys() == {path.name for path in folder.glob("*.js")}
    for name, wanted in listed.items():
        assert sha256((folder / name).read_bytes()).hexdigest() == wanted
    readme = (folder / "README.md").read_text()
    (version,) = re.findall(r"^# Chart\.js ([\d.]+)$", readme, re.MULTILINE)
    assert f"Chart.js v{version}" in (FOLDER / CHARTS).read_text()[:200]
    for name in ("LICENSE.chart.js.md", "LICENSE.kurkle-color.md"):
        assert "MIT License" in (folder / name).read_text()
