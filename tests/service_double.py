"""A telemetry service by hand, over real sockets and a real store, that can also do wrong.

In a process of its own, which a test may kill: ``python -m tests.service_double STORE_URL PORT``.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from telemetry.domain import Owner, RunEnd, RunInfo, StoredRun, utc_now
from telemetry.errors import RoundConflict, RunDeleted, RunExists, RunNotFound
from telemetry.service.bodies import take_finish, take_rounds, take_run
from telemetry.service.bounds import BadBody
from telemetry.store import Store, open_store
from telemetry.store.memory import InMemoryStore
from telemetry.store.rules import may_resume

OWNER: Final = Owner(host="service", pid=1, token="1.service")
HANG_S: Final = 30.0
SLOW_S: Final = 1.0
LOGIN_PAGE: Final = b"<!doctype html><title>Sign in</title>"

BEFORE: Final = (
    "500",
    "502 page",
    "503 in 0",
    "429 in 0",
    "401",
    "404 page",
    "hang",
    "close",
    "half",
)
"""Faults that happen before anything is stored."""
AFTER: Final = (
    "garbage",
    "page",
    "array",
    "drip",
    "flood",
    "close after",
    "hang after",
    "miscount",
)
"""Faults of the answer: what was delivered is stored."""
SLOW: Final = "slow"
"""No fault: the right answer, in single bytes over `SLOW_S`."""


class ServiceDouble(AbstractContextManager[Any]):
    """Stores what it is told in ``store``; the next answers do the ``faults`` one after another."""

    def __init__(self, store: Store | None = None, *, port: int = 0) -> None:
        self.store = store or InMemoryStore()
        self.faults: deque[str | None] = deque()
        self.refused_rounds: set[int] = set()
        self.foreign_runs: set[str] = set()
        self.faulty_rounds: set[tuple[str, int]] = set()
        """Run and round that it fails at (500), whatever comes with them."""
        self.faulty_runs: set[str] = set()
        self.max_body_bytes: int | None = None
        self.token: str | None = None
        self.always: str | None = None
        self.requests: list[tuple[str, str, int]] = []
        """Method, path after ``/runs/``, number of rounds."""
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self._http.daemon_threads = True
        self._http.double = self  # type: ignore[attr-defined]
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def batches(self) -> list[int]:
        """Rounds in each request that delivered some."""
        return [count for method, path, count in self.requests if path.endswith("rounds")]

    def next_fault(self) -> str | None:
        """What to do wrong now."""
        with self.lock:
            return self.faults.popleft() if self.faults else self.always

    def take(self, method: str, path: str, headers: Message, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; raises `Refused`."""
        with self.lock:  # all or nothing, one after another
            run_id, _, what = path.removeprefix("/api/v1/runs/").partition("/")
            if self.token is not None:
                shown = headers.get("Authorization")
                if shown != f"Bearer {self.token}":
                    raise Refused(401, "token unknown")
            if self.max_body_bytes is not None and len(body) > self.max_body_bytes:
                raise Refused(413, "too large")
            if run_id in self.faulty_runs:
                raise Refused(500, "made to fail at this run")
            if run_id in self.foreign_runs:
                raise Refused(404, "no such run")
            try:
                return self._stored(run_id, what, body)
            except BadBody as error:
                raise Refused(error.status, str(error)) from error
            except RunDeleted as error:
                raise Refused(410, str(error)) from error
            except RunNotFound as error:
                raise Refused(404, "no such run") from error
            except (RunExists, RoundConflict) as error:
                raise Refused(409, str(error)) from error

    def _stored(self, run_id: str, what: str, body: bytes) -> tuple[int, bytes]:
        store = self.store
        if what == "":
            info: RunInfo = take_run(body, run_id)
            self.requests.append(("PUT", run_id, 0))
            store.start_run(info, OWNER, utc_now())
            return 200, b'{"received": 1, "stored": 1}'
        run = store.run(run_id)
        if what == "finish":
            self.requests.append(("POST", f"{run_id}/finish", 0))
            finish = take_finish(body)
            store.add_late_reports(run_id, finish.late_reports - _late(store, run))
            store.finish_run(run_id, finish.status, finish.ended_at, finish.reason)
            return 200, b'{"received": 1, "stored": 1}'
        records = take_rounds(body, run_id)
        self.requests.append(("POST", f"{run_id}/rounds", len(records)))
        if self.faulty_rounds & {(run_id, record.round) for record in records}:
            raise Refused(500, "made to fail at a round")
        for record in records:
            if record.closed and record.round in self.refused_rounds:
                raise Refused(422, f"round {record.round} is refused")
        for record in records:
            if run.ended_at is not None and may_resume(run.status) and record.attempt > 1:
                store.resume_run(run_id, OWNER, utc_now())
                run = store.run(run_id)
        stored = sum(store.record_round(record) for record in records)
        return 200, json.dumps({"received": len(records), "stored": stored}).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class Refused(Exception):
    """A problem document."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def double(self) -> ServiceDouble:
        found: ServiceDouble = self.server.double  # type: ignore[attr-defined]
        return found

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        fault = self.double.next_fault()
        length = int(self.headers["Content-Length"])
        if fault == "half":
            self.rfile.read(length // 2)
            return self._close()
        body = self.rfile.read(length)
        if fault in BEFORE:
            return self._fault(fault)
        try:
            status, answer = self.double.take(self.command, self.path, self.headers, body)
        except Refused as refused:
            document = {"title": "refused", "status": refused.status, "detail": refused.detail}
            kind = "application/problem+json"
            return self._send(refused.status, json.dumps(document).encode(), kind)
        if fault == SLOW:
            return self._send_slowly(status, answer)
        if fault is not None:
            return self._fault(fault)
        return self._send(status, answer)

    def _fault(self, fault: str) -> None:
        match fault.split():
            case ["404", "page"]:
                self._send(404, b"default backend - 404", "text/plain")
            case ["502", "page"]:
                self._send(502, LOGIN_PAGE, "text/html")
            case [status, "in", seconds]:
                self._send(int(status), b"{}", retry_after=seconds)
            case ["hang"] | ["hang", "after"]:
                self.double.ended.wait(HANG_S)
                self._close()
            case ["close"] | ["close", "after"]:
                self._close()
            case ["garbage"]:
                self._send(200, b"\x00\xff{")
            case ["page"]:
                self._send(200, LOGIN_PAGE, "text/html")
            case ["array"]:
                self._send(200, b"[1, 2]")
            case ["miscount"]:
                self._send(200, b'{"received": 0, "stored": 0}')
            case ["drip"]:
                self._drip()
            case ["flood"]:
                self._flood()
            case _:
                self._send(int(fault), b'{"title": "made to fail"}', "application/problem+json")

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        *,
        retry_after: str | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def _send_slowly(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            for byte in body:
                self.double.ended.wait(SLOW_S / len(body))
                self.wfile.write(bytes([byte]))

    def _drip(self) -> None:
        """A byte now and then: never long enough silent for a timeout of reading."""
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 10_000:
                self.wfile.write(bytes([byte]))
                if self.double.ended.wait(0.02):
                    break
        self.close_connection = True

    def _flood(self) -> None:
        """An answer without an end."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        with suppress(OSError):
            while not self.double.ended.is_set():
                self.wfile.write(b"[" * 65536)
        self.close_connection = True

    def _close(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _late(store: Store, run: StoredRun) -> int:
    """Late reports that were told with an end before."""
    in_rounds = sum(row.reports_late for row in store.rounds(run.run_id))
    end = RunEnd.of(run, in_rounds)
    return run.totals.reports_late - in_rounds if end is None else end.late_reports


def assert_same(service: Store, server: Store, run_ids: Iterable[str] | None = None) -> None:
    """The service holds exactly what the server recorded, figure by figure and row by row."""
    expected = [run.run_id for run in server.runs()] if run_ids is None else list(run_ids)
    assert [run.run_id for run in service.runs()] == expected
    for run_id in expected:
        assert_same_run(service, server, run_id)


FACTS = ("info", "status", "reason", "ended_at", "totals", "sha256")


def assert_same_run(
    service: Store, server: Store, run_id: str, facts: Sequence[str] = FACTS
) -> None:
    """`assert_same` of one run."""
    here, there = service.run(run_id), server.run(run_id)
    for name in facts:
        assert getattr(here, name) == getattr(there, name), (run_id, name)
    assert list(service.rounds(run_id)) == list(server.rounds(run_id))
    assert list(service.reports(run_id)) == list(server.reports(run_id))
    assert list(service.participants(run_id)) == list(server.participants(run_id))
    for row in server.rounds(run_id):
        key = run_id, row.round, row.attempt
        told = server.round(*key).model_copy(update={"noise": None})
        assert service.round(*key) == told


def main() -> None:
    """Serve until killed."""
    url, port, *options = sys.argv[1:]
    double = ServiceDouble(open_store(url), port=int(port))
    if "slow" in options:  # so that a kill falls into a batch
        record_round = double.store.record_round

        def slowly(record: Any) -> bool:
            stored = record_round(record)
            time.sleep(0.2)
            return stored

        double.store.record_round = slowly  # type: ignore[method-assign]
    with double:
        print(double.url, flush=True)  # noqa: T201 - for the test
        threading.Event().wait()


if __name__ == "__main__":
    main()
