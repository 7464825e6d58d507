"""The service as a real process: what it acknowledged is stored, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

import httpx
import pytest

from telemetry.domain import RoundRecord, utc_now
from telemetry.service import bodies
from telemetry.store import open_store
from telemetry.store.api_tokens import new_token
from telemetry.testing import RUN_ID, START, make_round, make_run

ROOT = Path(__file__).parent.parent.parent
RUN = f"/api/v1/runs/{RUN_ID}"
JSON = {"Content-Type": "application/json"}
CLIENTS: dict[str, float | str] = {str(n): 0.001 * n for n in range(1, 11)}


@contextmanager
def service(url: str, log: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service over the store at ``url``, and where it answers; killed at the end."""
    command = [sys.executable, "-m", "fedserver", "telemetry", "serve", "--port", "0"]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--store", url, *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), log.read_text()
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


def http(url: str, **headers: str) -> httpx.Client:
    """A client that sends JSON."""
    return httpx.Client(base_url=url, headers={**JSON, **headers}, trust_env=False, timeout=30)


def body_of(*records: RoundRecord) -> bytes:
    """The body that delivers rounds."""
    return bodies.rounds_json(map(bodies.round_json, records))


def a_round(number: int, run_id: str = RUN_ID) -> RoundRecord:
    """A round of ten clients."""
    return make_round(number, clients=CLIENTS, run_id=run_id)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """URL of an empty store."""
    found: str = request.getfixturevalue(f"{request.param.removesuffix('ql')}_url")
    return found


@pytest.mark.slow
def test_what_was_acknowledged_outlives_a_kill(url: str, tmp_path: Path):
    """kill -9 in the middle of deliveries: each round that was answered is there, none is halved."""
    acknowledged: list[int] = []
    lock = threading.Lock()
    with service(url, tmp_path / "log") as (process, address):
        with http(address) as client:
            client.put(RUN, content=bodies.run_json(make_run())).raise_for_status()

        def deliver(first: int) -> None:
            with http(address) as client:
                for number in range(first, first + 1000):
                    try:
                        answer = client.post(f"{RUN}/rounds", content=body_of(a_round(number)))
                    except httpx.TransportError:
                        return
                    assert answer.status_code == 200, answer.text
                    with lock:
                        acknowledged.append(number)
                        if len(acknowledged) == 60:
                            process.kill()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(deliver, range(1, 4002, 1000)))
    assert len(acknowledged) >= 60
    with closing(open_store(url)) as store:
        stored = {row.round for row in store.rounds(RUN_ID)}
        assert set(acknowledged) <= stored
        for number in stored:
            assert store.round(RUN_ID, number) == a_round(number)
        assert store.run(RUN_ID).totals.rounds["completed"] == len(stored)
    with service(url, tmp_path / "log") as (_, address), http(address) as client:
        again = body_of(*(a_round(number) for number in sorted(acknowledged)[:50]))
        answer = client.post(f"{RUN}/rounds", content=again)
        assert answer.json() == {"received": 50, "stored": 0}


def test_sigterm_finishes_what_is_being_sent(sqlite_url: str, tmp_path: Path):
    """A body that is half here when the signal comes is stored and acknowledged; the exit is 0."""
    log = tmp_path / "log"
    with service(sqlite_url, log) as (process, address):
        with http(address) as client:
            client.put(RUN, content=bodies.run_json(make_run())).raise_for_status()
        body = body_of(*(a_round(number) for number in range(1, 21)))
        host, _, port = address.removeprefix("http://").partition(":")
        head = (
            f"POST {RUN}/rounds HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-ID: the-last-one\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head.encode() + body[: len(body) // 2])
            with http(address) as client:  # by now the service has begun to read it
                client.get("/healthz").raise_for_status()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            with pytest.raises(OSError):
                socket.create_connection((host, int(port)), timeout=2).close()
            connection.sendall(body[len(body) // 2 :])
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert process.wait(10) == 0
    with closing(open_store(sqlite_url)) as store:
        assert len(list(store.rounds(RUN_ID))) == 20
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line.get("request_id") == "the-last-one"] == [200]


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(
    sqlite_url: str, tmp_path: Path
):
    """With Nagle's algorithm on each of them would take 40 ms, however little there is to do."""
    took_s = []
    with service(sqlite_url, tmp_path / "log") as (_, address), http(address) as client:
        for _ in range(40):
            began = time.perf_counter()
            client.get("/healthz").raise_for_status()
            took_s.append(time.perf_counter() - began)
    assert median(took_s) < 0.03


@pytest.mark.slow
def test_two_services_on_one_postgresql(postgres_url: str, tmp_path: Path):
    """Eight servers, each delivering every round to both: the same result as from one."""
    with closing(open_store(postgres_url)) as store:
        token, facts = new_token("platform", ["write", "read"], utc_now())
        store.add_token(facts)
    header = {"Authorization": f"Bearer {token}"}
    runs = [f"run-{n}" for n in range(8)]
    with (
        service(postgres_url, tmp_path / "log") as (_, one),
        service(postgres_url, tmp_path / "log") as (_, other),
    ):

        def deliver(place: int) -> list[int]:
            run_id, stored = runs[place // 2], []
            with http((one, other)[place % 2], **header) as client:
                path = f"/api/v1/runs/{run_id}"
                client.put(path, content=bodies.run_json(make_run(run_id))).raise_for_status()
                for number in range(10):
                    body = body_of(a_round(number, run_id))
                    answer = client.post(f"{path}/rounds", content=body)
                    while answer.status_code == 503:
                        answer = client.post(f"{path}/rounds", content=body)
                    stored.append(answer.raise_for_status().json()["stored"])
                end = bodies.finish_json("completed", START, None, 1)
                client.post(f"{path}/finish", content=end).raise_for_status()
            return stored

        with ThreadPoolExecutor(16) as pool:
            news = list(pool.map(deliver, range(16)))
        with http(one, **header) as client:
            pages = [client.get("/metrics").text]
        with http(other, **header) as client:
            pages.append(client.get("/metrics").text)
    for first, second in zip(news[::2], news[1::2], strict=True):
        assert [a + b for a, b in zip(first, second, strict=True)] == [1] * 10
    with closing(open_store(postgres_url)) as store:
        for run_id in runs:
            assert [store.round(run_id, n) for n in range(10)] == [
                a_round(n, run_id) for n in range(10)
            ]
            totals = store.run(run_id).totals
            assert totals.total_emissions_kg == pytest.approx(10 * (0.055 + 0.001 * 0.174))
            assert (totals.reports_accepted, totals.reports_late) == (100, 1)
    counters = [
        sorted(line for line in page.splitlines() if line.startswith("fl_emissions_co2eq"))
        for page in pages
    ]
    assert counters[0] == counters[1]
    assert len(counters[0]) == 16
