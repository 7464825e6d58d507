"""The page for people and the way in to it, over real sockets."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from telemetry.domain import Factors
from telemetry.errors import StoreError
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.service.app import create_app
from telemetry.service.guards import SECURITY_HEADERS
from telemetry.service.routes.page import LAST_ROUNDS, Views
from telemetry.service.server import EmbeddedHttp
from telemetry.service.sessions import COOKIE, LIFETIME_S, MAX_SESSIONS, Sessions
from telemetry.store.memory import InMemoryStore
from telemetry.testing import FACTORS, OWNER, START, ManualClock, make_round
from tests.telemetry.test_http import TOKEN, assert_problem
from tests.telemetry.views import a_run

BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
HOSTILE = "<script>alert('1')</script>\"><img src=x onerror=1>&amp;"


class Tables(HTMLParser):
    """The text of each table's cells, the numbers behind the figures, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.numbers: dict[str, list[list[list[float]]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._table = ""
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes it."""
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "table":
            self._table = str(found["id"])
            self.rows[self._table], self.numbers[self._table] = [], []
        elif tag == "tr":
            self.rows[self._table].append([])
            self.numbers[self._table].append([])
        elif tag in ("th", "td"):
            self._in_cell = True
            self.rows[self._table][-1].append("")
            self.numbers[self._table][-1].append([])
        elif tag == "data":
            self.numbers[self._table][-1][-1].append(float(str(found["value"])))

    def handle_endtag(self, tag: str) -> None:
        """Notes it."""
        if tag in ("th", "td"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        """Notes it."""
        if self._in_cell:
            self.rows[self._table][-1][-1] += data


def collector_of(store: InMemoryStore) -> EmissionsCollector:
    """As an FL server has it, at the moment `START`."""
    return EmissionsCollector(store, OWNER, clock=lambda: START)


@contextmanager
def served(
    store: InMemoryStore, **options: Any
) -> Iterator[tuple[httpx.Client, CollectorRegistry]]:
    """A client without cookies of a server with a page over that store, and the server's registry."""
    collector = collector_of(store)
    registry = metrics_registry(collector)
    views: Views = options.pop("page", collector.views)
    app = create_app(registry, page=views, **options)
    with (
        EmbeddedHttp(app) as server,
        httpx.Client(base_url=server.url, trust_env=False, headers=BROWSER) as client,
    ):
        yield client, registry


@pytest.fixture
def store() -> InMemoryStore:
    """A run with two rounds."""
    store = InMemoryStore()
    metrics = {"accuracy": 0.8125, "loss": 0.1}
    a_run(
        store,
        make_round(1, clients={"a": 0.25, "b": 0.125}),
        make_round(2, clients={"a": 0.5, "b": "missing"}, evaluate_metrics=metrics),
    )
    return store


@pytest.fixture
def guarded(store: InMemoryStore) -> Iterator[tuple[httpx.Client, CollectorRegistry]]:
    """A server with a read token."""
    with served(store, read_token=TOKEN) as found:
        yield found


def refusals(registry: CollectorRegistry) -> float:
    """How often somebody was refused."""
    return registry.get_sample_value("fl_auth_failures_total") or 0.0


# --- what it shows -----------------------------------------------------------------------------


def test_its_figures_are_the_stores(store: InMemoryStore) -> None:
    """Grams, coverage and metrics behind the rounded text equal what was recorded, to the last bit."""
    with served(store) as (client, _):
        answer = client.get("/")
    assert answer.status_code == 200
    tables = Tables(answer.text)
    run = store.runs()[0]
    rows = list(store.rounds(run.run_id))
    _, cells = tables.rows["runs"]
    assert cells[0].startswith("digits")
    assert run.run_id in cells[0]
    assert cells[1:3] == ["running", "2 of 5"]
    assert cells[4] == "50% (1 of 2)"
    assert cells[5] == "accuracy (evaluate) 0.8125loss (evaluate) 0.1"
    assert run.totals.total_emissions_kg is not None
    numbers = tables.numbers["runs"][1]
    assert numbers[3:] == [[run.totals.total_emissions_kg * 1000.0], [0.5], [0.8125, 0.1]]
    assert [row[0] for row in tables.rows["rounds"]] == ["Round", "2", "1"]
    for found, row in zip(tables.numbers["rounds"][1:], reversed(rows), strict=True):
        kilograms = (row.server_emissions_kg, row.clients_emissions_kg, row.total_emissions_kg)
        assert found[4:7] == [[kg * 1000.0] for kg in kilograms if kg is not None]
        assert found[2] == [row.duration_s]
    assert tables.rows["rounds"][2][7:] == ["–", "–"]


def test_a_run_that_has_ended_shows_its_seal(store: InMemoryStore) -> None:
    """Its beginning in the list, the whole of it with the newest run's rounds; none while it runs."""
    with served(store) as (client, _):
        assert "ealed" not in client.get("/").text
        run_id = store.runs()[0].run_id
        store.finish_run(run_id, "completed", START)
        page = client.get("/").text
    sha256 = store.run(run_id).sha256
    assert sha256 is not None
    assert f"sealed {sha256[:12]}" in Tables(page).rows["runs"][1][0]
    assert f"SHA-256: {sha256}" in page


def test_without_client_rows_the_page_has_its_figures() -> None:
    """They are sums, which are kept."""
    store = InMemoryStore()
    a_run(store, make_round(1, clients={"a": 0.5, "b": "missing"}, client_rows=False))
    with served(store) as (client, _):
        tables = Tables(client.get("/").text)
    assert tables.rows["runs"][1][4] == "50% (1 of 2)"
    assert tables.numbers["rounds"][1][5] == [500.0]


@pytest.mark.parametrize(
    ("sensor", "note"),
    [
        ("model", "modelled (model)"),
        ("constant", "modelled (constant)"),
        ("unknown", "modelled (unknown)"),
        ("rapl", ""),
        ("mixed", ""),
    ],
)
def test_what_no_sensor_measured_says_so(sensor: Any, note: str) -> None:
    """A modelled figure carries its note, a measured one none."""
    factors = Factors(
        server_carbon_intensity_g_per_kwh=100.0, intensity_source="made up", server_sensor=sensor
    )
    store = InMemoryStore()
    a_run(store, make_round(1, factors=factors), factors=factors)
    with served(store) as (client, _):
        grams = Tables(client.get("/").text).rows["runs"][1][3]
    assert grams == f"0.1{note}"


def test_estimates_odd_reports_and_the_budget_stand_below_the_measured_figure() -> None:
    """Each in its own line, and none in the figure; the share is of the budget that the run has."""
    factors = replace(FACTORS, server_sensor="rapl", network_kwh_per_gb=0.06, impute_missing=True)
    clients: dict[str, float | str] = {"a": 0.001, "b": 0.002, "c": 0.003, "d": "missing"}
    record = make_round(1, server_kwh=None, clients=clients, factors=factors)
    counted = tuple(replace(p, bytes_to=5_000_000, bytes_from=0) for p in record.participants)
    reports = (replace(record.reports[0], outlier=True), *record.reports[1:])
    record = record.model_copy(update={"participants": counted, "reports": reports})
    store = InMemoryStore()
    a_run(store, record, factors=factors, budget_kg=0.012)
    with served(store) as (client, _):
        tables = Tables(client.get("/").text)
    cell = tables.rows["runs"][1][3]
    assert cell == (
        "6"
        "+ 0.2088 g estimated for communication (allocated, estimated)"
        "+ 2 g (1.2 to 2.8) imputed for silent clients"
        "1 report looks odd"
        "budget 12 g: 50 % used"
    )
    assert tables.numbers["runs"][1][3][0] == pytest.approx(6.0)


def test_without_tracking_no_figure_is_made_up() -> None:
    """An untracked run says so; what is unknown is a dash and not a zero."""
    store = InMemoryStore()
    a_run(store, make_round(1, server_kwh=None, laps=(), tracked=False), tracked=False)
    with served(store) as (client, _):
        cells = Tables(client.get("/").text).rows["runs"][1]
    assert cells[3:] == ["not tracked", "–", "–"]


def test_the_newest_run_comes_first_with_its_last_rounds_only() -> None:
    """An older run is one line; of many rounds the last ones are shown, the open one on top."""
    store = InMemoryStore()
    a_run(store, run_id="older", run_name="older")
    rounds = [make_round(number, run_id="newer") for number in range(1, LAST_ROUNDS + 5)]
    opened = make_round(LAST_ROUNDS + 5, run_id="newer", closed=False)
    later = {"run_id": "newer", "run_name": "newer", "started_at": START.replace(year=2027)}
    a_run(store, *rounds, opened, **later)
    with served(store) as (client, _):
        tables = Tables(client.get("/").text)
    assert [row[0][:5] for row in tables.rows["runs"][1:]] == ["newer", "older"]
    shown = [row[:2] for row in tables.rows["rounds"][1:]]
    assert len(shown) == LAST_ROUNDS
    assert shown[0] == [str(LAST_ROUNDS + 5), "running"]
    assert shown[1] == [str(LAST_ROUNDS + 4), "completed"]


def test_before_the_first_run_and_the_first_round_there_is_a_page() -> None:
    """Nothing recorded yet is said in words."""
    store = InMemoryStore()
    with served(store) as (client, _):
        assert "No run yet." in client.get("/").text
        a_run(store)
        assert "No round yet." in client.get("/").text


def test_hostile_names_stay_text() -> None:
    """Names of runs, strategies and metrics, from people and from clients, make no markup."""
    store = InMemoryStore()
    names: dict[str, Any] = {
        "run_name": HOSTILE,
        "strategy": HOSTILE,
        "metric_names": (HOSTILE,),
    }
    a_run(store, make_round(1, clients={"a": 0.25}, train_metrics={HOSTILE: 1.0}), **names)
    with served(store) as (client, _):
        page = client.get("/").text
    tables = Tables(page)
    assert not {"script", "img"} & {tag for tag, _ in tables.tags}
    assert not [name for _, found in tables.tags for name in found if name.startswith("on")]
    assert tables.rows["runs"][1][0].startswith(HOSTILE)
    assert f"{HOSTILE} (train)" in tables.rows["rounds"][0]
    assert HOSTILE not in page


def test_nothing_of_a_client_is_on_it(store: InMemoryStore) -> None:
    """Neither node ids nor pseudonyms are shown."""
    with served(store) as (client, _):
        page = client.get("/").text
    record = store.round(store.runs()[0].run_id, 1)
    assert not [p.client for p in record.participants if p.client in page]


def test_a_store_that_fails_is_a_page_that_tries_again(
    store: InMemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The inside goes to the log, once; the browser comes back by itself."""

    def failing() -> list[Any]:
        raise StoreError("memory://", "a secret of the inside")

    with served(store, page=failing) as (client, _):
        answers = [client.get("/") for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 503
        assert "secret" not in answer.text
        assert 'http-equiv="refresh"' in answer.text
    assert caplog.text.count("a secret of the inside") == 1


# --- what a browser may do with it ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/login"])
def test_headers_and_policy(guarded: tuple[httpx.Client, CollectorRegistry], path: str) -> None:
    """The policy allows the one style on the page by its hash, a form to ourselves, and no more."""
    client, _ = guarded
    answer = client.get(
        path, headers={"Accept": "*/*", "Authorization": f"Bearer {TOKEN}"} if path == "/" else {}
    )
    assert answer.status_code == 200
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    for name, wanted in SECURITY_HEADERS.items():
        if name != "Content-Security-Policy":
            assert answer.headers[name] == wanted
    tables = Tables(answer.text)
    assert not [found for _, found in tables.tags if {"src", "href", "style"} & set(found)]
    assert "prefers-color-scheme: dark" in style
    refresh = ("meta", {"http-equiv": "refresh", "content": "10"})
    assert (refresh in tables.tags) is (path == "/")


# --- the way in ----------------------------------------------------------------------------------


def test_login(guarded: tuple[httpx.Client, CollectorRegistry]) -> None:
    """To the form, with the token to the page, and from then on by a cookie that is not the token."""
    client, registry = guarded
    sent = client.get("/")
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    form = Tables(client.get("/login").text)
    fields = [found for tag, found in form.tags if tag == "input"]
    assert [(found["type"], found["name"]) for found in fields] == [("password", "token")]
    assert ("form", {"method": "post", "action": "/login"}) in form.tags
    answer = client.post("/login", data={"token": f" {TOKEN}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    value, *flags = answer.headers["set-cookie"].split("; ")
    assert value.startswith(f"{COOKIE}=")
    assert len(value) > 40
    assert TOKEN not in value
    assert {flag.lower() for flag in flags} == {
        "httponly", "samesite=strict", "path=/", f"max-age={LIFETIME_S}",
    }  # fmt: skip
    assert client.get("/").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert client.get("/login").headers["location"] == "/"
    assert refusals(registry) == 0


@pytest.mark.parametrize(
    ("forwarded", "secure"), [("https", True), ("HTTPS, http", True), ("http", False), ("", False)]
)
def test_the_cookie_of_an_https_page_stays_on_https(
    guarded: tuple[httpx.Client, CollectorRegistry], forwarded: str, secure: bool
) -> None:
    """As the proxy before the server says."""
    headers = {"X-Forwarded-Proto": forwarded}
    answer = guarded[0].post("/login", data={"token": TOKEN}, headers=headers)
    assert answer.status_code == 303
    assert ("; Secure" in answer.headers["set-cookie"]) is secure


@pytest.mark.parametrize(
    "body", [f"token={TOKEN}x", f"token={TOKEN[:-1]}", "token=", "", f"other={TOKEN}", "token=%ff"]
)
def test_a_wrong_token_is_the_form_again(
    guarded: tuple[httpx.Client, CollectorRegistry], body: str
) -> None:
    """401, no cookie, counted with the other refusals, and nothing of the input comes back."""
    client, registry = guarded
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/login", content=body, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "set-cookie" not in answer.headers
    assert "not the read token" in answer.text
    assert TOKEN[:-1] not in answer.text
    assert refusals(registry) == 1
    assert client.get("/").status_code == 303


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (f"token={TOKEN}&x=" + 4096 * "y", "application/x-www-form-urlencoded", 413),
        (f'{{"token": "{TOKEN}"}}', "application/json", 415),
        ("&".join(f"a{n}=b" for n in range(20)), "application/x-www-form-urlencoded", 400),
        ("token=é", "application/x-www-form-urlencoded", 400),
    ],
)
def test_other_bodies_are_refused(
    guarded: tuple[httpx.Client, CollectorRegistry], content: str, kind: str, status: int
) -> None:
    """Too long, no form, too many fields, or not ASCII: a problem document and no cookie."""
    client, _ = guarded
    headers = {"Content-Type": kind}
    answer = client.post("/login", content=content.encode(), headers=headers)
    assert_problem(answer, status)
    chunked = client.post("/login", content=iter([content.encode()]), headers=headers)
    assert_problem(chunked, status)
    assert not client.cookies


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/login"), ("POST", "/login")])
def test_a_token_in_an_address_is_refused(
    guarded: tuple[httpx.Client, CollectorRegistry], method: str, path: str
) -> None:
    """The right token in the address opens nothing, and the answer says where it belongs."""
    client, registry = guarded
    answer = client.request(method, path, params={"token": TOKEN})
    assert "Authorization" in str(assert_problem(answer, 400)["detail"])
    assert TOKEN not in answer.text
    assert refusals(registry) == 1


@pytest.mark.parametrize(
    "headers",
    [{"Accept": "*/*"}, {"Authorization": "Bearer wrong"}, {"Accept": "application/json"}],
)
def test_programs_are_told_what_is_needed(
    guarded: tuple[httpx.Client, CollectorRegistry], headers: dict[str, str]
) -> None:
    """Who is no browser, or shows a wrong token, gets the problem and no form."""
    client, registry = guarded
    assert_problem(client.get("/", headers=headers), 401)
    assert refusals(registry) == 1
    right = client.get("/", headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == 200


def test_a_made_up_cookie_opens_nothing(guarded: tuple[httpx.Client, CollectorRegistry]) -> None:
    """Neither a guess nor the token itself is a session."""
    client, _ = guarded
    for value in ("guess", TOKEN, ""):
        cookie = {"Cookie": f"{COOKIE}={value}"}
        assert client.get("/", headers=cookie).status_code == 303
        assert client.get("/metrics", headers=cookie).status_code == 401


def test_without_a_token_there_is_nothing_to_log_in_to(store: InMemoryStore) -> None:
    """The page is open on this machine, and both ways to log in lead to it."""
    with served(store) as (client, _):
        assert client.get("/").status_code == 200
        for answer in (client.get("/login"), client.post("/login", data={"token": "x"})):
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            assert "set-cookie" not in answer.headers


def test_a_session_ends_after_twelve_hours() -> None:
    """Its id opens nothing from then on, and no more than so many are kept."""
    clock = ManualClock()
    sessions = Sessions(clock.time)
    first = sessions.open()
    clock.advance(LIFETIME_S - 1)
    assert sessions.holds(first)
    clock.advance(1)
    assert not sessions.holds(first)
    assert not sessions.holds(None)
    second, *others = [sessions.open() for _ in range(MAX_SESSIONS + 1)]
    assert not sessions.holds(second)
    assert all(map(sessions.holds, others))
