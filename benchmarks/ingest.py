"""Ingest of rounds with 10 clients over HTTP, from 8 senders, against an endpoint that stores nothing.

The bare endpoint is ``async def`` and validates the same body (`RoundsBody`, strict, from its raw
bytes: 1.3 times as fast as by a parameter of that type), in the same uvicorn, without a log. Each
sender keeps one connection and delivers rounds of its own run; every tenth delivery is a repeat.
Both sides alternate; the ratio is of their medians.

    python benchmarks/ingest.py [postgresql://…]     (default: a SQLite file)
"""

from __future__ import annotations

import http.client
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from fastapi import FastAPI, Request

from telemetry.service import bodies
from telemetry.service.bodies import RoundsBody
from telemetry.testing import make_round, make_run

SENDERS = 8
REQUESTS = 1_000
"""Of all senders together, in one pass."""
PASSES = 3
TARGETS = {"sqlite": 0.45, "postgresql": 0.33}
CLIENTS: dict[str, float | str] = {str(n): 0.001 * n for n in range(10)}
HEADERS = {"Content-Type": "application/json"}


def _bare(ready: Connection) -> None:
    app = FastAPI()

    @app.post("/api/v1/runs/{run_id}/rounds")
    async def take(request: Request) -> bodies.Received:
        body = RoundsBody.model_validate_json(await request.body())
        return bodies.Received(received=len(body.rounds), stored=0)

    _serve(app, ready)


def _service(url: str, ready: Connection) -> None:
    from telemetry.service.service import create_service
    from telemetry.store import open_store

    _serve(create_service(open_store(url), requests_per_s=1e9), ready)


def _serve(app: object, ready: Connection) -> None:
    from telemetry.service.standalone import serve

    serve(app, "127.0.0.1", 0, said=ready.send)  # type: ignore[arg-type]


@contextmanager
def running(target: Callable[..., None], *arguments: object) -> Iterator[str]:
    """A server in a process of its own; its address."""
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, theirs))
    process.start()
    try:
        yield mine.recv()
    finally:
        process.terminate()
        process.join()


def _send(address: str, run_id: str, payloads: list[bytes], start: object, took: object) -> None:
    connection = http.client.HTTPConnection(address)
    connection.connect()
    start.wait()  # type: ignore[attr-defined]
    for body in payloads:
        connection.request("POST", f"/api/v1/runs/{run_id}/rounds", body, HEADERS)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {said!r}")
    took.put(time.perf_counter())  # type: ignore[attr-defined]
    connection.close()


def requests_per_s(address: str, label: str, *, announce: bool) -> float:
    """One pass; ``announce`` puts the runs first, where they are stored."""
    context = multiprocessing.get_context("fork")
    start, took = context.Event(), context.Queue()
    each = REQUESTS // SENDERS
    processes = []
    for sender in range(SENDERS):
        run_id = f"{label}-{sender}"
        if announce:
            connection = http.client.HTTPConnection(address)
            body = bodies.run_json(make_run(run_id))
            connection.request("PUT", f"/api/v1/runs/{run_id}", body, HEADERS)
            connection.getresponse().read()
            connection.close()
        rounds = [make_round(n, run_id=run_id, clients=CLIENTS) for n in range(each)]
        payloads = [bodies.rounds_json([bodies.round_json(record)]) for record in rounds]
        payloads = [payloads[n - 1] if n % 10 == 9 else one for n, one in enumerate(payloads)]
        arguments = address, run_id, payloads, start, took
        processes.append(context.Process(target=_send, args=arguments))
    for process in processes:
        process.start()
    time.sleep(0.5)
    began = time.perf_counter()
    start.set()
    ends = [took.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    return float(each * SENDERS / (max(ends) - began))


def main() -> int:
    """Print both rates and their ratio; 1 where the target is missed."""
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/telemetry.db"
        target = TARGETS[url.partition(":")[0]]
        with running(_bare) as bare, running(_service, url) as service:
            pairs = [
                (
                    requests_per_s(bare, "bare", announce=False),
                    requests_per_s(service, f"pass-{place}", announce=True),
                )
                for place in range(PASSES + 1)
            ][1:]  # the first warms both up
    without, stored = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = stored / without
    print(
        f"ingest, {url.partition(':')[0]}: {stored:.0f} requests/s stored, {without:.0f} bare: "
        f"{ratio:.2f} (target: at least {target})"
    )
    return 0 if ratio >= target else 1


if __name__ == "__main__":
    sys.exit(main())
