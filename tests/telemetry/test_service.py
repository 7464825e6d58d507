"""The service's interface in one process: what it takes, what it refuses, and whom it lets in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from telemetry.domain import NoiseRecord, utc_now
from telemetry.errors import OpenAddress, StoreError
from telemetry.service import bodies, examples
from telemetry.service.access import RateLimit
from telemetry.service.guards import SECURITY_HEADERS
from telemetry.service.service import create_service
from telemetry.store import open_store
from telemetry.store.api_tokens import new_token
from telemetry.store.base import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

RUNS = "/api/v1/runs"
RUN = f"{RUNS}/{RUN_ID}"
JSON = {"Content-Type": "application/json"}
CLIENTS: dict[str, float | str] = {"1": 0.5, "2": "missing", "3": "negative"}


@contextmanager
def client_of(store: Store, **options: Any) -> Iterator[TestClient]:
    """A client of a running application over ``store``; faults in it are answers, not exceptions."""
    app = create_service(store, **options)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def store() -> Store:
    """An empty store."""
    return InMemoryStore()


@pytest.fixture
def http(store: Store) -> Iterator[TestClient]:
    """A client of a service without tokens."""
    with client_of(store) as client:
        yield client


@pytest.fixture
def begun(http: TestClient) -> TestClient:
    """The same, after the run of the examples was announced."""
    assert http.put(RUN, content=bodies.run_json(make_run()), headers=JSON).status_code == 200
    return http


def rounds_body(*records: Any) -> bytes:
    """The body that delivers rounds."""
    return bodies.rounds_json(map(bodies.round_json, records))


def post(client: TestClient, path: str, body: Any, **headers: str) -> Any:
    """The answer to a body: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.request(
        "PUT" if path == RUN else "POST", path, content=content, headers={**JSON, **headers}
    )


def refused(answer: Any, status: int, field: str | None = None) -> str:
    """The text of a problem document with that status (and field)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    if field is not None:
        assert problem["field"] == field, problem
    return str(problem["detail"])


# --- the main path -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgresql"])
def test_what_is_delivered_is_stored_row_by_row(kind: str, request: pytest.FixtureRequest):
    """Over every kind of database, repeats included; sums are the service's own."""
    fixtures = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
    url = "memory://" if kind == "memory" else request.getfixturevalue(fixtures[kind])
    store = open_store(url)
    rounds = [
        make_round(n, clients=CLIENTS, train_metrics={"loss": 0.25}, noise=NoiseRecord(noise_stdv=1.0))
        for n in (1, 2)
    ]  # fmt: skip
    with client_of(store) as client:
        for stored in (1, 0):
            answer = post(client, RUN, bodies.run_json(make_run()))
            assert answer.json() == {"received": 1, "stored": stored}
        for stored in (2, 0):
            answer = post(client, f"{RUN}/rounds", rounds_body(*rounds))
            assert (answer.status_code, answer.json()) == (200, {"received": 2, "stored": stored})
        end = bodies.finish_json("completed", START + timedelta(minutes=9), None, 2)
        for stored in (1, 0):
            answer = post(client, f"{RUN}/finish", end)
            assert answer.json() == {"received": 1, "stored": stored}
        shown = client.get(RUN).json()
    bare = [record.model_copy(update={"noise": None}) for record in rounds]
    assert [store.round(RUN_ID, n) for n in (1, 2)] == bare
    stored_run = store.run(RUN_ID)
    assert (stored_run.status, stored_run.totals.reports_late) == ("completed", 2)
    totals = shown["totals_of_closed_rounds"]
    assert totals["total_emissions_kg"] == stored_run.totals.total_emissions_kg
    assert totals["total_emissions_kg"] == pytest.approx(2 * (0.001 * 0.174 + 0.5))
    store.close()


def test_the_examples_are_taken(http: TestClient):
    """What the description shows is what the service takes."""
    for method, path, body in (
        ("PUT", RUN, examples.RUN),
        ("POST", f"{RUN}/rounds", examples.ROUNDS),
        ("POST", f"{RUN}/finish", examples.FINISH),
    ):
        assert http.request(method, path, json=body).json() == {"received": 1, "stored": 1}


def test_pages_hold_everything_once(begun: TestClient, store: Store):
    """Runs, rounds and reports, however small the pages; no node and no host is named."""
    for number in range(4):
        store.start_run(
            make_run(f"other-{number}", started_at=START + timedelta(minutes=number % 2)), OWNER, START
        )  # fmt: skip
    post(begun, f"{RUN}/rounds", rounds_body(*(make_round(n, clients=CLIENTS) for n in range(3))))
    post(begun, f"{RUN}/rounds", rounds_body(make_round(3, closed=False)))
    for path, name, count in ((RUNS, "runs", 5), (f"{RUN}/rounds", "rounds", 4), (f"{RUN}/clients", "reports", 6)):  # fmt: skip
        whole = begun.get(path).json()
        assert len(whole[name]) == count
        assert whole["next"] is None
        for limit in (1, 2, count):
            found: list[Any] = []
            cursor = None
            while cursor is not None or not found:
                params = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
                page = begun.get(path, params=params).json()
                assert len(page[name]) <= limit
                found += page[name]
                cursor = page["next"]
            assert found == whole[name]
    said = begun.get(f"{RUN}/clients").text
    assert "host-of-1" not in said
    assert "node_id" not in said
    assert {row["client"] for row in json.loads(said)["reports"]} == {"c-6b86b273", "c-4e074085"}


@pytest.mark.parametrize("cursor", ["x", "W10", "WzEsMiwzLDRd", "é", "W251bGwsbnVsbF0", "-" * 600])
@pytest.mark.parametrize("path", [RUNS, f"{RUN}/rounds", f"{RUN}/clients"])
def test_a_cursor_that_we_did_not_give_is_refused(begun: TestClient, path: str, cursor: str):
    """Whatever it decodes to."""
    refused(begun.get(path, params={"cursor": cursor}), 422)


def test_exports_are_those_of_the_command_line(begun: TestClient, store: Store):
    """Byte by byte, under the run's name as a file's name."""
    import io

    from telemetry.exporters import FORMATS

    post(begun, f"{RUN}/rounds", rounds_body(*(make_round(n, clients=CLIENTS) for n in range(3))))
    post(begun, f"{RUN}/finish", bodies.finish_json("completed", START, None, 0))
    for name, form in FORMATS.items():
        out = io.StringIO(newline="")
        form.write(store, RUN_ID, out)
        answer = begun.get(f"{RUN}/export", params={"format": name})
        assert answer.content == out.getvalue().encode()
        assert f'"{RUN_ID}{form.suffix}"' in answer.headers["content-disposition"]
    refused(begun.get(f"{RUN}/export", params={"format": "xlsx"}), 422, "format")
    refused(begun.get(f"{RUNS}/unknown/export"), 404)


def test_metrics_and_page_show_what_was_delivered(begun: TestClient):
    """The same figures, for Prometheus and for people."""
    post(begun, f"{RUN}/rounds", rounds_body(make_round(1, clients=CLIENTS)))
    metrics = begun.get("/metrics").text
    assert (
        f'fl_emissions_co2eq_grams_total{{component="clients",run_id="{RUN_ID}"}} 500.0' in metrics
    )
    assert f'fl_run_active{{run_id="{RUN_ID}"}} 1.0' in metrics
    assert RUN_ID in begun.get("/").text


# --- bad input -----------------------------------------------------------------------------------


def altered(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The example's rounds with something changed in them."""
    body: dict[str, Any] = json.loads(json.dumps(examples.ROUNDS))
    change(body["rounds"][0])
    return body


BAD_ROUNDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown": (lambda r: r.update(total_emissions_kg=1.0), "rounds.0.total_emissions_kg"),
    "noise": (lambda r: r.update(noise={"noise_stdv": 1.0}), "rounds.0.noise"),
    "text": (lambda r: r["reports"][0].update(emissions_kg="1.5"), "rounds.0.reports.0.emissions_kg"),
    "true": (lambda r: r["reports"][0].update(emissions_kg=True), "rounds.0.reports.0.emissions_kg"),
    "NaN": (lambda r: r["reports"][0].update(energy_kwh=float("nan")), "rounds.0.reports.0.energy_kwh"),
    "infinite": (lambda r: r["laps"][0].update(wall_s=float("inf")), "rounds.0.laps.0.wall_s"),
    "negative": (lambda r: r["laps"][0].update(energy_kwh=-1.0), "rounds.0.laps.0.energy_kwh"),
    "huge": (lambda r: r["laps"][0].update(energy_kwh=1e300), "rounds.0.laps.0.energy_kwh"),
    "64 bits": (lambda r: r.update(connected=2**64), "rounds.0.connected"),
    "64 bits below": (lambda r: r["participants"][0].update(examples=2**53), "rounds.0.participants.0.examples"),
    "far": (lambda r: r.update(ended_at="9999-12-31T23:59:59-14:00"), "rounds.0.ended_at"),
    "far, as seconds": (lambda r: r.update(ended_at="253402300799000"), "rounds.0.ended_at"),
    "32 bits": (lambda r: r.update(round=2**31), "rounds.0.round"),
    "fraction": (lambda r: r.update(round=1.5), "rounds.0.round"),
    "NUL": (lambda r: r["reports"][0].update(tracker="a\0b"), "rounds.0.reports.0.tracker"),
    "long": (lambda r: r["reports"][0].update(tracker="a" * 257), "rounds.0.reports.0.tracker"),
    "name": (lambda r: r["train_metrics"].update({"a" * 257: 1.0}), f"rounds.0.train_metrics.{'a' * 256}"),
    "NUL name": (lambda r: r["train_metrics"].update({"\0": 1.0}), "rounds.0.train_metrics.�"),
    "names": (lambda r: r["train_metrics"].update({str(n): 1.0 for n in range(200)}), "rounds.0.train_metrics"),
    "naive": (lambda r: r.update(ended_at="2026-01-02T03:05:05"), "rounds.0.ended_at"),
    "ancient": (lambda r: r.update(started_at="0001-01-01T00:00:00+14:00"), "rounds.0.started_at"),
    "number": (lambda r: r.update(started_at=1e9), "rounds.0.started_at"),
    "other run": (lambda r: r.update(run_id="other"), "rounds.0.run_id"),
    "twice": (lambda r: r["reports"].append(r["reports"][0]), "rounds.0"),
    "still running": (lambda r: r.update(status="running"), "rounds.0"),
    "without rows": (lambda r: r.update(client_rows=False), "rounds.0.client_rows"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ROUNDS)
def test_a_round_that_cannot_be_one_is_refused_by_its_member(
    begun: TestClient, store: Store, kind: str
):
    """Nothing of it is stored."""
    change, field = BAD_ROUNDS[kind]
    refused(post(begun, f"{RUN}/rounds", altered(change)), 422, field)
    assert not list(store.rounds(RUN_ID, closed_only=False))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (b"60.0", b"6e+91"),
        (b"60.0", b"6.0E91"),
        (b"60.0", b"-0.0e00,\"phase\":\"wait\",\"wall_s\":1e99"),
        (b"60.0", b"1" + b"0" * 95),
        (b"2026-01-02T03:05:05Z", b"0001-01-01T00:00:00+14:00"),
        (b"2026-01-02T03:05:05Z", b"\\u0030001-01-01T00:00:00+14:00"),
        (b"2026-01-02T03:05:05Z", b"-62135596800"),
        (b"c-6b86b273", b"c\\u0000"),
    ],
)  # fmt: skip
def test_no_spelling_of_a_value_that_cannot_be_kept_gets_through(
    begun: TestClient, said: bytes, meant: bytes
):
    """However a number, a time or a character is written in JSON."""
    body = json.dumps(examples.ROUNDS).encode()
    assert said in body
    refused(post(begun, f"{RUN}/rounds", body.replace(said, meant, 1)), 422)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (RUN, b"", 400),
        (RUN, b"\xff\xfe", 400),
        (f"{RUN}/rounds", b"[" * 100_000, 400),
        (f"{RUN}/rounds", b'{"schema":1,"rounds":' + b"[" * 1000 + b"]" * 1000 + b"}", 400),
        (f"{RUN}/rounds", {"schema": 1, "rounds": []}, 422),
        (f"{RUN}/rounds", {"schema": 1, "rounds": examples.ROUNDS["rounds"] * 101}, 422),
        (f"{RUN}/rounds", {"schema": 2, "rounds": examples.ROUNDS["rounds"]}, 422),
        (f"{RUN}/finish", {**examples.FINISH, "status": "running"}, 422),
        (f"{RUN}/finish", {**examples.FINISH, "late_reports": -1}, 422),
        (f"{RUN}/finish", {**examples.FINISH, "reason": "a\0b"}, 422),
        (f"{RUN}/finish", b'{"schema":1,"status":"failed","ended_at":"\\ud800"}', 400),
        (RUN, {"schema": 1, "run": {**examples.RUN["run"], "run_id": "other"}}, 422),
        (RUN, {"schema": 1, "run": {**examples.RUN["run"], "client_rows": False}}, 422),
        (RUN, {"schema": 1, "run": {**examples.RUN["run"], "software": {"a": "x" * 257}}}, 422),
        (RUN, {"schema": 1, "run": {**examples.RUN["run"], "rounds_planned": 2**31}}, 422),
    ],
)
def test_a_body_that_cannot_be_taken_is_refused(begun: TestClient, path: str, body: Any, status: int):  # fmt: skip
    """Broken, deep, of another schema, or with a member that nothing can be done with."""
    refused(post(begun, path, body), status)


def test_bodies_are_bounded_and_json(begun: TestClient):
    """By what they say of their size and by what comes; forms and compressed bodies are not read."""
    small = b" " * (bodies.MAX_SMALL_BYTES + 1)
    refused(post(begun, RUN, small), 413)
    refused(begun.put(RUN, content=iter([small]), headers=JSON), 413)
    refused(post(begun, f"{RUN}/rounds", b" " * (bodies.MAX_ROUNDS_BYTES + 1)), 413)
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        refused(begun.put(RUN, content=b"{}", headers={"Content-Type": kind}), 415)
    refused(post(begun, RUN, b"{}", **{"Content-Encoding": "gzip"}), 415)


@pytest.mark.parametrize(
    "run_id",
    [
        "..", "%2e%2e", "%2e%2e%2fsecret", "..%5csecret", "a%2Fb", "a%2f..%2fb", "%252e%252e%252f", "a%5Cb",
        "a" * 65, "-a", ".a", "a%00", "%00a", "a%0A", "a%0d%0aX-Injected:%201", "a%20b", "a;b", "a%3Bb",
        "'; DROP TABLE runs", "a'%20OR%20'1'='1", "é", "%c0%ae%c0%ae", "%ff", "\uff0e\uff0e", "a\u2028b", "a%7Fb",
    ],
)  # fmt: skip
def test_an_id_that_cannot_be_one_is_refused(http: TestClient, run_id: str):
    """It is never looked up; paths in it lead nowhere."""
    for method, path in (("PUT", ""), ("GET", ""), ("POST", "/rounds"), ("GET", "/export")):
        answer = http.request(method, f"{RUNS}/{run_id}{path}", content=b"{}", headers=JSON)
        assert answer.status_code in (400, 404, 405, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


HOSTILE = "=cmd|' /C calc'!A0<script>alert(1)</script>'; DROP TABLE runs;--\u202e"


def test_hostile_text_stays_text(begun: TestClient, store: Store):
    """SQL, HTML and formulas in every string: stored as they are, shown as harmless text."""
    client = make_round(1, clients={"1": 0.5})
    report = json.loads(bodies.round_json(client))
    report["reports"][0].update(
        country=HOSTILE, tracker=HOSTILE, client=HOSTILE, node_id=HOSTILE, scope=HOSTILE
    )
    report["participants"][0].update(client=HOSTILE, reason=HOSTILE, node_id=HOSTILE)
    report["train_metrics"] = {HOSTILE: 1.0}
    run = make_run("hostile", run_name=HOSTILE, strategy=HOSTILE, metric_names=(HOSTILE,))
    answer = begun.put(f"{RUNS}/hostile", content=bodies.run_json(run), headers=JSON)
    assert answer.status_code == 200, answer.text
    body = {"schema": 1, "rounds": [{**report, "run_id": "hostile"}]}
    assert post(begun, f"{RUNS}/hostile/rounds", body).status_code == 200
    assert store.run("hostile").info.run_name == HOSTILE
    assert "<script>" not in begun.get("/").text
    for name in ("csv", "clients-csv"):
        lines = begun.get(f"{RUNS}/hostile/export", params={"format": name}).text
        assert ",=cmd" not in lines
        assert ",\"=cmd" not in lines  # fmt: skip
        assert "'=cmd" in lines
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(begun.get("/metrics").text))
    labels = [s.labels for family in families for s in family.samples]
    assert any(found.get("run_name") == HOSTILE for found in labels)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", RUN, bodies.run_json(make_run(strategy="other")), 409),
        ("POST", f"{RUN}/rounds", rounds_body(make_round(1, status="failed")), 409),
        ("POST", f"{RUN}/finish", bodies.finish_json("failed", START, "no", 0), 409),
        ("POST", f"{RUNS}/unknown/finish", bodies.finish_json("failed", START, "no", 0), 404),
        ("GET", f"{RUNS}/unknown", None, 404),
        ("GET", f"{RUNS}/unknown/rounds", None, 404),
        ("GET", f"{RUNS}/unknown/clients", None, 404),
        ("DELETE", RUN, None, 405),
        ("GET", "/nothing", None, 404),
    ],
)
def test_contradictions_and_what_is_not_there(
    begun: TestClient, store: Store, method: str, path: str, body: bytes | None, status: int
):
    """Each as a problem document; what was stored stays."""
    post(begun, f"{RUN}/rounds", rounds_body(make_round(1)))
    post(begun, f"{RUN}/finish", bodies.finish_json("completed", START, None, 0))
    before = store.run(RUN_ID).totals
    refused(begun.request(method, path, content=body, headers=JSON), status)
    assert store.run(RUN_ID).totals == before


def test_deleted_and_pruned_runs_are_gone(begun: TestClient, store: Store):
    """410, so that a sender knows that no other try will help."""
    post(begun, f"{RUN}/finish", bodies.finish_json("completed", START, None, 0))
    store.prune(START + timedelta(days=1), START)
    refused(post(begun, f"{RUN}/rounds", rounds_body(make_round(1))), 410)
    store.delete_run(RUN_ID, START)
    assert "memory" not in refused(post(begun, RUN, bodies.run_json(make_run())), 410)


# --- who is let in -------------------------------------------------------------------------------


def token_of(store: Store, label: str, *scopes: str, **facts: Any) -> dict[str, str]:
    """The header of a new token."""
    token, stored = new_token(label, scopes, utc_now(), **facts)
    store.add_token(stored)
    return {"Authorization": f"Bearer {token}"}


def test_each_scope_opens_what_it_is_for(store: Store):
    """Write delivers, read reads, admin does both; nobody does either."""
    tokens = {scope: token_of(store, scope, scope) for scope in ("write", "read", "admin")}
    body = bodies.run_json(make_run())
    with client_of(store) as client:
        came_to = {
            scope: (
                client.put(RUN, content=body, headers={**JSON, **header}).status_code,
                client.get(RUNS, headers=header).status_code,
                client.get("/metrics", headers=header).status_code,
            )
            for scope, header in {**tokens, "nobody": {}}.items()
        }
        assert came_to == {
            "write": (200, 403, 403),
            "read": (403, 200, 200),
            "admin": (404, 200, 200),  # the run is another's
            "nobody": (401, 401, 401),
        }
        assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        refused(client.get(f"{RUNS}?token=x", headers=tokens["read"]), 400)


def test_another_writer_does_not_find_a_run(store: Store):
    """The same answer as for a run that is not there; its owner may change the token."""
    mine, theirs = token_of(store, "mine", "write"), token_of(store, "theirs", "write")
    body = rounds_body(make_round(1))
    with client_of(store) as client:
        client.put(RUN, content=bodies.run_json(make_run()), headers={**JSON, **mine})
        answers = [
            client.post(f"{path}/rounds", content=body.replace(b'"%s"' % RUN_ID.encode(), run), headers={**JSON, **theirs})
            for path, run in ((RUN, b'"%s"' % RUN_ID.encode()), (f"{RUNS}/unknown", b'"unknown"'))
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].json() == answers[1].json()
    store.revoke_token("mine", utc_now())
    with client_of(store) as client:
        refused(client.post(f"{RUN}/rounds", content=body, headers={**JSON, **mine}), 401)
        renewed = token_of(store, "mine", "write")
    with client_of(store) as client:
        answer = client.post(f"{RUN}/rounds", content=body, headers={**JSON, **renewed})
        assert answer.status_code == 200


def test_tokens_that_do_not_hold(store: Store):
    """Unknown, expired, of an FL client, of another kind: 401 with the reason, counted."""
    expired = token_of(store, "old", "read", expires_at=utc_now() - timedelta(seconds=1))
    with client_of(store) as client:
        for header, why in (
            (expired, "expired"),
            ({"Authorization": "Bearer flt_unknown"}, "unknown"),
            ({"Authorization": "Bearer flc_of-a-client"}, "token of an FL client"),
            ({"Authorization": "Basic abc"}, "a token is needed"),
            ({}, "a token is needed"),
        ):
            assert why in refused(client.get(RUNS, headers=header), 401)
        admin = token_of(store, "admin", "admin")
    with client_of(store) as client:
        client.get(RUNS)
        assert "fl_auth_failures_total 1.0" in client.get("/metrics", headers=admin).text


def test_a_token_that_is_made_or_revoked_is_known_within_two_seconds(store: Store):
    """Without a restart; the first one closes an open service, and its revocation does not open it."""
    import time

    def becomes(client: TestClient, header: dict[str, str], status: int) -> bool:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            if client.get(RUNS, headers=header).status_code == status:
                return True
            time.sleep(0.05)
        return False

    with client_of(store) as client:
        assert client.get(RUNS).status_code == 200
        header = token_of(store, "reader", "read")
        assert becomes(client, {}, 401)
        assert client.get(RUNS, headers=header).status_code == 200
        store.revoke_token("reader", utc_now())
        assert becomes(client, header, 401)
        assert becomes(client, {}, 401)


def test_a_browser_logs_in_and_only_reads(store: Store):
    """The cookie of a session stands for a token to read, and writes nothing."""
    header = token_of(store, "admin", "admin")
    writer = token_of(store, "writer", "write")
    with client_of(store) as client:
        html = {"Accept": "text/html"}
        assert client.get("/", headers=html, follow_redirects=False).headers["location"] == "/login"
        for wrong in ("flt_wrong", writer["Authorization"].removeprefix("Bearer ")):
            assert client.post("/login", data={"token": wrong}).status_code == 401
        token = header["Authorization"].removeprefix("Bearer ")
        answer = client.post("/login", data={"token": token}, follow_redirects=False)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert token.lower() not in cookie
        assert client.get("/", headers=html).status_code == 200
        assert client.get(RUNS).status_code == 200
        refused(post(client, RUN, bodies.run_json(make_run())), 401)


def test_an_open_address_needs_a_token(store: Store):
    """Without one the service does not start; /metrics is open only where that was said."""
    with pytest.raises(OpenAddress, match="telemetry tokens create"):
        create_service(store, bind_host="0.0.0.0")
    token_of(store, "writer", "write")
    with client_of(store, bind_host="0.0.0.0") as client:
        assert client.get("/metrics").status_code == 401
    with client_of(store, bind_host="0.0.0.0", open_metrics=True) as client:
        assert client.get("/metrics").status_code == 200
        assert client.get(RUNS).status_code == 401


def test_too_many_requests_are_told_when_to_come_again(store: Store):
    """Of one token; another's are answered."""
    one, other = token_of(store, "one", "read"), token_of(store, "other", "read")
    with client_of(store, requests_per_s=1) as client:
        answers = [client.get(RUNS, headers=one) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["retry-after"] == "1"
        assert client.get(RUNS, headers=other).status_code == 200
        refusals = [client.get(RUNS).status_code for _ in range(30)]
        assert refusals[0] == 401
        assert refusals[-1] == 429


def test_a_rate_comes_back_with_time():
    """As many at once as there is room for, then one for each part of a second."""
    now = [0.0]
    limit = RateLimit(2, 3, clock=lambda: now[0])
    assert [limit.wait_s("a") for _ in range(4)] == [0, 0, 0, 1]
    now[0] += 0.5
    assert [limit.wait_s("a") for _ in range(2)] == [0, 1]
    assert limit.wait_s("b") == 0


def test_headers_and_host(http: TestClient):
    """As the embedded server has them, and an id of the request that may be given."""
    answer = http.get(RUNS, headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    for name, value in SECURITY_HEADERS.items():
        assert answer.headers[name] == value
    for hostile in ("a b", "x" * 65, "<script>"):
        found = http.get(RUNS, headers={"X-Request-ID": hostile}).headers["x-request-id"]
        assert found not in (hostile, "")
    refused(http.get(RUNS, headers={"Host": "evil.example"}), 400)


# --- trouble with the database -------------------------------------------------------------------


class BrokenStore(InMemoryStore):
    """A store whose database can be taken away."""

    broken = False

    def _fail(self) -> None:
        if self.broken:
            raise StoreError("postgresql://secret-host/db", "the disk is full")

    def deliver(self, deliveries: Any, now: Any) -> Any:
        """What the store does, or why nothing is stored."""
        try:
            self._fail()
        except StoreError as error:
            return [error] * len(deliveries)
        return super().deliver(deliveries, now)

    def check(self) -> None:
        """Fails while broken."""
        self._fail()

    def run(self, run_id: str) -> Any:
        """Fails while broken."""
        self._fail()
        return super().run(run_id)


def test_a_database_that_fails_is_503_and_not_ready_until_it_works_again():
    """Nobody is told where it is; what was sent may be sent again."""
    store = BrokenStore()
    with client_of(store) as client:
        post(client, RUN, bodies.run_json(make_run()))
        assert client.get("/readyz").status_code == 200
        store.broken = True
        body = rounds_body(make_round(1))
        for answer in (
            post(client, f"{RUN}/rounds", body), client.get(RUN),
            client.get(f"{RUN}/export"), client.get("/readyz"),
        ):  # fmt: skip
            assert "secret-host" not in refused(answer, 503)
            assert answer.headers["retry-after"] == "5"
        assert client.get("/healthz").status_code == 200
        store.broken = False
        assert "could not be written" in refused(client.get("/readyz"), 503)
        assert post(client, f"{RUN}/rounds", body).json() == {"received": 1, "stored": 1}
        assert client.get("/readyz").status_code == 200
