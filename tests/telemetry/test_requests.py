"""Requests are counted by method, template of the route and status, and by nothing that a client writes."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from telemetry.service.app import API, create_app
from telemetry.service.requests import CountRequests, Requests
from telemetry.service.server import EmbeddedHttp
from telemetry.service.service import create_service
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_round, make_run
from tests.telemetry.views import a_run

BASE = "http://127.0.0.1"


def counted(store: InMemoryStore | None = None) -> tuple[TestClient, Requests]:
    """A client of a service, and what is counted of its requests."""
    requests = Requests()
    app = CountRequests(create_service(store or InMemoryStore()), requests)
    client = TestClient(app, BASE, raise_server_exceptions=False, follow_redirects=False)
    return client, requests


def templates() -> set[str]:
    """The addresses that the description of the service names, and those for people."""
    return {*create_service(InMemoryStore()).openapi()["paths"], "/", "/login"}


def test_every_route_is_counted_under_its_template() -> None:
    """With the prefix of the interface, whatever id was asked for."""
    client, requests = counted()
    for template in templates():
        for run_id in ("20260102-030405-abcdef", "another"):
            client.get(re.sub(r"\{.*?\}", run_id, template))
    assert {route for _, route, _ in requests.answered} == templates()
    assert sum(requests.answered.values()) == 2 * len(templates())


MADE_UP = counted()
"""One for all addresses: what any of them leaves behind is there at the end."""


@given(path=st.text(max_size=40), method=st.text("ABCDEFGH", min_size=1, max_size=12))
def test_nothing_that_a_client_makes_up_becomes_a_label(path: str, method: str) -> None:
    """Any path below any of ours, and any method: the labels stay within a known, small set."""
    client, requests = MADE_UP
    quoted = "".join(f"%{byte:02X}" for byte in path.encode())
    for where in ("/", f"{API}/runs/", f"{API}/runs/x/", "/login/"):
        client.request(method, where + quoted)
    known = {*templates(), "unmatched", f"{API}/openapi.json"}
    for answered, route, status in requests.answered:
        assert answered in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
        assert route in known
        assert re.fullmatch(r"[1-5]\d\d", status)


def test_what_is_refused_before_the_routes_is_unmatched() -> None:
    """A foreign name in the Host header is answered before anybody looks at the address."""
    client, requests = counted()
    client.get("/metrics", headers={"Host": "evil.example"})
    client.get("/no-such-thing")
    assert requests.answered == {("GET", "unmatched", "400"): 1, ("GET", "unmatched", "404"): 1}


def test_a_fault_is_counted_as_500() -> None:
    """Starlette answers it outside of us; the request is counted all the same."""
    app = FastAPI()

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("made to fail")

    requests = Requests()
    app.add_middleware(CountRequests, requests=requests)
    client = TestClient(app, raise_server_exceptions=False)
    assert client.get("/broken").status_code == 500
    assert requests.answered == {("GET", "/broken", "500"): 1}


def test_a_client_that_goes_away_gets_no_status() -> None:
    """A request that is broken off before its answer is counted as that."""
    requests = Requests()

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        scope["endpoint"] = never
        await asyncio.sleep(60)

    async def broken_off() -> None:
        scope = {"type": "http", "method": "GET", "path": "/slow"}
        request = asyncio.create_task(CountRequests(never, requests)(scope, _none, _none))
        await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    asyncio.run(broken_off())
    assert requests.answered == {("GET", "/slow", "none"): 1}


async def _none(*_: object) -> Any:
    return None


def test_files_below_a_mount_are_one_route() -> None:
    """Whatever file is asked for, and whether it is there."""

    async def file(_: Any) -> PlainTextResponse:
        return PlainTextResponse("here")

    requests = Requests()
    below = Mount("/static", routes=[Route("/{name:path}", file)])
    client = TestClient(CountRequests(Starlette(routes=[below]), requests))
    for name in ("a.css", "b/c.js", "{x}"):
        client.get(f"/static/{name}")
    assert requests.answered == {("GET", "/static/…", "200"): 3}


def test_a_route_with_a_path_in_it_is_known_by_its_template() -> None:
    """Starlette's converters are no part of the label."""

    async def file(_: Any) -> PlainTextResponse:
        return PlainTextResponse("here")

    app = FastAPI()
    app.add_api_route("/files/{name:path}", lambda name: name)
    requests = Requests()
    client = TestClient(CountRequests(app, requests))
    client.get("/files/a/b")
    assert requests.answered == {("GET", "/files/{name}", "200"): 1}


def test_durations_are_of_every_request() -> None:
    """As many observations as requests; a streamed export takes until its last byte."""
    store = InMemoryStore()
    a_run(store, *(make_round(n) for n in range(1, 4)))
    run_id = make_run().run_id
    registry = CollectorRegistry()
    with EmbeddedHttp(create_app(registry)) as server:
        for _ in range(3):
            httpx.get(f"{server.url}/healthz", trust_env=False)
        httpx.get(f"{server.url}/metrics", trust_env=False)
    name, labels = "fl_http_request_duration_seconds", {"method": "GET", "route": "/healthz"}
    assert registry.get_sample_value(f"{name}_count", labels) == 3
    assert registry.get_sample_value(f"{name}_bucket", {**labels, "le": "10.0"}) == 3
    total = registry.get_sample_value("fl_http_requests_total", {**labels, "status": "200"})
    assert total == 3
    client, requests = counted(store)
    assert client.get(f"{API}/runs/{run_id}/export").status_code == 200
    (taken,) = requests.durations.values()
    assert sum(taken.counts) == 1
    assert taken.sum > 0
