"""What a sender says to the telemetry service, over HTTP (`telemetry.service.bodies`).

Every exchange ends: within ``timeout_s`` in all, however slowly the other side speaks, and at once
when another thread says `ServiceClient.cancel`. An answer that is none of a telemetry service, such as
a proxy's login page, acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError

from telemetry.domain import RunEnd, RunInfo, utc_now
from telemetry.errors import DeliveryRefused, ServiceAway, ServiceFault
from telemetry.printable import printable
from telemetry.service.bodies import Received, finish_json, rounds_json, run_json

REQUEST_S: Final = 60.0
"""The longest that one exchange may take, connecting included."""
CONNECT_S: Final = 5.0
PROBLEM_TYPE: Final = "application/problem+json"
MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_SHOWN: Final = 200
_LATER: Final = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,  # of the token, not of what is delivered
        HTTPStatus.FORBIDDEN,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)
"""4xx answers that say nothing about what was delivered."""


class ServiceClient:
    """The write side of one service, for one thread. ``token`` is a write token of it, or None.

    Every method raises `ServiceAway` where a later try may help, and `DeliveryRefused` where not.
    """

    def __init__(self, url: str, token: str | None, *, timeout_s: float = REQUEST_S) -> None:
        self._url = url
        self._timeout_s = timeout_s
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._runner = asyncio.Runner()
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            # A proxy of the environment is for the world, not for this machine.
            trust_env=not _on_this_machine(url),
        )
        self._cancelled = threading.Event()
        self._task: asyncio.Task[tuple[int, httpx.Headers, bytes]] | None = None

    @property
    def url(self) -> str:
        """The service, as it was configured."""
        return self._url

    def announce(self, info: RunInfo) -> None:
        """Say that the run is there."""
        _expect(1, self._say("PUT", f"runs/{quote(info.run_id, safe='')}", run_json(info)))

    def rounds(self, run_id: str, rounds: Sequence[bytes]) -> None:
        """Deliver rounds that `bodies.round_json` gave. Returns when they are durable there."""
        path = f"runs/{quote(run_id, safe='')}/rounds"
        _expect(len(rounds), self._say("POST", path, rounds_json(rounds)))

    def finish(self, run_id: str, end: RunEnd) -> None:
        """Say how the run ended."""
        body = finish_json(end.status, end.ended_at, end.reason, end.late_reports)
        _expect(1, self._say("POST", f"runs/{quote(run_id, safe='')}/finish", body))

    def cancel(self) -> None:
        """From any thread: end the exchange that is under way, and begin none any more."""
        self._cancelled.set()
        task = self._task
        if task is not None:
            with suppress(RuntimeError):  # the loop has ended, and the exchange with it
                task.get_loop().call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """Let go of the connections; from the thread that used them."""
        with suppress(Exception):
            self._runner.run(self._http.aclose())
        self._runner.close()

    def _say(self, method: str, path: str, body: bytes) -> bytes:
        """The body of a successful answer."""
        try:
            status, headers, answer = self._runner.run(self._exchange(method, path, body))
        except asyncio.CancelledError:
            raise ServiceAway("the delivery was stopped") from None
        except TimeoutError:
            raise ServiceAway(f"the service does not answer in {self._timeout_s:g} s") from None
        except httpx.TimeoutException as error:
            raise ServiceAway(f"the service does not answer: {type(error).__name__}") from error
        except (httpx.HTTPError, OSError) as error:
            problem = str(error) or type(error).__name__
            raise ServiceAway(f"the service cannot be reached: {problem[:_MAX_SHOWN]}") from error
        if 200 <= status < 300:
            return answer
        problem = _problem(answer) or _phrase(status)
        if _is_refusal(status, headers):
            raise DeliveryRefused(status, problem)
        raise (ServiceFault if _is_fault(status, headers) else ServiceAway)(
            f"the service answered {status}: {problem}", retry_after_s=_retry_after_s(headers)
        )

    async def _exchange(
        self, method: str, path: str, body: bytes
    ) -> tuple[int, httpx.Headers, bytes]:
        self._task = asyncio.current_task()
        if self._cancelled.is_set():
            raise asyncio.CancelledError
        answer = bytearray()
        async with (
            asyncio.timeout(self._timeout_s),
            self._http.stream(method, f"{self._url}/api/v1/{path}", content=body) as response,
        ):
            async for part in response.aiter_raw():
                answer += part
                if len(answer) > MAX_ANSWER_BYTES:
                    raise _no_service()
        return response.status_code, response.headers, bytes(answer)


def _on_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_refusal(status: int, headers: httpx.Headers) -> bool:
    """Whether a telemetry service said this about what was delivered.

    A 404 of an ingress whose service is just being replaced says nothing. A 413 counts whoever says
    it: less at once may pass.
    """
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return True
    return _by_service(headers) and 400 <= status < 500 and status not in _LATER


def _is_fault(status: int, headers: httpx.Headers) -> bool:
    """Whether a telemetry service says that it stumbled; one that only has to wait says 503."""
    return status == HTTPStatus.INTERNAL_SERVER_ERROR and _by_service(headers)


def _by_service(headers: httpx.Headers) -> bool:
    kind: str = headers.get("Content-Type", "")
    return kind.partition(";")[0].strip() == PROBLEM_TYPE


def _no_service() -> ServiceAway:
    return ServiceAway("the answer is not one of a telemetry service")


def _expect(count: int, answer: bytes) -> None:
    """Success is told by the number of what was received, and by nothing else."""
    try:
        received = Received.model_validate_json(answer).received
    except ValidationError:
        raise _no_service() from None
    if received != count:
        raise ServiceAway(f"the service received another number: {received}, not {count}")


def _problem(answer: bytes) -> str:
    """What a problem document (RFC 9457) says, fit for a log; empty where it is none."""
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    said = (document.get("detail"), document.get("title"))
    text = next((part for part in said if isinstance(part, str) and part), "")
    return printable(text[:_MAX_SHOWN])


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown status"


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """``Retry-After`` in seconds, of either form (RFC 9110, 10.2.3); None where there is none."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        at: datetime = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    if at.tzinfo is None:
        return None
    return max(0.0, (at - utc_now()).total_seconds())
