"""Ingest of rounds with 10 clients over HTTP, from 8 senders, against endpoints that store nothing.

The bare endpoint of the target is ``async def`` and takes the same body (`RoundsBody`) as a parameter,
as one writes it with FastAPI: parsed and validated, and nothing stored. Beside it stands one that
validates the raw bytes, as the service itself does; it has no target. All in the same uvicorn, each in
a process of its own; the bare ones write no log, the service its usual line of JSON a request (to
nowhere). Each sender is a process, keeps one connection and delivers rounds of its own run; every
tenth delivery is a repeat of the one before. What is answered is durable: SQLite with ``synchronous =
FULL``, PostgreSQL as it comes. Senders, servers and PostgreSQL share the machine.

Twice: with the senders that FL servers have (`telemetry.service_client`), which take a good part of the
machine and have the target; and with the least that a sender can do (``http.client``, the answer's status
alone looked at), which shows how many of them on other machines one service can take.

All sides take turns; a ratio is of their medians.

    python benchmarks/ingest.py [sqlite | postgresql]     (default: both)
"""

from __future__ import annotations

import http.client
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Body, FastAPI, Request
from pydantic_core import core_schema

from benchmarks._databases import urls
from telemetry.service import bodies
from telemetry.service.bodies import RoundsBody
from telemetry.service_client import ServiceClient
from telemetry.testing import make_round, make_run

SENDERS = 8
REQUESTS = 1_200
"""Of all senders together, in one pass."""
PASSES = 5
TARGETS = {"SQLite": 0.45, "PostgreSQL": 0.33}
CLIENTS: dict[str, float | str] = {
    str(7_046_029_254_386_353_131 + node): 0.001 * node for node in range(10)
}
"""Nodes named as Flower names them."""
HEADERS = {"Content-Type": "application/json"}


class TypedBody:
    """`RoundsBody` as a parameter. Not strictly: out of what ``json.loads`` gives there is no tuple."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: RoundsBody.model_validate(value, strict=False)
        )


def _bare_typed(ready: Connection) -> None:
    app = FastAPI()

    # The annotation as an object: FastAPI would look for a name in it among this module's.
    async def take(run_id: str, body: Any) -> bodies.Received:  # noqa: ARG001  # of the address
        return bodies.Received(received=len(body.rounds), stored=0)

    take.__annotations__["body"] = Annotated[TypedBody, Body()]
    app.post("/api/v1/runs/{run_id}/rounds")(take)
    _serve(app, ready)


def _bare_raw(ready: Connection) -> None:
    app = FastAPI()

    @app.post("/api/v1/runs/{run_id}/rounds")
    async def take(request: Request) -> bodies.Received:
        body = RoundsBody.model_validate_json(await request.body())
        return bodies.Received(received=len(body.rounds), stored=0)

    _serve(app, ready)


def _service(url: str, ready: Connection) -> None:
    from telemetry.service.service import create_service
    from telemetry.service.standalone import log_as_json
    from telemetry.store import open_store

    with Path("/dev/null").open("w") as nowhere:
        sys.stderr = nowhere
        log_as_json()
        _serve(create_service(open_store(url), requests_per_s=1e9), ready)


def _serve(app: FastAPI, ready: Connection) -> None:
    from telemetry.service.standalone import serve

    serve(app, "127.0.0.1", 0, said=ready.send)


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


def _deliver(address: str, run_id: str, rounds: list[bytes], start: Any, took: Any) -> None:
    client = ServiceClient(f"http://{address}", None)
    start.wait()
    for one in rounds:
        client.rounds(run_id, [one])
    took.put(time.perf_counter())
    client.close()


def _post(address: str, run_id: str, rounds: list[bytes], start: Any, took: Any) -> None:
    bodies_of = [bodies.rounds_json([one]) for one in rounds]
    connection = http.client.HTTPConnection(address)
    connection.connect()
    start.wait()
    for body in bodies_of:
        connection.request("POST", f"/api/v1/runs/{run_id}/rounds", body, HEADERS)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {said[:300]!r}")
    took.put(time.perf_counter())
    connection.close()


SENDERS_ARE: Final[Mapping[str, Callable[..., None]]] = {
    "as FL servers have them": _deliver,
    "that do the least a sender can": _post,
}


def requests_per_s(
    address: str, label: str, *, announce: bool, send: Callable[..., None] = _post
) -> float:
    """One pass; ``announce`` puts the runs first, where they are stored."""
    context = multiprocessing.get_context("fork")
    start, took = context.Event(), context.Queue()
    each = REQUESTS // SENDERS
    processes = []
    for sender in range(SENDERS):
        run_id = f"{label}-{sender}"
        if announce:
            client = ServiceClient(f"http://{address}", None)
            client.announce(make_run(run_id))
            client.close()
        rounds = [
            bodies.round_json(make_round(n, run_id=run_id, clients=CLIENTS, sequence=n + 1))
            for n in range(each)
        ]
        given = [rounds[n - 1] if n % 10 == 9 else one for n, one in enumerate(rounds)]
        processes.append(context.Process(target=send, args=(address, run_id, given, start, took)))
    for process in processes:
        process.start()
    time.sleep(0.5)  # until each is ready
    began = time.perf_counter()
    start.set()
    ends = [took.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    return float(each * SENDERS / (max(ends) - began))


def main() -> int:
    """Print all rates and their ratios; 1 where a target is missed."""
    wanted = [word.lower() for word in sys.argv[1:]]
    with urls() as databases, ExitStack() as servers:
        bare = {
            "body as a parameter": servers.enter_context(running(_bare_typed)),
            "body as raw bytes": servers.enter_context(running(_bare_raw)),
        }
        services = {
            kind: servers.enter_context(running(_service, url))
            for kind, url in databases.items()
            if not wanted or kind.lower() in wanted
        }
        medians = {}
        for place, (how, send) in enumerate(SENDERS_ARE.items()):
            rates: dict[str, list[float]] = {}
            for turn in range(PASSES + 1):
                for name, address in {**bare, **services}.items():
                    label, stores = f"pass-{place}-{turn}", name in services
                    rate = requests_per_s(address, label, announce=stores, send=send)
                    if turn:  # the first warms all of them up
                        rates.setdefault(name, []).append(rate)
            medians[how] = {name: statistics.median(of) for name, of in rates.items()}
    missed = False
    for place, (how, rate_of) in enumerate(medians.items()):
        print(f"senders {how}:")
        for name in bare:
            print(f"  bare endpoint, {name + ':':<22} {rate_of[name]:6.0f} requests/s")
        parameter, raw = (rate_of[name] for name in bare)
        for kind in services:
            ratio = rate_of[kind] / parameter
            target = "" if place else f" (target: at least {TARGETS[kind]})"
            missed |= not place and ratio < TARGETS[kind]
            print(
                f"  service on {kind + ':':<26} {rate_of[kind]:6.0f} requests/s stored, {ratio:.2f} "
                f"of the first{target}, {rate_of[kind] / raw:.2f} of the second"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
