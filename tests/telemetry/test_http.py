"""The HTTP application and the server that embeds it, over real sockets."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from telemetry.errors import HttpAddressError, OpenAddress
from telemetry.service.app import create_app
from telemetry.service.guards import SECURITY_HEADERS, host_name, is_loopback
from telemetry.service.server import EmbeddedHttp
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_round
from telemetry.writer import Failures
from tests.telemetry.views import a_run, registry_of
from tests.tools import has_ipv6_loopback

TOKEN = "flt_made-up-token"


class Gate(Collector):
    """A collector that waits in the middle of a scrape until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def collect(self) -> Iterable[Metric]:
        """Waits."""
        self.entered.set()
        self.open.wait(10)
        yield GaugeMetricFamily("gate", "A gate.", 1)


class Broken(Collector):
    """A collector that raises."""

    def collect(self) -> Iterable[Metric]:
        """Raises."""
        raise RuntimeError("a secret of the inside")


def registry_of_a_run() -> CollectorRegistry:
    """A registry over a run with one round."""
    store = InMemoryStore()
    a_run(store, make_round(1, clients={"a": 0.25}))
    return registry_of(store)


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of one's own."""
    return registry_of_a_run()


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[httpx.Client, CollectorRegistry]]:
    """A client of an application with a token, and what it serves."""
    registry = registry_of_a_run()
    with (
        EmbeddedHttp(create_app(registry, read_token=TOKEN)) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client, registry


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    """A client of a served application without a token."""
    app = create_app(registry_of_a_run(), allowed_hosts=["fl.example.org"])
    with (
        EmbeddedHttp(app) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        yield client


def assert_problem(answer: httpx.Response, status: int) -> dict[str, object]:
    """The answer is a problem document (RFC 9457) of that status."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = answer.json()
    assert found["status"] == status
    assert found["type"] == "about:blank"
    assert found["title"]
    assert found["detail"]
    return found


# --- the application ---------------------------------------------------------------------------


def test_metrics_are_served(http: httpx.Client) -> None:
    """A plain scrape gets the text format."""
    answer = http.get("/metrics", headers={"Accept": "*/*"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'fl_emissions_co2eq_grams_total{component="clients"' in answer.text


def test_openmetrics_for_who_asks(http: httpx.Client) -> None:
    """Prometheus asks for OpenMetrics and gets it, with its end mark."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    answer = http.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_pages_are_compressed_when_asked(http: httpx.Client, encoding: str) -> None:
    """gzip is used for who accepts it, and for nobody else."""
    answer = http.get("/metrics", headers={"Accept-Encoding": encoding})
    assert answer.headers.get("content-encoding", "identity") == encoding
    assert "fl_run_info" in answer.text


def test_health(http: httpx.Client) -> None:
    """The process says that it answers."""
    answer = http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/", "/metrics/", "/docs", "/openapi.json", "/redoc", "/api/v1"])
def test_nothing_else_is_there(http: httpx.Client, path: str) -> None:
    """Other paths, the framework's pages among them, are problem documents that name the path."""
    assert path in str(assert_problem(http.get(path), 404)["detail"])


def test_other_methods_are_refused(http: httpx.Client) -> None:
    """Nothing can be written, and the answer says what is possible."""
    answer = http.post("/metrics")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/nothing"])
def test_security_headers(http: httpx.Client, path: str) -> None:
    """Each answer, errors included, tells browsers to do nothing with it."""
    answer = http.get(path)
    for name, wanted in SECURITY_HEADERS.items():
        assert answer.headers[name] == wanted


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:80", "FL.example.org.:9464"])
def test_our_names_are_answered(http: httpx.Client, host: str) -> None:
    """Loopback names and those allowed, with any port, in any case."""
    assert http.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example.com", "localhost.evil.example", "", "[::2]"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz"])
def test_other_names_are_refused(http: httpx.Client, host: str, path: str) -> None:
    """A page that rebinds its own name to this machine reads nothing (DNS rebinding)."""
    assert_problem(http.get(path, headers={"Host": host}), 400)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (None, 401),
        ("Bearer", 401),
        ("Bearer  x", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer \xff\xfe", 401),
    ],
)
def test_a_read_token(
    guarded: tuple[httpx.Client, CollectorRegistry], authorization: str | None, status: int
) -> None:
    """With a token set, only who presents it reads; refusals are counted; health stays open."""
    client, registry = guarded
    before = registry.get_sample_value("fl_auth_failures_total") or 0.0
    presented = (authorization or "").encode("latin-1")
    answer = client.get(
        "/metrics", headers=[] if authorization is None else [(b"Authorization", presented)]
    )
    assert client.get("/healthz").status_code == 200
    assert answer.status_code == status
    refused = (registry.get_sample_value("fl_auth_failures_total") or 0.0) - before
    assert refused == (1 if status == 401 else 0)
    if status == 401:
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text


def test_a_token_in_the_url_is_no_token(guarded: tuple[httpx.Client, CollectorRegistry]) -> None:
    """What stands in an address ends up in logs, so it opens nothing, beside a right header too."""
    client, registry = guarded
    before = registry.get_sample_value("fl_auth_failures_total") or 0.0
    right = {"Authorization": f"Bearer {TOKEN}"}
    answers = [
        client.get("/metrics", params={"token": TOKEN}),
        client.get("/metrics", params={"access_token": "x"}, headers=right),
    ]
    for answer in answers:
        assert_problem(answer, 400)
        assert TOKEN not in answer.text
    assert registry.get_sample_value("fl_auth_failures_total") == before + 2


def test_a_fault_shows_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A collector that raises is a problem document; the log has the traceback."""
    registry = CollectorRegistry()
    app = create_app(registry)
    registry.register(Broken())
    with EmbeddedHttp(app) as server:
        answer = httpx.get(f"{server.url}/metrics", trust_env=False)
    assert_problem(answer, 500)
    assert "secret" not in answer.text
    assert "a secret of the inside" in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "fl.example.org"])
def test_an_open_address_needs_a_token(registry: CollectorRegistry, host: str) -> None:
    """What other machines can reach is never served without a token."""
    with pytest.raises(OpenAddress, match="set a read token"):
        create_app(registry, bind_host=host)
    create_app(registry, bind_host=host, read_token=TOKEN)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.org", False),
    ],
)
def test_loopback_addresses(host: str, loopback: bool) -> None:
    """Only addresses of this machine alone are loopback."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b:80", "a.b"), ("A.B.", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("", "")],
)
def test_names_in_host_headers(header: str, name: str) -> None:
    """Port, brackets, case and a final dot do not matter."""
    assert host_name(header) == name


# --- the server --------------------------------------------------------------------------------


def test_a_port_in_use_is_said_before_anything_starts(registry: CollectorRegistry) -> None:
    """The constructor takes the address, so a second server raises one clear error."""
    threads = threading.active_count()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port}: address already in use") as caught:
            EmbeddedHttp(create_app(registry), "127.0.0.1", port)
    assert isinstance(caught.value, HttpAddressError)
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("host", "port"), [("no such host", 0), ("192.0.2.1", 0), ("127.0.0.1", 99999)]
)
def test_an_address_that_is_not_ours(registry: CollectorRegistry, host: str, port: int) -> None:
    """A name that means nothing, another machine's address and no port at all raise the same."""
    with pytest.raises(HttpAddressError, match="cannot serve HTTP on"):
        EmbeddedHttp(create_app(registry), host, port)


def test_two_that_have_not_started_cannot_share_a_port(registry: CollectorRegistry) -> None:
    """The address is held from the constructor on."""
    first = EmbeddedHttp(create_app(registry))
    port = int(first.address.rpartition(":")[2])
    with pytest.raises(HttpAddressError):
        EmbeddedHttp(create_app(CollectorRegistry()), "127.0.0.1", port)
    first.stop()
    EmbeddedHttp(create_app(CollectorRegistry()), "127.0.0.1", port).stop()


def test_it_stops_at_once_and_frees_its_port(registry: CollectorRegistry) -> None:
    """Stopping takes less than a second, with a connection kept alive, and may be repeated."""
    threads = set(threading.enumerate())
    server = EmbeddedHttp(create_app(registry))
    server.start()
    port = int(server.address.rpartition(":")[2])
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.get("/healthz").status_code == 200
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1.0
    server.stop()
    started = set(threading.enumerate()) - threads
    assert not [thread for thread in started if thread.name == "telemetry-http"]
    EmbeddedHttp(create_app(CollectorRegistry()), "127.0.0.1", port).stop()


def test_a_server_that_ends_by_itself_is_a_failure_that_counts(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Here for want of its socket; the error stays in its thread."""
    failures = Failures()
    server = EmbeddedHttp(create_app(registry), failures=failures)
    server.stop()
    with pytest.raises(HttpAddressError, match="did not start"):
        server.start()
    assert failures.counts == {"scrape": 1}
    assert "the HTTP server ended" in caplog.text


def test_a_scrape_that_hangs_does_not_hold_up_the_end() -> None:
    """A server whose store is stuck still stops within a second."""
    registry, gate = CollectorRegistry(), Gate()
    app = create_app(registry)
    registry.register(gate)
    server = EmbeddedHttp(app)
    server.start()
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, port)) as scrape:
        scrape.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert gate.entered.wait(5)
        began = time.monotonic()
        server.stop()
        took = time.monotonic() - began
        gate.open.set()
    assert took < 1.0


def test_a_slow_scrape_does_not_block_health() -> None:
    """Metrics are made in a thread: while one hangs, the rest answers."""
    registry, gate = CollectorRegistry(), Gate()
    app = create_app(registry)
    registry.register(gate)
    with EmbeddedHttp(app) as server:
        scrape = threading.Thread(
            target=httpx.get, args=(f"{server.url}/metrics",), kwargs={"trust_env": False}
        )
        scrape.start()
        assert gate.entered.wait(5)
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
        gate.open.set()
        scrape.join(5)
    assert not scrape.is_alive()


def test_the_program_keeps_its_signals_and_its_log(
    registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is printed or logged by ordinary serving, and signal handlers stay."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    loggers = [logging.getLogger(name).handlers[:] for name in ("", "uvicorn", "uvicorn.error")]
    with caplog.at_level(logging.WARNING), EmbeddedHttp(create_app(registry)) as server:
        httpx.get(f"{server.url}/metrics", trust_env=False)
        httpx.get(f"{server.url}/nothing", trust_env=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    names = ("", "uvicorn", "uvicorn.error")
    assert [logging.getLogger(name).handlers for name in names] == loggers
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_ipv6() -> None:
    """An IPv6 address is served and written as a URL needs it; where there is none, that is said.

    Never skipped: containers without IPv6 are ordinary, and the system's word decides, not ours.
    """
    app = create_app(CollectorRegistry(), bind_host="::1")
    if not has_ipv6_loopback():
        with pytest.raises(HttpAddressError, match="cannot serve HTTP on ::1"):
            EmbeddedHttp(app, "::1")
        return
    with EmbeddedHttp(app, "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
